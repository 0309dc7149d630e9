"""Muon (K. Jordan et al., 2024; scaled as in arXiv 2502.16982), in float32: torch's own computes in bfloat16,
which a CPU without bfloat16 products only emulates.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.775, 2.0315)  # of the iteration; it takes singular values to 0.7 .. 1.2
_ITERATIONS = 5


class Muon:
    """Momentum whose update is made orthogonal, with the root mean square that an update of AdamW has."""

    def __init__(self, matrices: Iterable[Tensor], decay: float = 0.1, momentum: float = 0.95) -> None:
        self.matrices, self.decay, self.momentum = list(matrices), decay, momentum
        self.momenta = [torch.zeros_like(each) for each in self.matrices]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update from the gradients."""
        for matrix, momentum in zip(self.matrices, self.momenta, strict=True):
            assert matrix.grad is not None
            momentum.lerp_(matrix.grad, 1 - self.momentum)
            update = orthogonal(matrix.grad.lerp(momentum, self.momentum))
            matrix.mul_(1 - rate * self.decay)
            matrix.add_(update, alpha=-rate * 0.2 * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix with the same singular vectors and singular values near 1, by Newton-Schulz iteration."""
    a, b, c = _COEFFICIENTS
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x
