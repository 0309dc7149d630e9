"""Change the logits of tokens that were biased by the request or have been seen before.

The order is that of vLLM (v1/sample/sampler.py): bias, repetition penalty, then frequency and presence
penalty; transformers too adds its bias before the repetition penalty. The repetition penalty counts the
prompt, the other two only generated tokens, as in vLLM and the OpenAI API. Sources: repetition: CTRL, arXiv
1909.05858, section 4.1; frequency and presence: OpenAI's API reference. Leaves out temperature and the choice
of tokens (`candidates.py`, `sampling.py`).
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from groschen.records import SamplingParams

_Cells = tuple[
    list[npt.NDArray[np.int64]], list[npt.NDArray[np.float32]]
]  # places in the flat logits, and a number for each


class Drawing(Protocol):
    """What sampling must know of a row: its request's settings, and what it has seen."""

    @property
    def sampling(self) -> SamplingParams:
        """As `sampling.check` let it pass."""

    @property
    def seed(self) -> int:
        """Of the request, -2^63 to 2^63 - 1."""

    @property
    def sample(self) -> int:
        """Which completion of the request this is."""

    @property
    def prompt_ids(self) -> Sequence[int]:
        """The prompt."""

    @property
    def token_ids(self) -> Sequence[int]:
        """What was generated so far; their number is the position of the noise of the next one."""


def is_adjusted(params: SamplingParams) -> bool:
    """Whether `adjust` would change a row of logits."""
    return bool(
        params.repetition_penalty != 1.0
        or params.presence_penalty
        or params.frequency_penalty
        or params.logit_bias
    )


def adjust(logits_RV: Tensor, rows: Sequence[Drawing]) -> None:
    """Apply bias and penalties in place: logits [R, V] float32, contiguous, a copy that is ours.

    Costs time by the tokens seen, not by the vocabulary.
    """
    flat, width = logits_RV.view(-1), logits_RV.shape[1]
    biased, addends = _tensors(_biases(rows, width), flat.device)
    flat[biased] += addends
    repeated, penalties = _tensors(_repetitions(rows, width), flat.device)
    seen = flat[repeated]
    flat[repeated] = torch.where(
        seen < 0, seen * penalties, seen / penalties
    )  # twice for a token met twice: the same
    counted, subtrahends = _tensors(_counts(rows, width), flat.device)
    flat[counted] -= subtrahends


def _biases(rows: Sequence[Drawing], width: int) -> _Cells:
    cells: _Cells = ([], [])
    for index, row in enumerate(rows):
        if row.sampling.logit_bias:
            ids, addends = zip(*row.sampling.logit_bias, strict=True)
            cells[0].append(np.array(ids, dtype=np.int64) + index * width)
            cells[1].append(np.array(addends, dtype=np.float32))
    return cells


def _repetitions(rows: Sequence[Drawing], width: int) -> _Cells:
    cells: _Cells = ([], [])
    for index, row in enumerate(rows):
        if row.sampling.repetition_penalty != 1.0:
            ids = np.array([*row.prompt_ids, *row.token_ids], dtype=np.int64)
            cells[0].append(ids + index * width)
            cells[1].append(np.full(len(ids), row.sampling.repetition_penalty, dtype=np.float32))
    return cells


def _counts(rows: Sequence[Drawing], width: int) -> _Cells:
    cells: _Cells = ([], [])
    for index, row in enumerate(rows):
        params = row.sampling
        if (params.presence_penalty or params.frequency_penalty) and row.token_ids:
            ids, counts = np.unique(np.array(row.token_ids, dtype=np.int64), return_counts=True)
            cells[0].append(ids + index * width)
            cells[1].append((params.frequency_penalty * counts + params.presence_penalty).astype(np.float32))
    return cells


def _tensors(cells: _Cells, device: torch.device) -> tuple[Tensor, Tensor]:
    places, values = cells
    if not places:
        return torch.empty(0, dtype=torch.int64, device=device), torch.empty(0, device=device)
    return torch.from_numpy(np.concatenate(places)).to(device), torch.from_numpy(np.concatenate(values)).to(
        device
    )
