"""Which tokens of a row stay when top-k, top-p and min-p cut it, without sorting the vocabulary.

Each of the three keeps the front of one order: greater logit first, of equal logits the lower token first. So
a row needs only its greatest logits, and only as many as stay: a window of 128 is tried, then wider ones,
then the whole row. All three look at the distribution at the row's temperature, in transformers' order:
top-k, then top-p of what top-k left, then min-p, whose bound does not depend on the others. (vLLM cuts by
min-p before the other two; then top-p sees less than it does here.) Sources: top-p: nucleus sampling, arXiv
1904.09751; min-p: arXiv 2407.01082.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from groschen.model import ordered
from groschen.model.operations import Operations
from groschen.records import SamplingParams

_WIDTHS = (128, 1024, 16384)  # a row's width follows from the row alone: neighbours must not change its bits


class Candidates(NamedTuple):
    """The tokens that stay in some rows, in the order of their ids; -inf fills a row up."""

    rows: Tensor  # [r] int64, which rows of the logits these are
    logits: Tensor  # [r, W] float32
    token_ids: Tensor  # [r, W] int64


class _Ranked(NamedTuple):
    values: Tensor  # [r, W], the greatest first
    token_ids: Tensor  # [r, W], of equal values the lowest first
    certain: Tensor  # [r] how many at the front are surely these: ties with the last may have been left out


class _Cuts(NamedTuple):
    inverses: Tensor  # [r, 1] float64, 1 / temperature
    top_k: Tensor  # [r, 1] int64, V where it keeps all
    top_p: Tensor  # [r, 1] float64
    log_min_p: Tensor  # [r, 1] float64
    totals: Tensor  # [r, 1] float64, sum over the row of exp((logit - greatest) / temperature)


def is_cut(params: SamplingParams) -> bool:
    """Whether a token may lose its chance; at temperature 0 the most probable one stays in any case."""
    return params.temperature > 0 and bool(params.top_k or params.top_p < 1 or params.min_p)


def candidates(
    operations: Operations, logits_RV: Tensor, inverses: Tensor, params: Sequence[SamplingParams]
) -> Iterator[Candidates]:
    """The tokens that stay in each row, rows of one width together; each row comes once.

    logits_RV: [R, V] float32; inverses: [R] float32, 1 / temperature, above 0. Exactly top_k tokens stay
    where it decides; the border of top-p is exact to 1e-6 of probability. A row with a NaN or infinite logit
    keeps one and is found by the draw.
    """
    cuts = _cuts(operations, logits_RV, inverses, params)
    pending = torch.arange(len(params), device=logits_RV.device)
    num_words = logits_RV.shape[1]
    for width in (*(w for w in _WIDTHS if w < num_words), num_words):
        here = _Cuts(*(each[pending] for each in cuts))
        part = logits_RV if len(pending) == len(params) else logits_RV[pending]
        window = ranked(part, width)
        kept, is_known = _count(window.values, here, num_words)
        is_done = is_known & (kept <= window.certain)
        if bool(is_done.any()):
            yield _by_token(
                pending[is_done], window.values[is_done], window.token_ids[is_done], kept[is_done]
            )
        pending = pending[~is_done]
        if not len(pending):
            return


def ranked(logits_RV: Tensor, width: int) -> _Ranked:
    """The greatest `width` logits of each row with their tokens, ties in the order of the tokens."""
    if width == logits_RV.shape[1]:
        values, token_ids = logits_RV.sort(dim=-1, descending=True, stable=True)
        return _Ranked(values, token_ids, torch.full_like(token_ids[:, 0], width))
    values, token_ids = logits_RV.topk(width, sorted=False)
    token_ids, order = token_ids.sort(-1)
    values, order = values.gather(1, order).sort(dim=-1, descending=True, stable=True)
    certain = (values > values[:, -1:]).sum(-1)
    # Whatever is tied at minus infinity has no chance, so it does not matter which of it is here.
    certain = torch.where(values[:, -1] == -math.inf, width, certain)
    return _Ranked(values, token_ids.gather(1, order), certain)


def _cuts(
    operations: Operations, logits_RV: Tensor, inverses: Tensor, params: Sequence[SamplingParams]
) -> _Cuts:
    device, num_words = logits_RV.device, logits_RV.shape[1]
    log_min_p = [math.log(p.min_p) if p.min_p else -math.inf for p in params]
    table = torch.tensor([[p.top_p for p in params], log_min_p], dtype=torch.float64).to(device)
    counts = [min(p.top_k or num_words, num_words) for p in params]
    top_k = torch.tensor(counts).to(device)
    totals = torch.ones_like(table[0])
    if any(p.top_p < 1 and count == num_words for p, count in zip(params, counts, strict=True)):
        greatest = operations.categorical(logits_RV, inverses, None, logits_RV.argmax(-1))
        totals = (-greatest.logprobs.double()).exp()
    each = (inverses.double(), top_k, table[0], table[1], totals)
    return _Cuts(*(numbers[:, None] for numbers in each))


def _count(values: Tensor, cuts: _Cuts, num_words: int) -> tuple[Tensor, Tensor]:
    """How many at the front of each window stay, [r] int64; and whether the window can tell, [r]."""
    width = values.shape[1]
    below = (values.double() - values[:, :1].double()) * cuts.inverses
    running = _running_sums(below.exp())
    before = F.pad(running[:, :-1], (1, 0))
    mass = running.gather(1, cuts.top_k.clamp(max=width) - 1)
    if width < num_words:
        mass = torch.where(cuts.top_k < num_words, mass, cuts.totals)
    stays = (torch.arange(width, device=values.device) < cuts.top_k) & (below >= cuts.log_min_p)
    stays &= (before < cuts.top_p * mass) | (cuts.top_p >= 1)
    stays &= values > -math.inf  # what a guide has masked
    is_known = (cuts.top_p >= 1) | (cuts.top_k <= width) | (cuts.top_k == num_words)
    return stays.sum(-1).clamp(min=1), is_known[:, 0]


def _running_sums(weights: Tensor) -> Tensor:
    """Sums along each row; the scan of a GPU would have other bits for another number of rows."""
    return weights.cumsum(-1) if weights.is_cpu else ordered.running_totals(weights)


def _by_token(rows: Tensor, values: Tensor, token_ids: Tensor, kept: Tensor) -> Candidates:
    """Back to the order of the ids, so that a cut which removes nothing changes no draw."""
    is_out = torch.arange(values.shape[1], device=values.device) >= kept[:, None]
    token_ids, order = token_ids.masked_fill(is_out, torch.iinfo(torch.int64).max).sort(-1)
    logits = values.masked_fill(is_out, -math.inf).gather(1, order)
    return Candidates(rows, logits, token_ids)
