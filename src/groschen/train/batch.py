"""Groups to micro-batches: the prompt of a group once, then every completion, and the one denominator.

How groups are split is decided by their lengths and `tokens_at_once` alone, so that a run can be repeated;
the value of the update must not depend on it, because every micro-batch is divided by the denominator of
the whole update. Leaves out the forward and the loss.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from groschen.errors import Unsupported
from groschen.model.kvcache import Rows
from groschen.records import Completion

Normalisation = Literal["constant", "token", "sequence"]
NORMALISATIONS: tuple[str, ...] = get_args(Normalisation)


@dataclass(frozen=True, slots=True)
class Scored:
    """A completion that is trained: what was sampled and how good it was."""

    completion: Completion
    advantage: float
    reference_logprobs: tuple[float, ...] = ()  # of a frozen policy, if a divergence is wanted


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What one forward computes. N tokens are fed, M are scored.

    A scored token's log probability is read at the hidden state of the token before it.
    """

    token_ids_N: Tensor
    rows: Rows
    num_blocks: int
    before_M: Tensor  # int64, which fed token precedes the scored one
    targets_M: Tensor
    old_logprobs_M: Tensor
    advantages_M: Tensor
    weights_M: Tensor
    reference_logprobs_M: Tensor | None
    lengths: tuple[int, ...]  # scored tokens of each completion, in order


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """All micro-batches of one update. Losses are weighted, added up and divided by `denominator`."""

    micro_batches: tuple[MicroBatch, ...]
    denominator: float
    num_trained_tokens: int
    num_fed_tokens: int
    num_completions: int


Groups = Sequence[Sequence[Scored]]  # the completions of a group share their prompt


def batch(
    groups: Groups,
    normalisation: Normalisation,
    max_tokens: int,
    tokens_at_once: int,
    device: torch.device,
    trained_share: float = 1.0,
) -> TrainBatch:
    """Micro-batches of at most `tokens_at_once` fed tokens where a single completion is not longer.

    normalisation: "constant" divides the sum over tokens by (completions * max_tokens), Dr. GRPO; "token"
    by the number of tokens, DAPO; "sequence" takes the mean over each completion, then over completions,
    GRPO. trained_share: how many of the completions that "constant" and "sequence" count are trained. Below
    1 those without signal count too, as in the papers: their loss is 0. At 1 they do not, and the fewer
    groups have signal, the more each of them weighs.
    """
    completions = [each for group in groups for each in group]
    num_tokens = sum(len(each.completion.token_ids) for each in completions)
    if normalisation not in NORMALISATIONS:
        raise Unsupported(
            f"normalisation {normalisation!r} is not known; take one of {', '.join(NORMALISATIONS)}"
        )
    denominators = {
        "constant": len(completions) * max_tokens / trained_share,
        "token": float(num_tokens),
        "sequence": len(completions) / trained_share,
    }
    micro_batches = tuple(
        _micro_batch(part, normalisation == "sequence", device) for part in split(groups, tokens_at_once)
    )
    return TrainBatch(
        micro_batches,
        denominators[normalisation],
        num_tokens,
        sum(len(each.token_ids_N) for each in micro_batches),
        len(completions),
    )


def split(groups: Groups, tokens_at_once: int) -> Iterator[list[list[Scored]]]:
    """Groups in their order, in parts of at most `tokens_at_once` fed tokens; a group that is too long is
    cut between completions, and its prompt is then computed once for each part.
    """
    part: list[list[Scored]] = []
    size = 0
    for group in groups:
        opened: list[Scored] | None = None
        for each in group:
            prompt, own = len(each.completion.prompt_ids), len(each.completion.token_ids) - 1
            needed = own if opened is not None else prompt + own
            if part and size + needed > tokens_at_once:
                yield part
                part, size, opened, needed = [], 0, None, prompt + own
            if opened is None:
                opened = []
                part.append(opened)
            opened.append(each)
            size += needed
    if part:
        yield part


def _micro_batch(groups: Groups, is_mean_of_each: bool, device: torch.device) -> MicroBatch:
    token_ids: list[int] = []
    before: list[int] = []
    shapes: list[tuple[int, list[int]]] = []
    for group in groups:
        prompt = group[0].completion.prompt_ids
        last_of_prompt = len(token_ids) + len(prompt) - 1
        token_ids += prompt
        shapes.append((len(prompt), []))
        for each in group:
            fed = each.completion.token_ids[:-1]  # nothing is asked of the last token's successor
            before += [last_of_prompt, *range(len(token_ids), len(token_ids) + len(fed))]
            token_ids += fed
            if fed:
                shapes[-1][1].append(len(fed))
    flat = [each for group in groups for each in group]
    lengths = tuple(len(each.completion.token_ids) for each in flat)
    rows = Rows.of_groups(shapes, device)
    has_reference = bool(flat[0].reference_logprobs)

    def per_token(values: Sequence[float]) -> Tensor:
        repeated = torch.repeat_interleave(torch.tensor(values, dtype=torch.float32), torch.tensor(lengths))
        return repeated.to(device)

    def given(values: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor([each for row in values for each in row], dtype=torch.float32, device=device)

    return MicroBatch(
        token_ids_N=torch.tensor(token_ids, device=device),
        rows=rows,
        num_blocks=int(rows.tables.max()) + 1,
        before_M=torch.tensor(before, device=device),
        targets_M=torch.tensor([t for each in flat for t in each.completion.token_ids], device=device),
        old_logprobs_M=given([each.completion.logprobs for each in flat]),
        advantages_M=per_token([each.advantage for each in flat]),
        weights_M=per_token([1 / n if is_mean_of_each else 1.0 for n in lengths]),
        reference_logprobs_M=given([each.reference_logprobs for each in flat]) if has_reference else None,
        lengths=lengths,
    )
