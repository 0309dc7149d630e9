"""The gradient of attention, compiled and in torch, against float64 and autograd, with shared prompts."""

from collections.abc import Callable

import pytest
import torch
from tests.model.test_exactness import compiled_kit
from torch import Tensor

from groschen.model.kvcache import Rows
from groschen.model.operations import Operations
from groschen.model.portable import PortableOperations
from groschen.model.shapes import AttentionShape

CPU = torch.device("cpu")
OPERATIONS = {
    "compiled": lambda: compiled_kit(is_bf16=False).operations,
    "compiled with bf16 activations": lambda: compiled_kit(is_bf16=True).operations,
    "portable": lambda: PortableOperations(torch.float32),
}
GROUPS = [(19, [5, 33, 1]), (1, [64]), (40, [2, 17])]  # length of a prompt, lengths of its completions
NUM_TOKENS = sum(prompt + sum(completions) for prompt, completions in GROUPS)


def attended(queries: Tensor, keys: Tensor, values: Tensor, rows: Rows, shape: AttentionShape) -> Tensor:
    """The definition: each token against its prompt's tokens and those of its own row up to itself."""
    group, outputs = queries.shape[1] // keys.shape[1], []
    for first, last, start, end in rows.spans():
        seen = [*range(start, end), *range(first, last)]
        k, v = (each[seen].repeat_interleave(group, 1) for each in (keys, values))
        scores = torch.einsum("the,she->hts", queries[first:last], k) * shape.scale
        if shape.softcap:
            scores = shape.softcap * torch.tanh(scores / shape.softcap)
        distance = torch.arange(end - start, len(seen))[:, None] - torch.arange(len(seen))
        hidden = (distance < 0) | (distance >= (shape.window or len(seen)))
        outputs.append(torch.einsum("hts,she->the", scores.masked_fill(hidden, -torch.inf).softmax(-1), v))
    return torch.cat(outputs)


def drawn(operations: Operations, heads: int, kv_heads: int, width: int, value_width: int) -> list[Tensor]:
    """Queries, keys, values and the gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((heads, width), (kv_heads, width), (kv_heads, value_width), (heads, value_width))
    return [
        torch.randn(NUM_TOKENS, *size, generator=generator).to(operations.activation_dtype) for size in sizes
    ]


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (21, None), (None, 4.0), (7, 4.0)])
@pytest.mark.parametrize("sizes", [(14, 2, 64, 64), (4, 4, 24, 40), (3, 1, 17, 9), (70, 1, 16, 16)], ids=str)
def test_it_is_that_of_the_definition(
    name: str, window: int | None, softcap: float | None, sizes: tuple[int, int, int, int]
) -> None:
    operations = OPERATIONS[name]()
    queries, keys, values, grad = drawn(operations, *sizes)
    shape = AttentionShape(scale=sizes[2] ** -0.5, window=window, softcap=softcap)
    rows = Rows.of_groups(GROUPS, CPU)
    wide = [each.double().requires_grad_() for each in (queries, keys, values)]
    right = torch.autograd.grad(attended(*wide, rows, shape), wide, grad.double())
    found = operations.attention_gradient(queries, keys, values, grad, rows, shape)
    tolerance = 4e-6 if operations.activation_dtype == torch.float32 else 2**-7
    for one, other in zip(found, right, strict=True):
        assert one.dtype == operations.activation_dtype
        assert float((one.double() - other).abs().max() / other.abs().max()) < tolerance


@pytest.mark.parametrize("make", [OPERATIONS["compiled"], OPERATIONS["compiled with bf16 activations"]])
def test_threads_change_no_bit(make: Callable[[], Operations]) -> None:
    operations = make()
    queries, keys, values, grad = drawn(operations, 14, 2, 64, 64)
    shape, rows = AttentionShape(scale=0.125), Rows.of_groups(GROUPS, CPU)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(operations.attention_gradient(queries, keys, values, grad, rows, shape))
    finally:
        torch.set_num_threads(before)
    for several in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], several, strict=True))
