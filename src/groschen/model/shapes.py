"""Small records of the model room: what an attention layer looks like, what a draw from a row of logits
returns.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What varies between attention layers beyond the shapes of their tensors."""

    scale: float  # multiplies the scores
    window: int | None = None  # positions that a query sees, its own included; None: all
    softcap: float | None = None  # scores become softcap * tanh(score / softcap); Gemma 2, arXiv 2408.00118


class Categorical(NamedTuple):
    """One draw for each row of logits."""

    tokens: Tensor  # [R] int64; -1 where the row holds a NaN or nothing finite
    logprobs: Tensor  # [R] float32, nat
    entropies: Tensor  # [R] float32, nat
