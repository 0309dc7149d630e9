"""Log probabilities of a frozen policy for completions of the trained one: what a divergence is measured
from.

Leaves out the divergence (losses.py). The frozen policy runs the same forward over the same micro-batches,
without a gradient.
"""

from collections.abc import Callable, Sequence

import torch

from groschen.model.score import score
from groschen.model.transformer import Transformer
from groschen.records import Completion
from groschen.train.batch import MicroBatch, Scored, batch

ROWS_AT_ONCE = 512  # of the head


@torch.no_grad()
def reference_logprobs(
    reference: Transformer,
    groups: Sequence[Sequence[Completion]],
    tokens_at_once: int,
    temperature: float,
    on_progress: Callable[[int], None] | None = None,
) -> list[list[tuple[float, ...]]]:
    """For each completion of each group the logprob of each token, nat, at the sampling temperature.

    on_progress: told after each micro-batch how many tokens it scored.
    """
    plain = [[Scored(completion, 0.0) for completion in group] for group in groups]
    made = batch(plain, "token", 1, tokens_at_once, reference.device)
    flat: list[tuple[float, ...]] = []
    for micro_batch in made.micro_batches:
        flat += _rows(reference, micro_batch, temperature)
        if on_progress is not None:
            on_progress(len(micro_batch.targets_M))
    found, start = [], 0
    for group in groups:
        found.append(flat[start : start + len(group)])
        start += len(group)
    return found


def _rows(reference: Transformer, micro_batch: MicroBatch, temperature: float) -> list[tuple[float, ...]]:
    cache = reference.new_cache(micro_batch.num_blocks)
    hidden_ND = reference(micro_batch.token_ids_N, micro_batch.rows, cache)
    hidden_MD = hidden_ND[micro_batch.before_M]
    logprobs = torch.cat(
        [
            score(reference, hidden, targets, temperature)[0]
            for hidden, targets in zip(
                torch.split(hidden_MD, ROWS_AT_ONCE),
                torch.split(micro_batch.targets_M, ROWS_AT_ONCE),
                strict=True,
            )
        ]
    )
    return [tuple(row.tolist()) for row in torch.split(logprobs, list(micro_batch.lengths))]
