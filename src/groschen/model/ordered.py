"""Sums of a row whose order the row's own length decides, in plain torch, for devices whose libraries choose
it.

How many threads of a GPU share the sum of a row depends on how many rows there are, which kernel takes it on
its width, and how a batched product adds up on both (pytorch's Reduce.cuh, SoftMax.cu and ScanUtils.cuh;
cuBLAS). So a row would have other bits beside other rows. Here every addition is an elementwise one of two
tensors, rounded once by IEEE 754 whatever lies beside it: the upper half of a row is added to its lower half
until one number is left. Zeros behind a row change nothing, so a padded row has the bits of a short one.
Costs three readings and a launch for each halving; kernels of our own would cost one of each. Leaves out what
no order changes: maxima, counts, comparisons.
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


def total(x: Tensor, dim: int) -> Tensor:
    """The sum over one dimension, which is gone then; of x's type."""
    size = x.shape[dim]
    while size > 1:
        half = 1 << (size - 1).bit_length() - 1  # the greatest power of two below the size
        both = size - half
        low = x.narrow(dim, 0, both) + x.narrow(dim, half, both)
        x = low if both == half else torch.cat([low, x.narrow(dim, both, half - both)], dim)
        size = half
    return x.select(dim, 0)


def running_totals(x_RN: Tensor) -> Tensor:
    """Sums of each row up to and with each place, [R, N]; Hillis and Steele, Data parallel algorithms."""
    reach = 1
    while reach < x_RN.shape[1]:
        x_RN = torch.cat([x_RN[:, :reach], x_RN[:, reach:] + x_RN[:, :-reach]], 1)
        reach *= 2
    return x_RN


@dataclass(frozen=True, slots=True)
class SumTree:
    """Sums of neighbouring pairs, of pairs of pairs and so on: a row's total, and a way down to one of its
    places.
    """

    total: Tensor  # [R]
    levels: tuple[Tensor, ...]  # [R, an even number], the row itself first

    @classmethod
    def of(cls, weights_RN: Tensor) -> Self:
        """weights: [R, N], none of them negative."""
        levels, x = [], weights_RN
        while x.shape[1] > 1:
            x = F.pad(x, (0, x.shape[1] % 2))
            levels.append(x)
            x = x[:, 0::2] + x[:, 1::2]
        return cls(x[:, 0], tuple(levels))

    def find(self, targets_R: Tensor) -> Tensor:
        """The place at which the running sum of a row passes its target, from 0 to below the total; never a
        place whose weight is 0 unless all are. Returns [R] int64.
        """
        at = torch.zeros_like(targets_R, dtype=torch.int64)
        for level in reversed(self.levels):
            pairs = level.view(len(level), -1, 2)
            left, right = pairs.gather(1, at[:, None, None].expand(-1, 1, 2))[:, 0].unbind(1)
            is_right = (targets_R >= left) & (right > 0)
            targets_R = torch.where(is_right, targets_R - left, targets_R)
            at = 2 * at + is_right
        return at


def add_rows_(totals_VD: Tensor, index_N: Tensor, rows_ND: Tensor) -> None:
    """totals[index[n]] += rows[n], rows of one index in the order of n; index_add_ of a GPU adds in any
    order.

    Sorted by index, a segment is added up by a scan that reaches twice as far each time and stops at its
    borders; then each row of a segment writes the same sum.
    """
    index_N, order_N = index_N.sort(stable=True)
    sums_ND = rows_ND.index_select(0, order_N)
    reach = 1
    while reach < len(index_N):
        is_same = (index_N[reach:] == index_N[:-reach])[:, None]
        further = sums_ND[reach:] + torch.where(is_same, sums_ND[:-reach], 0.0)
        sums_ND = torch.cat([sums_ND[:reach], further])
        reach *= 2
    last_N = torch.searchsorted(index_N, index_N, right=True) - 1
    written = totals_VD.index_select(0, index_N) + sums_ND.index_select(0, last_N)
    totals_VD[index_N] = written
