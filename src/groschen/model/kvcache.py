"""Where keys and values lie: blocks of 16 positions that rows share and borrow.

One layout serves training, prefill and decode, on CPU and GPU. Knows no scheduling: which block belongs to
whom is decided in `engine/blocks.py` (for a training batch, by `Rows.of_sequences`). Paged caches: vLLM,
arXiv 2309.06180.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from groschen import machine
from groschen.model.config import ModelConfig

KEYS_PER_BLOCK = 16  # kernels/vectors.h has the same number


class LayerCache(NamedTuple):
    """Keys [blocks, K, E, 16] and values [blocks, K, 16, Ev] of one layer."""

    keys: Tensor
    values: Tensor


class KeyValueCache:
    """Keys and values of all layers in `num_blocks` blocks of 16 positions.

    On a CPU the memory is mapped and becomes resident only where it is written. On other devices a position's
    numbers lie together, [blocks, 16, K, E], and the layers are views of that: a store that has to be
    deterministic sorts whole rows there, where torch would copy the cache to sort single numbers
    (`portable.store`).
    """

    def __init__(
        self, config: ModelConfig, num_blocks: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.num_blocks = num_blocks
        if device.type != "cpu":
            inner = (num_blocks, KEYS_PER_BLOCK, config.num_kv_heads, config.head_width)
            self._keys, self._values = (
                torch.zeros(config.num_layers, *inner, dtype=dtype, device=device) for _ in range(2)
            )
            self._layers = [
                LayerCache(keys.permute(0, 2, 3, 1), values.permute(0, 2, 1, 3))
                for keys, values in zip(self._keys, self._values, strict=True)
            ]
            return
        shape = (config.num_layers, num_blocks, config.num_kv_heads, KEYS_PER_BLOCK * config.head_width)
        keys, values = (_zeros(shape, dtype) for _ in range(2))
        outer = (config.num_layers, num_blocks, config.num_kv_heads)
        self._keys = keys.view(*outer, config.head_width, KEYS_PER_BLOCK)
        self._values = values.view(*outer, KEYS_PER_BLOCK, config.head_width)
        self._layers = [LayerCache(self._keys[i], self._values[i]) for i in range(config.num_layers)]

    def layer(self, index: int) -> LayerCache:
        """The blocks of one layer, as views."""
        return self._layers[index]

    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole blocks in every layer.

        A sequence that leaves a shared, half-filled block needs its own.
        """
        if not sources:
            return
        for whole in (self._keys, self._values):
            into, read = (torch.tensor(list(blocks)).to(whole.device) for blocks in (targets, sources))
            # One by one: to write at the second dimension deterministically, torch would copy the whole
            # cache.
            for layer in whole:
                layer[into] = layer[read]

    @staticmethod
    def bytes_per_block(config: ModelConfig, dtype: torch.dtype) -> int:
        """Bytes of one block over all layers, keys and values."""
        return (
            2 * config.num_layers * config.num_kv_heads * config.head_width * KEYS_PER_BLOCK * dtype.itemsize
        )


class Run(NamedTuple):
    """Tokens of one row that follow each other in a flat batch: first to last, from a position on."""

    first: int
    last: int
    row: int
    position: int


