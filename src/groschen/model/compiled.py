"""The operations of a model on a CPU, run by the C kernels of `kernels/`.

Each method takes and returns torch tensors and checks nothing but what would read beyond a tensor's end: the
callers own shapes. Leaves out which of them is differentiated how, and the choice between this and
`portable.py` (`operations.py`).
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from groschen import machine
from groschen.model.kvcache import LayerCache, Rows
from groschen.model.shapes import AttentionShape, Categorical

_POINTER, _LONG, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
_SIGNATURES: dict[str, Sequence[type]] = {
    "pack_weight": [_POINTER] * 2 + [_LONG] * 2 + [_INT] * 2,
    "product": [_POINTER] * 4 + [_LONG] * 3 + [_INT] * 3,
    "store_keys_values": [_POINTER] * 5 + [_LONG] * 4,
    "attend": [_POINTER] * 7 + [_LONG] * 7 + [_FLOAT] * 2 + [_INT],
    "rms_norm": [_POINTER] * 3 + [_LONG] * 2 + [_FLOAT] * 2 + [_INT],
    "rotate": [_POINTER, _LONG] + [_POINTER] * 4 + [_LONG] * 3 + [_FLOAT],
    "gate": [_POINTER] * 2 + [_LONG] * 2 + [_INT] * 2,
    "categorical": [_POINTER] + [_LONG] * 3 + [_POINTER] * 5 + [_INT] * 2,
    "gate_gradient": [_POINTER] * 3 + [_LONG] * 2 + [_INT] * 2,
    "rms_norm_gradient": [_POINTER] * 6 + [_LONG] * 2 + [_FLOAT] * 2 + [_INT],
    "score_gradient": [_POINTER] + [_LONG] * 3 + [_POINTER] * 4 + [_INT],
    "attention_gradient": [_POINTER] * 10 + [_LONG] * 6 + [_FLOAT] * 2 + [_INT],
    "squares": [_POINTER] * 2 + [_LONG] * 2 + [_INT],
}
_MAY_FAIL = {"attend", "attention_gradient"}  # they ask for memory and return whether there was none


def roomy(size: int, dtype: torch.dtype) -> Tensor:
    """[size] in huge pages where the kernel gives them."""
    return torch.frombuffer(machine.zeroed_memory(size * dtype.itemsize), dtype=dtype, count=size)


def _even(x: Tensor) -> Tensor:
    """x: [rows, width]. The same with a column of zeros where the width is odd: bfloat16 is multiplied in
    pairs.
    """
    return F.pad(x, (0, 1)) if x.shape[1] % 2 else x


def _rows_of(x: Tensor) -> int:
    return x.numel() // x.shape[-1]


@dataclass(frozen=True)
class CompiledOperations:
    """The kernels for one type of activations. `threads` is read from torch at each call."""

    library: ctypes.CDLL
    activation_dtype: torch.dtype
    name: str = "compiled"

    def __post_init__(self) -> None:
        for function, arguments in _SIGNATURES.items():
            getattr(self.library, function).argtypes = arguments
            getattr(self.library, function).restype = _INT if function in _MAY_FAIL else None
        if self.activation_dtype == torch.bfloat16:
            self.library.weight_gradient.argtypes = [_POINTER] * 3 + [_LONG] * 3 + [_INT, _POINTER, _INT]
            self.library.weight_gradient_scratch.argtypes = [_LONG] * 3
            self.library.weight_gradient_scratch.restype = _LONG

    def _given(self, x: Tensor) -> Tensor:
        assert x.dtype == self.activation_dtype and x.device.type == "cpu", (x.dtype, x.device)
        return x.contiguous()

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        """x: [..., width]; weight: [width] of x's type. Returns x / rms(x) * (offset + weight)."""
        x = self._given(x)
        y = torch.empty_like(x)
        self.library.rms_norm(
            x.data_ptr(),
            weight.data_ptr(),
            y.data_ptr(),
            _rows_of(x),
            x.shape[-1],
            eps,
            offset,
            torch.get_num_threads(),
        )
        return y

    def rotate(
        self, x: Tensor, positions: Tensor, cosines: Tensor, sines: Tensor, direction: float
    ) -> Tensor:
        """x: [N, heads, E], dense within a token. Returns the rotated heads, [N, heads, E] dense."""
        if x.stride()[1:] != (x.shape[2], 1):
            x = x.contiguous()
        y = torch.empty(x.shape, dtype=x.dtype)
        self.library.rotate(
            x.data_ptr(),
            x.stride(0),
            y.data_ptr(),
            cosines.data_ptr(),
            sines.data_ptr(),
            positions.data_ptr(),
            *x.shape,
            direction,
        )
        return y

    def gate(self, x: Tensor, is_gelu: bool) -> Tensor:
        """x: [N, 2 F], gate first. Returns activate(gate) * up, [N, F]."""
        x = self._given(x)
        width = x.shape[-1] // 2
        y = torch.empty((*x.shape[:-1], width), dtype=x.dtype)
        self.library.gate(x.data_ptr(), y.data_ptr(), _rows_of(x), width, is_gelu, torch.get_num_threads())
        return y

    def gate_gradient(self, x: Tensor, grad: Tensor, is_gelu: bool) -> Tensor:
        """x: [N, 2 F], grad: [N, F]. Returns the gradient of x, [N, 2 F]."""
        x, grad = self._given(x), self._given(grad)
        grad_x = torch.empty_like(x)
        self.library.gate_gradient(
            x.data_ptr(), grad.data_ptr(), grad_x.data_ptr(), _rows_of(grad), grad.shape[-1], is_gelu,
            torch.get_num_threads(),
        )  # fmt: skip
        return grad_x

    def rms_norm_gradient(
        self, x: Tensor, weight: Tensor, grad: Tensor, eps: float, offset: float
    ) -> tuple[Tensor, Tensor]:
        """x, grad: [..., width]; weight: [width] of x's type. Returns the gradients of x and, in float32, of
        the weight.
        """
        x, grad = self._given(x), self._given(grad)
        grad_x, grad_weight = torch.empty_like(x), torch.empty(x.shape[-1])
        inverses = torch.empty(_rows_of(x))
        self.library.rms_norm_gradient(
            x.data_ptr(), weight.data_ptr(), grad.data_ptr(), grad_x.data_ptr(), inverses.data_ptr(),
            grad_weight.data_ptr(), _rows_of(x), x.shape[-1], eps, offset, torch.get_num_threads(),
        )  # fmt: skip
        return grad_x, grad_weight

    def score_gradient(
        self, logits: Tensor, inverse_temperatures: Tensor, tokens: Tensor, logprobs: Tensor, grads: Tensor
    ) -> Tensor:
        """logits: [R, V] float32; the others: [R]. Returns the gradient of the logits, given that of the
        logprobs, in their place: at 450 tokens of 152 k words, another 277 MB would be read and written.
        """
        assert logits.dtype == logprobs.dtype == inverse_temperatures.dtype == torch.float32
        assert logits.stride(1) == 1 and tokens.dtype == torch.int64
        grads = grads.float().contiguous()
        self.library.score_gradient(
            logits.data_ptr(), logits.stride(0), *logits.shape, inverse_temperatures.data_ptr(),
            tokens.contiguous().data_ptr(), logprobs.data_ptr(), grads.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return logits

    def squares(self, x: Tensor) -> Tensor:
        """x: [R, width] float32. Returns the sum of the squares of each row, [R] float64."""
        assert x.dtype == torch.float32 and x.is_contiguous()
        sums = torch.empty(len(x), dtype=torch.float64)
        self.library.squares(x.data_ptr(), sums.data_ptr(), *x.shape, torch.get_num_threads())
        return sums

    def store(self, keys: Tensor, values: Tensor, cache: LayerCache, slots: Tensor) -> None:
        """keys: [N, K, E], values: [N, K, Ev] into slots [N] of the cache."""
        keys, values = self._given(keys), self._given(values)
        self.library.store_keys_values(
            keys.data_ptr(),
            values.data_ptr(),
            cache.keys.data_ptr(),
            cache.values.data_ptr(),
            slots.data_ptr(),
            *keys.shape,
            values.shape[-1],
        )

    def attend(self, queries: Tensor, cache: LayerCache, rows: Rows, shape: AttentionShape) -> Tensor:
        """queries: [N, H, E]. Returns [N, H, Ev]."""
        queries = self._given(queries)
        num_tokens, num_heads, key_width = queries.shape
        kv_heads, value_width = cache.values.shape[1], cache.values.shape[3]
        out = torch.empty((num_tokens, num_heads, value_width), dtype=queries.dtype)
        failed = self.library.attend(
            queries.data_ptr(), out.data_ptr(), cache.keys.data_ptr(), cache.values.data_ptr(),
            rows.tables.data_ptr(), rows.row.data_ptr(), rows.visible.data_ptr(),
            num_tokens, num_heads, kv_heads, key_width, value_width, rows.tables.shape[1],
            shape.window or 0, shape.scale, shape.softcap or 0.0, torch.get_num_threads(),
        )  # fmt: skip
        if failed:
            raise MemoryError("no memory for the attention scores of one query block")
        return out

    def attention_gradient(
        self, queries: Tensor, keys: Tensor, values: Tensor, grad: Tensor, rows: Rows, shape: AttentionShape
    ) -> tuple[Tensor, Tensor, Tensor]:
        """queries: [N, H, E], keys: [N, K, E], values: [N, K, Ev], grad of the output: [N, H, Ev]. Returns
        the gradients of the first three. See kernels/attention_gradient.c.
        """
        given = [self._given(each) for each in (queries, keys, values, grad.to(self.activation_dtype))]
        grads = [torch.zeros(each.shape) for each in given[:3]]
        spans = rows.spans()
        lengths = [span.end - span.start for span in spans]
        places = [0, *accumulate(lengths)]
        owed = [torch.empty((places[-1], *each.shape[1:])) for each in given[1:3]]
        table = torch.tensor([[*span, place] for span, place in zip(spans, places, strict=False)])
        failed = self.library.attention_gradient(
            *(each.data_ptr() for each in (*given, *grads, *owed, table)), len(spans),
            queries.shape[1], keys.shape[1], keys.shape[2], values.shape[2],
            shape.window or 0, shape.scale, shape.softcap or 0.0, torch.get_num_threads(),
        )  # fmt: skip
        if failed:
            raise MemoryError("no memory for the attention scores of one query block")
        for span, place, length in zip(spans, places, lengths, strict=False):
            for total, piece in zip(grads[1:], owed, strict=True):
                total[span.start : span.end] += piece[place : place + length]
        return grads[0].to(queries.dtype), grads[1].to(keys.dtype), grads[2].to(values.dtype)

    def categorical(
        self, logits: Tensor, inverse_temperatures: Tensor, uniforms: Tensor | None, tokens: Tensor | None
    ) -> Categorical:
        """logits: [R, V] float32. Draws a token for each row, or scores the given ones. See
        kernels/categorical.c.
        """
        assert logits.dtype == inverse_temperatures.dtype == torch.float32 and logits.stride(1) == 1
        assert inverse_temperatures.is_contiguous()
        assert tokens is None or tokens.dtype == torch.int64
        assert uniforms is None or (uniforms.dtype == torch.float64 and uniforms.is_contiguous())
        num_rows, vocabulary = logits.shape
        chosen = torch.empty(num_rows, dtype=torch.int64) if tokens is None else tokens.contiguous()
        logprobs, entropies = torch.empty(num_rows), torch.empty(num_rows)
        self.library.categorical(
            logits.data_ptr(), logits.stride(0), num_rows, vocabulary, inverse_temperatures.data_ptr(),
            0 if uniforms is None else uniforms.data_ptr(), chosen.data_ptr(), logprobs.data_ptr(),
            entropies.data_ptr(), tokens is not None, torch.get_num_threads(),
        )  # fmt: skip
        return Categorical(chosen, logprobs, entropies)

    def has_product(self) -> bool:
        """Whether `pack`, `product` and, with bfloat16 activations, `weight_gradient` can be called: bfloat16
        products need a processor and a compiler that know them.
        """
        return bool(self.library.has_product())

    def has_tiles(self) -> bool:
        """Whether the processor has a matrix unit, the compiler knows it and the system grants it."""
        return self.activation_dtype == torch.bfloat16 and bool(self.library.has_tiles())

    def pack(self, weight: Tensor, into: Tensor | None = None) -> Tensor:
        """weight: [outputs, inputs], bfloat16, or float32 where the activations are. Returns the layout that
        `product` reads, of the same type.
        """
        if self.activation_dtype == torch.bfloat16:
            assert weight.dtype == torch.bfloat16, weight.dtype
            weight = _even(weight)
        outputs, inputs = weight.shape
        panel = 2 * self.lanes()
        size = (outputs + panel - 1) // panel * panel * inputs
        packed = roomy(size, weight.dtype) if into is None else into
        assert weight.is_contiguous() and packed.numel() == size and packed.dtype == weight.dtype
        self.library.pack_weight(
            weight.data_ptr(), packed.data_ptr(), *weight.shape, weight.dtype == torch.bfloat16,
            torch.get_num_threads(),
        )  # fmt: skip
        return packed

    def product(
        self, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, is_wide: bool = False
    ) -> Tensor:
        """x: [N, inputs]; bias: [outputs] of x's type. Returns x W^T + b, [N, outputs], float32 if `is_wide`,
        else of x's type.
        """
        x = self._given(x)
        if self.activation_dtype == torch.bfloat16:
            x = _even(x)
        y = torch.empty((x.shape[0], outputs), dtype=torch.float32 if is_wide else x.dtype)
        self.library.product(
            x.data_ptr(), packed.data_ptr(), 0 if bias is None else bias.data_ptr(), y.data_ptr(),
            x.shape[0], outputs, x.shape[1], packed.dtype == torch.bfloat16, is_wide, torch.get_num_threads(),
        )  # fmt: skip
        return y

    def weight_gradient(self, grad: Tensor, x: Tensor, total: Tensor | None = None) -> Tensor:
        """grad: [N, outputs], x: [N, inputs], both bfloat16. Returns grad^T x, [outputs, inputs] float32,
        added to `total` in place where that is given.
        """
        assert self.activation_dtype == torch.bfloat16 and len(grad) == len(x)
        grad, x = self._given(grad), self._given(x)
        sizes = (len(x), grad.shape[1], x.shape[1])
        found = torch.empty(sizes[1:]) if total is None else total
        assert found.shape == sizes[1:] and found.dtype == torch.float32 and found.is_contiguous()
        scratch = torch.empty(self.library.weight_gradient_scratch(*sizes), dtype=torch.int32)
        self.library.weight_gradient(
            grad.data_ptr(), x.data_ptr(), found.data_ptr(), *sizes, total is not None, scratch.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return found

    def lanes(self) -> int:
        """Numbers in one vector register, which is part of what the bits are."""
        return int(self.library.num_lanes())
