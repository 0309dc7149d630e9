"""The gradient of one update: forward, loss and backward of every micro-batch.

The head and the loss run on a few hundred scored tokens at a time, or on one longer completion, and their
gradient is taken at once, so that [M, V] is never held and nothing is computed twice. Leaves out what is
sampled and how groups become micro-batches.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from groschen import heap
from groschen.model import operations as ops
from groschen.model.score import score
from groschen.model.transformer import Transformer
from groschen.train.batch import MicroBatch, TrainBatch
from groschen.train.losses import (
    Bounds,
    Divergence,
    Loss,
    divergence_losses,
    divergence_metric,
    policy_losses,
)
from groschen.work_sizes import work_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is minimised."""

    loss: Loss = "clip"
    bounds: Bounds = field(default_factory=Bounds)
    divergence: Divergence = "none"
    divergence_weight: float = 0.0
    temperature: float = 1.0


@dataclass(slots=True)
class StepStats:
    """What one update saw. Means are over trained tokens."""

    loss: float = 0.0
    grad_norm: float = 0.0
    learning_rate: float = 0.0
    entropy: float = 0.0
    logprob_gap_max: float = 0.0
    clipped_share: float = 0.0
    divergence: float = 0.0
    num_tokens: int = 0


def gradient(
    model: Transformer,
    batch: TrainBatch,
    objective: Objective,
    on_progress: Callable[[int], None] | None = None,
) -> StepStats:
    """Leave in the parameters the gradient of (sum of weighted token losses) / denominator. Returns what
    was seen; the optimizer's part of it is not filled in yet.

    on_progress: told after each micro-batch how many tokens it trained.
    """
    stats = StepStats(num_tokens=batch.num_trained_tokens)
    for micro_batch in batch.micro_batches:
        accumulate(model, micro_batch, objective, batch.denominator, stats)
        if model.device.type == "cpu":
            heap.give_back_if_short()
        if on_progress is not None:
            on_progress(len(micro_batch.targets_M))
    for name in ("entropy", "clipped_share", "divergence"):
        setattr(stats, name, getattr(stats, name) / max(1, stats.num_tokens))
    return stats


def accumulate(
    model: Transformer, micro_batch: MicroBatch, objective: Objective, denominator: float, stats: StepStats
) -> None:
    """Add the gradient of one micro-batch to the parameters' and its sums to `stats`."""
    cache = model.new_cache(micro_batch.num_blocks)
    hidden_ND = model(micro_batch.token_ids_N, micro_batch.rows, cache)
    # The head's part of the gradient ends at `seen`; one backward through the layers follows for all of it.
    seen_ND = hidden_ND.detach().requires_grad_()
    for part, lengths in _parts(micro_batch.lengths, work_sizes(model.device).scored_at_once):
        before_MD = ops.select(seen_ND, micro_batch.before_M[part])
        logprobs, entropies = score(model, before_MD, micro_batch.targets_M[part], objective.temperature)
        loss = _loss(micro_batch, part, lengths, logprobs, objective, stats) / denominator
        torch.autograd.backward(loss)
        stats.loss += float(loss.detach())
        stats.entropy += float(entropies.sum())
    assert seen_ND.grad is not None
    torch.autograd.backward(hidden_ND, seen_ND.grad)


def _loss(
    micro_batch: MicroBatch,
    part: slice,
    lengths: list[int],
    logprobs: Tensor,
    objective: Objective,
    stats: StepStats,
) -> Tensor:
    """The weighted sum over the tokens of one part."""
    old, weights = micro_batch.old_logprobs_M[part], micro_batch.weights_M[part]
    found = policy_losses(
        objective.loss, logprobs, old, micro_batch.advantages_M[part], lengths, objective.bounds
    )
    stats.logprob_gap_max = max(stats.logprob_gap_max, float((logprobs.detach() - old).abs().max()))
    stats.clipped_share += float(found.is_clipped.sum())
    total = (found.losses * weights).sum()
    if micro_batch.reference_logprobs_M is not None:
        reference = micro_batch.reference_logprobs_M[part]
        stats.divergence += float(divergence_metric(logprobs.detach(), reference).sum())
        if objective.divergence in ("k2", "ratio_k3"):
            apart = divergence_losses(objective.divergence, logprobs, old, reference)
            total = total + objective.divergence_weight * (apart * weights).sum()
    return total


def _parts(lengths: tuple[int, ...], scored_at_once: int) -> Iterator[tuple[slice, list[int]]]:
    """Whole completions, of at most `scored_at_once` tokens together if none is longer: a loss over sequences
    needs all their tokens.
    """
    start, here = 0, list[int]()
    for length in lengths:
        if here and sum(here) + length > scored_at_once:
            yield slice(start, start + sum(here)), here
            start, here = start + sum(here), []
        here.append(length)
    if here:
        yield slice(start, start + sum(here)), here
