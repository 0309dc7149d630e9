"""Decoding steps as CUDA graphs: small models on a GPU are bound by launches, not by arithmetic.

A graph is captured at its first use, for a padded number of rows and a padded width of the block table;
padding rows write into a block that nobody reads. All graphs take the memory of what they pass through from
one pool: one step runs at a time, and its hidden states are used before the next. Without capture (any
device) the same padded step runs eagerly, which is how its bookkeeping is tested on a CPU. Leaves out
prefill, whose shapes hardly ever repeat.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groschen.model.kvcache import KeyValueCache, Rows
from groschen.model.transformer import Transformer

_LEAST_BLOCKS = 16  # 256 positions: below, a narrower table saves nothing


@dataclass(frozen=True, slots=True)
class _Step:
    """Inputs at fixed addresses, and what the forward made of them."""

    token_ids: Tensor  # [B] int64
    row: Tensor  # [B] int32
    positions: Tensor  # [B] int64
    tables: Tensor  # [R, blocks] int32
    hidden: Tensor  # [B, D]
    graph: "torch.cuda.CUDAGraph | None"


def padded(count: int) -> int:
    """The next power of two up to 16, then the next multiple of 16: at most 15 wasted rows."""
    if count <= 16:
        return 1 << (count - 1).bit_length()
    return -(-count // 16) * 16


def padded_blocks(count: int, most: int) -> int:
    """The next power of two, 16 at least and the width of the whole table at most."""
    return min(most, max(_LEAST_BLOCKS, 1 << (count - 1).bit_length()))


class DecodeGraphs:
    """One captured step for each padded shape that has come.

    spare_row: a row of the block table whose blocks nobody reads; padding tokens go there.
    """

    def __init__(self, model: Transformer, cache: KeyValueCache, spare_row: int, *, captures: bool) -> None:
        self._model, self._cache, self._spare_row, self._captures = model, cache, spare_row, captures
        self._steps: dict[tuple[int, int], _Step] = {}
        self._pool = torch.cuda.graph_pool_handle() if captures else None

    def run(
        self, token_ids: Sequence[int], row: Sequence[int], positions: Sequence[int], tables: Tensor
    ) -> Tensor:
        """One token for each row. tables: [R, blocks] as wide as the longest row needs. Returns hidden states
        [rows, D].
        """
        count, missing = len(token_ids), padded(len(token_ids)) - len(token_ids)
        step = self._step(count + missing, tables)
        _fill(step.token_ids, [*token_ids, *[0] * missing])
        _fill(step.row, [*row, *[self._spare_row] * missing])
        _fill(step.positions, [*positions, *[0] * missing])
        step.tables.copy_(tables)
        if step.graph is None:
            return self._forward(step)[:count]
        step.graph.replay()
        return step.hidden[:count]

    def _step(self, num_rows: int, tables: Tensor) -> _Step:
        key = (num_rows, tables.shape[1])
        if key not in self._steps:
            step = self._blank(num_rows, tables)
            self._steps[key] = self._captured(step) if self._captures else step
        return self._steps[key]

    def _blank(self, num_rows: int, tables: Tensor) -> _Step:
        device = tables.device
        return _Step(
            token_ids=torch.zeros(num_rows, dtype=torch.int64, device=device),
            row=torch.full((num_rows,), self._spare_row, dtype=torch.int32, device=device),
            positions=torch.zeros(num_rows, dtype=torch.int64, device=device),
            tables=tables.clone(),
            hidden=torch.empty(0, device=device),
            graph=None,
        )

    def _captured(self, step: _Step) -> _Step:
        """Run once beside the main stream, so that libraries make their workspaces, then record."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._forward(step)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            hidden = self._forward(step)
        return _Step(step.token_ids, step.row, step.positions, step.tables, hidden, graph)

    def _forward(self, step: _Step) -> Tensor:
        rows = Rows.at(step.row, step.positions, step.tables, num_single=len(step.row))
        hidden: Tensor = self._model(step.token_ids, rows, self._cache)
        return hidden


def _fill(target: Tensor, values: Sequence[int]) -> None:
    source = torch.tensor(values, dtype=target.dtype)
    target.copy_(source.pin_memory() if target.is_cuda else source, non_blocking=True)
