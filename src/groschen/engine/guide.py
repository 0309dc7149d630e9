"""Guides at work: what a guide does not allow gets a logit of minus infinity before anything else is done.

So bias, penalties, cuts and the draw see the masked row, and log probabilities are of what could be drawn.
Leaves out what guides allow (`records.Guide` says what one is).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from groschen.errors import BadRequest, GroschenError
from groschen.records import Guide


def restrict(
    logits_RV: Tensor, rows: Sequence[int], guides: Sequence[Guide | None]
) -> dict[int, GroschenError]:
    """Mask the rows that have a guide, in place. Returns which guides cannot go on, and why.

    logits_RV: [R, V] float32, ours to change; rows: of each guide, its row. 152 k tokens take about 0.1 ms.
    """
    failed: dict[int, GroschenError] = {}
    for index, (row, guide) in enumerate(zip(rows, guides, strict=True)):
        if guide is None:
            continue
        try:
            mask = guide.allowed()
        except GroschenError as error:
            failed[index] = error
            continue
        if mask is not None and not _apply(logits_RV[row], mask):
            failed[index] = BadRequest(
                "the grammar allows no token of this model's vocabulary at this place, so the answer cannot "
                "go on; loosen the schema or the grammar, or use a model whose vocabulary can write it"
            )
    return failed


def _apply(logits_V: Tensor, mask: bytes) -> bool:
    """Mask one row; False if nothing is left."""
    words = np.frombuffer(mask, dtype=np.uint8)
    count = min(8 * len(words), len(logits_V))
    is_out = np.unpackbits(~words, count=count, bitorder="little").view(np.bool_)
    if logits_V.is_cuda:
        logits_V[:count].masked_fill_(torch.from_numpy(is_out).to(logits_V.device), -math.inf)
    else:
        np.copyto(logits_V[:count].numpy(), -math.inf, where=is_out)  # half the time of masked_fill_
    logits_V[count:] = -math.inf
    return not is_out.all()
