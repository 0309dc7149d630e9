"""Which operations and which product a device runs, and their gradients.

The forward of training is the forward of the engine: the same method of the same object is called, and only
when a gradient is wanted is it wrapped in an autograd function, whose backward calls the same object again.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from groschen import machine
from groschen.model import ordered
from groschen.model.build_kernels import library
from groschen.model.compiled import CompiledOperations
from groschen.model.kvcache import LayerCache, Rows
from groschen.model.portable import PortableOperations
from groschen.model.products import (
    ROWS_OF_A_CALL,
    CompiledProduct,
    OneDnnProduct,
    PairedProduct,
    PlainProduct,
    Product,
    TiledProduct,
    WidenedProduct,
)
from groschen.model.shapes import AttentionShape, Categorical


class Operations(Protocol):
    """What `compiled.py` and `portable.py` both offer."""

    @property
    def name(self) -> str:
        """The word that reports use."""

    @property
    def activation_dtype(self) -> torch.dtype:
        """The type of every x below."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        """x: [..., width]; weight: [width] of x's type. Returns x / rms(x) * (offset + weight)."""

    def rotate(
        self, x: Tensor, positions: Tensor, cosines: Tensor, sines: Tensor, direction: float
    ) -> Tensor:
        """x: [N, heads, E]; direction: 1 forward, -1 for the gradient. Returns [N, heads, E]."""

    def gate(self, x: Tensor, is_gelu: bool) -> Tensor:
        """x: [N, 2 F], gate first. Returns activate(gate) * up, [N, F]."""

    def gate_gradient(self, x: Tensor, grad: Tensor, is_gelu: bool) -> Tensor:
        """x: [N, 2 F], grad: [N, F]. Returns the gradient of x, [N, 2 F]."""

    def rms_norm_gradient(
        self, x: Tensor, weight: Tensor, grad: Tensor, eps: float, offset: float
    ) -> tuple[Tensor, Tensor]:
        """x, grad: [..., width]. Returns the gradients of x and, in float32, of the weight."""

    def score_gradient(
        self, logits: Tensor, inverse_temperatures: Tensor, tokens: Tensor, logprobs: Tensor, grads: Tensor
    ) -> Tensor:
        """logits: [R, V] float32; the others: [R]. Returns the gradient of the logits, given that of the
        logprobs; it may lie where the logits lay.
        """

    def squares(self, x: Tensor) -> Tensor:
        """x: [R, width] float32. Returns the sum of the squares of each row, [R] float64."""

    def store(self, keys: Tensor, values: Tensor, cache: LayerCache, slots: Tensor) -> None:
        """keys: [N, K, E], values: [N, K, Ev] into slots [N] of the cache."""

    def attend(self, queries: Tensor, cache: LayerCache, rows: Rows, shape: AttentionShape) -> Tensor:
        """queries: [N, H, E]. Returns [N, H, Ev]."""

    def attention_gradient(
        self, queries: Tensor, keys: Tensor, values: Tensor, grad: Tensor, rows: Rows, shape: AttentionShape
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of queries [N, H, E], keys [N, K, E] and values [N, K, Ev], given that of the output
        [N, H, Ev]. A row is its shared prompt, if it has one, and its own tokens: what lies only in the cache
        has no gradient.
        """

    def categorical(
        self, logits: Tensor, inverse_temperatures: Tensor, uniforms: Tensor | None, tokens: Tensor | None
    ) -> Categorical:
        """logits: [R, V] float32. Draws a token for each row, or scores the given ones."""


@dataclass(frozen=True)
class Kit:
    """The operations and the product of one device for one type of weights."""

    operations: Operations
    product: Product


def kit_for(device: torch.device, weight_dtype: torch.dtype) -> Kit:
    """Decided by the machine and the types alone, never by timing."""
    if device.type != "cpu":
        ordered_operations = PortableOperations(weight_dtype, is_ordered=True)
        return Kit(ordered_operations, PlainProduct(rows_at_once=ROWS_OF_A_CALL))
    if weight_dtype == torch.bfloat16 and machine.has_fast_bf16():
        kit = _kit_of_bf16_activations()
        if kit is not None:
            return kit
    built = library(is_bf16=False)
    if built.library is None:
        product = WidenedProduct() if machine.has_onednn() else PlainProduct(torch.float32)
        return Kit(PortableOperations(torch.float32), product)
    compiled = CompiledOperations(built.library, torch.float32)
    return Kit(compiled, CompiledProduct(compiled))


def _kit_of_bf16_activations() -> Kit | None:
    """For a CPU that multiplies bfloat16 in hardware; None where no exact product of it is at hand."""
    built = library(is_bf16=True)
    compiled = None if built.library is None else CompiledOperations(built.library, torch.bfloat16)
    if compiled is not None and compiled.has_tiles():
        return Kit(compiled, TiledProduct(compiled))
    if compiled is not None and compiled.has_product():
        return Kit(compiled, PairedProduct(compiled))
    if machine.has_matrix_unit():
        return None  # oneDNN 3.12 multiplies a row there in one of several ways, by the number of rows
    return Kit(compiled or PortableOperations(torch.bfloat16), OneDnnProduct())


def _apply(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    """`apply`, which torch leaves untyped."""
    out: Tensor = function.apply(*inputs)  # type: ignore[no-untyped-call]
    return out


def _wants_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


class Packed(NamedTuple):
    """What the products of a layer read, made from its parameters whenever these have changed."""

    weight: Tensor  # in the product's own layout
    bias: Tensor | None  # [outputs], of the activations' type


def multiply(
    product: Product, x: Tensor, weight: Tensor, bias: Tensor | None, packed: Packed, is_wide: bool = False
) -> Tensor:
    """x: [N, inputs], weight: [outputs, inputs]. Returns [N, outputs], float32 if `is_wide`, else of x's
    type.
    """
    if _wants_gradient(x, weight, bias):
        return _apply(_Multiply, x, weight, bias, product, packed, is_wide)
    return product.multiply(x, packed.weight, weight.shape[0], packed.bias, is_wide)


def rms_norm(
    operations: Operations, x: Tensor, weight: Tensor, scale: Tensor, eps: float, offset: float
) -> Tensor:
    """x: [..., width]; scale: the weight in x's type. Returns x / rms(x) * (offset + weight); RMSNorm, arXiv
    1910.07467.
    """
    if _wants_gradient(x, weight):
        return _apply(_RmsNorm, x, weight, scale, operations, eps, offset)
    return operations.rms_norm(x, scale, eps, offset)


def rotate(operations: Operations, x: Tensor, positions: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """x: [N, heads, E]. Returns the rotated heads."""
    if _wants_gradient(x):
        return _apply(_Rotate, x, operations, positions, cosines, sines)
    return operations.rotate(x, positions, cosines, sines, 1.0)


def multiply_gated(
    operations: Operations,
    product: Product,
    x: Tensor,
    is_gelu: bool,
    weight: Tensor,
    bias: Tensor | None,
    packed: Packed,
) -> Tensor:
    """x: [N, 2 F], weight: [outputs, F]. Returns the product of activate(gate) * up; GLU variants, arXiv
    2002.05202. A gradient makes what is multiplied once more instead of keeping it, a quarter of all that
    would be kept of a layer.
    """
    if _wants_gradient(x, weight, bias):
        return _apply(_MultiplyGated, x, weight, bias, operations, product, packed, is_gelu)
    return product.multiply(operations.gate(x, is_gelu), packed.weight, weight.shape[0], packed.bias)


def attend(
    operations: Operations,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    cache: LayerCache,
    rows: Rows,
    shape: AttentionShape,
) -> Tensor:
    """Store keys [N, K, E] and values [N, K, Ev], then attend with queries [N, H, E]. Returns [N, H, Ev].

    A gradient reaches only the keys and values given here: for training, the whole rows are.
    """
    if _wants_gradient(queries, keys, values):
        return _apply(_Attend, queries, keys, values, operations, cache, rows, shape)
    _store(operations, keys, values, cache, rows)
    return operations.attend(queries, cache, rows, shape)


def _store(operations: Operations, keys: Tensor, values: Tensor, cache: LayerCache, rows: Rows) -> None:
    operations.store(keys, values, cache, rows.slots)
    if rows.copies is not None:
        tokens, slots = rows.copies
        operations.store(keys[tokens], values[tokens], cache, slots)


def embed(token_ids: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """token_ids: [N], weight: [V, D]. Returns [N, D] of the activations' type."""
    if _wants_gradient(weight):
        return _apply(_Embed, token_ids, weight, dtype)
    return torch.nn.functional.embedding(token_ids, weight).to(dtype)


def select(x: Tensor, index: Tensor) -> Tensor:
    """x: [N, D], index: [M] int64. Returns [M, D]. Its gradient adds up in one order; that of torch's own
    indexing differs from run to run.
    """
    if _wants_gradient(x):
        return _apply(_Select, x, index)
    return x.index_select(0, index)


def _total(weight: Tensor) -> Tensor | None:
    """The float32 gradient that earlier micro-batches left in a parameter, to be added to in place; None if
    there is none. A head of 152 k words is 544 MB, which would be made, written, read and freed for each few
    hundred tokens.
    """
    total = weight.grad if weight.is_leaf else None
    return total if total is not None and total.dtype == torch.float32 and total.is_contiguous() else None


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token_ids: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(token_ids, weight)
        return torch.nn.functional.embedding(token_ids, weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        token_ids, weight = ctx.saved_tensors
        total = _total(weight)
        if total is not None:
            _add_rows_(total, token_ids, grad.float())
            return None, None, None
        total = torch.zeros(weight.shape, dtype=torch.float32, device=grad.device)
        _add_rows_(total, token_ids, grad.float())
        return None, total, None


class _Select(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = x.shape
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        total = grad.new_zeros(ctx.shape)
        _add_rows_(total, index, grad)
        return total, None


def _add_rows_(total: Tensor, index: Tensor, rows: Tensor) -> None:
    """total[index[n]] += rows[n], in the order of n on every device."""
    if total.is_cpu:
        total.index_add_(0, index, rows)
    else:
        ordered.add_rows_(total, index, rows)


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, product: Product, packed: Packed,
        is_wide: bool,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight)
        ctx.has_bias, ctx.product = bias is not None, product
        return product.multiply(x, packed.weight, weight.shape[0], packed.bias, is_wide)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        return *_product_gradients(ctx, x, weight, grad), None, None, None


class _MultiplyGated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, operations: Operations, product: Product,
        packed: Packed, is_gelu: bool,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight)
        ctx.has_bias, ctx.product = bias is not None, product
        ctx.operations, ctx.is_gelu = operations, is_gelu
        return product.multiply(operations.gate(x, is_gelu), packed.weight, weight.shape[0], packed.bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gated = ctx.operations.gate(x, ctx.is_gelu)
        grad_gated, *others = _product_gradients(ctx, gated, weight, grad)
        grad_x = None if grad_gated is None else ctx.operations.gate_gradient(x, grad_gated, ctx.is_gelu)
        return grad_x, *others, None, None, None, None


def _product_gradients(ctx: Any, x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Of x, weight and bias, each None where it is not wanted or has been added in place already."""
    if isinstance(ctx.product, PairedProduct | TiledProduct):
        grad = grad.to(x.dtype)  # once for both products
    grad_x = ctx.product.input_gradient(grad, weight) if ctx.needs_input_grad[0] else None
    # Gradients of parameters are float32; autograd rounds them where a parameter's grad_dtype is narrower.
    grad_weight: Tensor | None = None
    if ctx.needs_input_grad[1]:
        total = _total(weight)
        found = ctx.product.weight_gradient(grad, x, total)
        grad_weight = found if total is None else None
    grad_bias = grad.float().sum(0) if ctx.has_bias and ctx.needs_input_grad[2] else None
    return grad_x, grad_weight, grad_bias


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, _weight: Tensor, scale: Tensor, operations: Operations, eps: float, offset: float
    ) -> Tensor:
        ctx.save_for_backward(x)
        # An attribute: the engine may have made it in inference mode, where nothing can be saved.
        ctx.scale, ctx.operations, ctx.eps, ctx.offset = scale, operations, eps, offset
        return operations.rms_norm(x, scale, eps, offset)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        grads = ctx.operations.rms_norm_gradient(x, ctx.scale, grad, ctx.eps, ctx.offset)
        return *grads, None, None, None, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, operations: Operations, positions: Tensor, cosines: Tensor, sines: Tensor
    ) -> Tensor:
        ctx.operations = operations
        ctx.save_for_backward(positions, cosines, sines)
        return operations.rotate(x, positions, cosines, sines, 1.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.operations.rotate(grad.contiguous(), *ctx.saved_tensors, -1.0), None, None, None, None


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        operations: Operations,
        cache: LayerCache,
        rows: Rows,
        shape: AttentionShape,
    ) -> Tensor:
        # The values are a view of all that one product made: kept as they are, they would keep that too.
        ctx.save_for_backward(queries, keys, values.contiguous())
        ctx.operations, ctx.rows, ctx.shape = operations, rows, shape
        _store(operations, keys.detach(), values.detach(), cache, rows)
        return operations.attend(queries, cache, rows, shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values = ctx.saved_tensors
        gradients = ctx.operations.attention_gradient(queries, keys, values, grad, ctx.rows, ctx.shape)
        return *gradients, None, None, None, None


__all__ = [
    "Kit", "Operations", "Packed", "attend", "embed", "kit_for", "multiply", "multiply_gated", "rms_norm",
    "rotate", "select",
]  # fmt: skip
