"""Attention: against float64, in company and alone, in a cache whose other places hold NaN."""

import pytest
import torch
from tests.model.test_exactness import compiled_kit
from torch import Tensor

from groschen.model.kvcache import KEYS_PER_BLOCK, LayerCache, Rows
from groschen.model.operations import Operations
from groschen.model.portable import PortableOperations
from groschen.model.shapes import AttentionShape

OPERATIONS = {
    "compiled": lambda: compiled_kit(is_bf16=False).operations,
    "compiled with bf16 activations": lambda: compiled_kit(is_bf16=True).operations,
    "portable": lambda: PortableOperations(torch.float32),
    "ordered": lambda: PortableOperations(torch.float32, is_ordered=True),
    "ordered with bf16 activations": lambda: PortableOperations(torch.bfloat16, is_ordered=True),
}
KV_HEADS = 2


class Case:
    """One row of `length` positions, its cache filled with NaN before they were stored."""

    def __init__(self, operations: Operations, length: int, width: int, group: int) -> None:
        self.operations, self.length, self.group = operations, length, group
        generator = torch.Generator().manual_seed(length)
        dtype = operations.activation_dtype
        made = [torch.randn(length, heads, width, generator=generator).to(dtype) for heads in
                (KV_HEADS * group, KV_HEADS, KV_HEADS)]  # fmt: skip
        self.queries, self.keys, self.values = made
        num_blocks = -(-length // KEYS_PER_BLOCK)
        self.tables = torch.arange(num_blocks, dtype=torch.int32).flip(0)[None]
        unused = torch.full((num_blocks, KV_HEADS, width * KEYS_PER_BLOCK), torch.nan).to(dtype)
        self.cache = LayerCache(
            unused.view(num_blocks, KV_HEADS, width, KEYS_PER_BLOCK),
            unused.clone().view(num_blocks, KV_HEADS, KEYS_PER_BLOCK, width),
        )

    def attend(self, first: int, last: int, shape: AttentionShape) -> Tensor:
        """The queries from `first` to `last`, stored and asked in one call, as a chunk of a prefill is."""
        rows = Rows.at(torch.zeros(last - first, dtype=torch.int32), torch.arange(first, last), self.tables)
        own = slice(first, last)
        self.operations.store(self.keys[own], self.values[own], self.cache, rows.slots)
        return self.operations.attend(self.queries[own].contiguous(), self.cache, rows, shape)

    def right(self, shape: AttentionShape) -> Tensor:
        """All of them in float64."""
        q = self.queries.double()
        k, v = (x.double().repeat_interleave(self.group, dim=1) for x in (self.keys, self.values))
        scores = torch.einsum("the,she->hts", q, k) * shape.scale
        place = torch.arange(self.length)
        hidden = place > place[:, None]
        if shape.window:
            hidden |= place <= place[:, None] - shape.window
        return torch.einsum("hts,she->the", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("window", [None, 21])
@pytest.mark.parametrize(("width", "group"), [(8, 1), (20, 7), (64, 7), (72, 3), (64, 33), (96, 4), (128, 2)])
def test_each_query_has_its_value_and_its_bits_whatever_else_is_asked(
    name: str, window: int | None, width: int, group: int
) -> None:
    shape = AttentionShape(width**-0.5, window)
    for length in (1, 2, 15, 16, 17, 47):
        whole = Case(OPERATIONS[name](), length, width, group)
        found = whole.attend(0, length, shape)
        wrong_by = (found.double() - whole.right(shape)).abs().max()
        assert wrong_by < (2e-2 if found.dtype == torch.bfloat16 else 1e-5), length
        alone = Case(OPERATIONS[name](), length, width, group)
        for position in range(length):
            assert torch.equal(alone.attend(position, position + 1, shape)[0], found[position]), position