class Span(NamedTuple):
    """One row of a training batch: its own tokens, first to last, and its shared prompt, start to end."""

    first: int
    last: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Which sequence each of N flat tokens belongs to, and where its keys and values go.

    positions, slots: [N] int64; row, visible: [N] int32; tables: [R, blocks] int32, the block of each 16
    positions of a row. slots[n] = 16 * block + place. visible[n] = positions[n] + 1: a token sees itself and
    everything before it.
    """

    positions: Tensor
    slots: Tensor
    row: Tensor
    visible: Tensor
    tables: Tensor
    num_single: int = 0  # so many tokens at the front are alone in their rows (decode)
    # Tokens whose keys and values go to further slots too: the last, half-filled block of a prompt that
    # rows share.
    copies: tuple[Tensor, Tensor] | None = None  # [C] int64 tokens, [C] int64 slots
    prefixes: tuple[
        tuple[int, int], ...
    ] = ()  # for each row, first and last + 1 of the tokens of its shared prompt
    told_runs: tuple[Run, ...] | None = None  # what `runs` returns, where the host knows it anyway

    def runs(self) -> tuple[Run, ...]:
        """The stretches of tokens of one row, without the single ones. Where nobody told them they are read
        from the tensors, for which the host waits on a GPU.
        """
        if self.told_runs is not None:
            return self.told_runs
        if self.num_single == len(self.row):
            return ()
        row, positions = self.row.tolist(), self.positions.tolist()
        return runs_of(row, positions, self.num_single)

    def spans(self) -> list[Span]:
        """The rows of a training batch, which hold their whole contexts."""
        found = []
        for run in self.runs():
            start, end = self.prefixes[run.row] if self.prefixes else (0, 0)
            assert run.position == end - start, "a training row must hold its whole context"
            found.append(Span(run.first, run.last, start, end))
        return found

    @classmethod
    def at(
        cls,
        row: Tensor,
        positions: Tensor,
        tables: Tensor,
        *,
        num_single: int = 0,
        runs: tuple[Run, ...] | None = None,
    ) -> "Rows":
        """Rows for tokens at the given positions. row: [N] int32, positions: [N] int64, tables: [R, blocks]
        int32; runs: `runs_of` the first two, where they are known without reading them.
        """
        blocks = tables[row.long(), positions // KEYS_PER_BLOCK].long()
        slots = blocks * KEYS_PER_BLOCK + positions % KEYS_PER_BLOCK
        return cls(positions, slots, row, (positions + 1).int(), tables, num_single, told_runs=runs)

    @classmethod
    def of_sequences(cls, lengths: Sequence[int], device: torch.device) -> "Rows":
        """Rows for whole sequences laid end to end, each with blocks of its own: a training batch."""
        blocks = [-(-length // KEYS_PER_BLOCK) for length in lengths]
        firsts = torch.tensor([0, *blocks]).cumsum(0)
        tables = torch.zeros(len(lengths), max(blocks), dtype=torch.int32)
        for index, count in enumerate(blocks):
            tables[index, :count] = torch.arange(count, dtype=torch.int32) + int(firsts[index])
        row = torch.repeat_interleave(
            torch.arange(len(lengths), dtype=torch.int32), torch.tensor(list(lengths))
        )
        positions = torch.cat([torch.arange(length) for length in lengths])
        runs = runs_of(row.tolist(), positions.tolist())
        return cls.at(row.to(device), positions.to(device), tables.to(device), runs=runs)

    @classmethod
    def of_groups(cls, groups: Sequence[tuple[int, Sequence[int]]], device: torch.device) -> "Rows":
        """Rows for groups laid end to end: the tokens of a prompt once, then what follows it in each
        completion.

        groups: (length of the prompt, lengths of its completions, none of them 0). A row's context is the
        prompt's tokens and its own.
        """
        layout = _GroupLayout()
        for prompt, completions in groups:
            layout.add(prompt, completions)
        return layout.rows(cls, device)


def runs_of(row: Sequence[int], positions: Sequence[int], num_single: int = 0) -> tuple[Run, ...]:
    """The runs of tokens whose rows and positions these are, without the first `num_single` tokens."""
    starts = [i for i in range(num_single, len(row)) if i == num_single or row[i] != row[i - 1]]
    ends = [*starts[1:], len(row)] if starts else []
    return tuple(
        Run(first, last, row[first], positions[first]) for first, last in zip(starts, ends, strict=True)
    )


class _GroupLayout:
    """Blocks, positions and copies of groups, filled one group at a time."""

    def __init__(self) -> None:
        self.tables: list[list[int]] = []
        self.row: list[int] = []
        self.positions: list[int] = []
        self.prefixes: list[tuple[int, int]] = []
        self.copies: list[tuple[int, int]] = []
        self.num_blocks = 0

    def add(self, prompt: int, completions: Sequence[int]) -> None:
        first = len(self.row)
        shared = self._open([], 0, prompt, (0, 0))
        whole, tail = divmod(prompt, KEYS_PER_BLOCK)
        for length in completions:
            table = self._open(shared[:whole], prompt, length, (first, first + prompt))
            self.copies += [
                (first + prompt - tail + i, table[whole] * KEYS_PER_BLOCK + i) for i in range(tail)
            ]

    def _open(self, blocks: list[int], start: int, length: int, prefix: tuple[int, int]) -> list[int]:
        """A row of `length` tokens from position `start` on, behind the given blocks."""
        missing = -(-(start + length) // KEYS_PER_BLOCK) - len(blocks)
        table = blocks + list(range(self.num_blocks, self.num_blocks + missing))
        self.num_blocks += missing
        self.row += [len(self.tables)] * length
        self.positions += range(start, start + length)
        self.tables.append(table)
        self.prefixes.append(prefix)
        return table

    def rows(self, kind: type[Rows], device: torch.device) -> Rows:
        widest = max(len(table) for table in self.tables)
        tables = torch.tensor(
            [table + [0] * (widest - len(table)) for table in self.tables], dtype=torch.int32
        )
        row, positions = torch.tensor(self.row, dtype=torch.int32), torch.tensor(self.positions)
        runs = runs_of(self.row, self.positions)
        rows = kind.at(row.to(device), positions.to(device), tables.to(device), runs=runs)
        copies = None
        if self.copies:
            tokens, slots = torch.tensor(self.copies).t().contiguous().to(device)
            copies = (tokens, slots)
        return replace(rows, copies=copies, prefixes=tuple(self.prefixes))


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    count = math.prod(shape)
    return torch.frombuffer(machine.zeroed_memory(count * dtype.itemsize), dtype=dtype, count=count).view(
        shape
    )
