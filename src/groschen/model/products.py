"""Seven ways to multiply rows by a weight, each with the same bits for a row whatever the number of rows.

Which one runs is decided by the machine and the type of the weights alone, never by timing, so that a run can
be repeated:

- compiled: our kernel, float32 activations, weights stay bfloat16 (or float32) in memory. Exact by
  definition.
- paired: our kernel with the processor's own bfloat16 products (AVX512_BF16), bfloat16 activations and
  weights, sums in float32. Exact by definition.
- tiled: our kernel on the matrix unit of Intel processors (AMX), bfloat16 activations and weights, sums in
  float32. Exact by definition.
- int8, int4: our kernel on rounded weights, where the user asks for them, for serving. Exact by definition.
- onednn: bfloat16 on other CPUs that multiply it in hardware, or without a C compiler, but not on a matrix
  unit, where a row's bits depend on the number of rows. Weights packed once; rows identical from two rows up
  as measured.
- widened: float32 activations, weights widened and packed once by oneDNN: other CPUs without a C compiler.
  Exact as measured.
- plain: torch's own product, on GPUs and elsewhere. On a GPU every call has the same number of rows, so that
  cuBLAS, which chooses a kernel by the shape, has nothing to choose by. Rows identical as measured.
"""

import ctypes
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from groschen import machine
from groschen.errors import Unsupported
from groschen.model.compiled import CompiledOperations, roomy

_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int

# Of every product on a GPU: cuBLAS takes another kernel, with another order of sums, by the number of rows. A
# call of 128 still takes the time of reading the weight (two operations a byte and row, and GPUs do 150 to
# 250 a byte).
ROWS_OF_A_CALL = 128
WIDENED_AT_ONCE = 16_777_216  # numbers of a weight: 64 MiB of float32


class Product(Protocol):
    """x W^T + b for weights that were packed once."""

    @property
    def name(self) -> str:
        """The word that reports use."""

    def pack(self, weight: Tensor, into: Tensor | None = None) -> Tensor:
        """weight: [outputs, inputs]. Returns what `multiply` reads; refills `into` where the kind can."""

    def multiply(
        self, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, is_wide: bool = False
    ) -> Tensor:
        """x: [N, inputs]; bias: [outputs] of x's type. Returns [N, outputs], float32 if `is_wide`, else of
        x's type.
        """

    def input_gradient(self, grad: Tensor, weight: Tensor) -> Tensor:
        """grad: [N, outputs], weight: [outputs, inputs]. Returns grad W, [N, inputs] of grad's type."""

    def weight_gradient(self, grad: Tensor, x: Tensor, total: Tensor | None = None) -> Tensor:
        """grad: [N, outputs], x: [N, inputs]. Returns grad^T x, [outputs, inputs] float32, added to `total`
        in place where that is given.
        """


class TorchGradients:
    """The two products of a gradient by torch: hundreds of rows, and no row of them is ever compared with a
    row of another batch, so the fastest kernel may run.
    """

    def input_gradient(self, grad: Tensor, weight: Tensor) -> Tensor:
        """See Product. A weight of another type is widened a slab at a time: all of a head of 152 k words
        would be 544 MB, written and read for each few hundred rows.
        """
        if weight.dtype == grad.dtype:
            return grad @ weight
        slab = max(1, WIDENED_AT_ONCE // weight.shape[1])
        total = grad[:, :slab] @ weight[:slab].to(grad.dtype)
        for start in range(slab, len(weight), slab):
            part = slice(start, start + slab)
            total.addmm_(grad[:, part], weight[part].to(grad.dtype))
        return total

    def weight_gradient(self, grad: Tensor, x: Tensor, total: Tensor | None = None) -> Tensor:
        """See Product. bfloat16 is widened only where the product could not add up in float32 otherwise."""
        if grad.is_cuda and grad.dtype == torch.bfloat16:
            found = torch.mm(grad.t(), x, out_dtype=torch.float32)
        else:
            found = grad.t().float() @ x.float()
        return found if total is None else total.add_(found)


@dataclass(frozen=True)
class CompiledProduct(TorchGradients):
    """Our kernel. See kernels/product.c."""

    operations: CompiledOperations
    name: str = "compiled"
    inputs_at_once: int = 1

    def pack(self, weight: Tensor, into: Tensor | None = None) -> Tensor:
        """Panels of the weight in its own type: as many bytes as the weight."""
        return self.operations.pack(weight.detach(), into)

    def multiply(
        self, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, is_wide: bool = False
    ) -> Tensor:
        """x: [N, inputs] float32."""
        return self.operations.product(x, packed, outputs, bias)


@dataclass(frozen=True)
class PairedProduct:
    """Our kernel where the processor multiplies pairs of bfloat16. See kernels/product.c."""

    operations: CompiledOperations
    name: str = "paired"
    inputs_at_once: int = 2

    def pack(self, weight: Tensor, into: Tensor | None = None) -> Tensor:
        """Panels of the weight: as many bytes as the weight."""
        return self.operations.pack(weight.detach(), into)

    def multiply(
        self, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, is_wide: bool = False
    ) -> Tensor:
        """x: [N, inputs] bfloat16."""
        return self.operations.product(x, packed, outputs, bias, is_wide)

    def input_gradient(self, grad: Tensor, weight: Tensor) -> Tensor:
        """See Product; bfloat16. torch's product, for no row of it is compared with one of another batch."""
        return grad.to(weight.dtype) @ weight

    def weight_gradient(self, grad: Tensor, x: Tensor, total: Tensor | None = None) -> Tensor:
        """See Product. torch would round the sums to bfloat16, which depends on how rows are split."""
        return self.operations.weight_gradient(grad.to(x.dtype), x, total)


@dataclass(frozen=True)
class TiledProduct:
    """Our kernel on a matrix unit. Ten times as fast as `paired` on two cores of an Intel Xeon, from 64 rows
    up; see kernels/tiles.c.
    """

    operations: CompiledOperations
    name: str = "tiled"
    inputs_at_once: int = 32

    def __post_init__(self) -> None:
        kernels = self.operations.library
        kernels.tile_panel_bytes.argtypes = [_LONG]
        kernels.tile_panel_bytes.restype = _LONG
        kernels.tile_pack_weight.argtypes = [_POINTER] * 2 + [_LONG] * 2 + [_INT]
        kernels.tile_product.argtypes = [_POINTER] * 4 + [_LONG] * 3 + [_INT] * 2
        kernels.tile_gradient_scratch.argtypes = [_LONG] * 3
        kernels.tile_gradient_scratch.restype = _LONG
        kernels.tile_weight_gradient.argtypes = [_POINTER] * 3 + [_LONG] * 3 + [_INT, _POINTER, _INT]

    def pack(self, weight: Tensor, into: Tensor | None = None) -> Tensor:
        """Panels of the weight: as many bytes as the weight where its inputs are a multiple of 32."""
        weight, kernels = weight.detach().contiguous(), self.operations.library
        assert weight.dtype == torch.bfloat16, weight.dtype
        outputs, inputs = weight.shape
        panels = -(-outputs // (2 * self.operations.lanes()))
        size = panels * kernels.tile_panel_bytes(inputs) // weight.itemsize
        packed = roomy(size, weight.dtype) if into is None else into
        assert packed.numel() == size and packed.dtype == weight.dtype
        kernels.tile_pack_weight(
            weight.data_ptr(), packed.data_ptr(), outputs, inputs, torch.get_num_threads()
        )
        return packed

    def multiply(
        self, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, is_wide: bool = False
    ) -> Tensor:
        """x: [N, inputs] bfloat16."""
        assert x.dtype == torch.bfloat16, x.dtype
        missing = -x.shape[1] % self.inputs_at_once
        x = (F.pad(x, (0, missing)) if missing else x).contiguous()  # a padding of 0 would be a copy
        y = torch.empty((len(x), outputs), dtype=torch.float32 if is_wide else x.dtype)
        self.operations.library.tile_product(
            x.data_ptr(), packed.data_ptr(), 0 if bias is None else bias.data_ptr(), y.data_ptr(),
            len(x), outputs, x.shape[1], is_wide, torch.get_num_threads(),
        )  # fmt: skip
        return y

    def input_gradient(self, grad: Tensor, weight: Tensor) -> Tensor:
        """See Product; bfloat16. torch's product, for no row of it is compared with one of another batch."""
        return grad.to(weight.dtype) @ weight

    def weight_gradient(self, grad: Tensor, x: Tensor, total: Tensor | None = None) -> Tensor:
        """See Product."""
        assert x.dtype == torch.bfloat16 and len(grad) == len(x)
        grad, x, kernels = grad.to(x.dtype).contiguous(), x.contiguous(), self.operations.library
        sizes = (len(x), grad.shape[1], x.shape[1])
        found = torch.empty(sizes[1:]) if total is None else total
        assert found.shape == sizes[1:] and found.dtype == torch.float32 and found.is_contiguous()
        scratch = torch.empty(kernels.tile_gradient_scratch(*sizes), dtype=torch.uint8)
        kernels.tile_weight_gradient(
            grad.data_ptr(), x.data_ptr(), found.data_ptr(), *sizes, total is not None, scratch.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return found


@dataclass(frozen=True)
class QuantizedProduct:
    """Our kernel on codes of 8 or 4 bits; its gradients are refused. See kernels/quantized.c."""

    operations: CompiledOperations
    name: str
    bits: int
    inputs_at_once: int = 1

    def __post_init__(self) -> None:
        kernels = self.operations.library
        kernels.quantised_bytes.argtypes = [_LONG, _LONG, _INT]
        kernels.quantised_bytes.restype = _LONG
        kernels.quantise_weight.argtypes = [_POINTER, _POINTER, _LONG, _LONG, _INT, _INT, _INT]
        kernels.quantised_scratch.argtypes = [_LONG]
        kernels.quantised_scratch.restype = _LONG
        kernels.quantised_product.argtypes = [*[_POINTER] * 4, *[_LONG] * 3, _INT, _POINTER, _INT]

    @property
    def _dtype(self) -> torch.dtype:
        return torch.int8 if self.bits == 8 else torch.uint8

    def pack(self, weight: Tensor, into: Tensor | None = None) -> Tensor:
        """weight: bfloat16 or float32, finite. Codes with their scales: bytes of type int8 (8 bits) or uint8
        (4 bits), a new tensor each time.
        """
        weight, kernels = weight.detach().contiguous(), self.operations.library
        assert weight.dtype in (torch.bfloat16, torch.float32), weight.dtype
        size = kernels.quantised_bytes(*weight.shape, self.bits)
        packed = torch.frombuffer(machine.zeroed_memory(size), dtype=self._dtype, count=size)
        kernels.quantise_weight(
            weight.data_ptr(), packed.data_ptr(), *weight.shape, weight.dtype == torch.bfloat16, self.bits,
            torch.get_num_threads(),
        )  # fmt: skip
        return packed

    def multiply(
        self, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, is_wide: bool = False
    ) -> Tensor:
        """x: [N, inputs] float32; each row is rounded to 16 bits in blocks."""
        assert x.dtype == torch.float32 and packed.dtype == self._dtype
        (count, inputs), kernels, x = x.shape, self.operations.library, x.contiguous()
        assert packed.numel() == kernels.quantised_bytes(outputs, inputs, self.bits)
        y = torch.empty((count, outputs))
        scratch = torch.empty(count * kernels.quantised_scratch(inputs))
        kernels.quantised_product(
            x.data_ptr(), packed.data_ptr(), 0 if bias is None else bias.data_ptr(), y.data_ptr(),
            count, outputs, inputs, self.bits, scratch.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return y

    def input_gradient(self, grad: Tensor, weight: Tensor) -> Tensor:
        """Raises Unsupported."""
        raise self._refusal()

    def weight_gradient(self, grad: Tensor, x: Tensor, total: Tensor | None = None) -> Tensor:
        """Raises Unsupported."""
        raise self._refusal()

    def _refusal(self) -> Unsupported:
        return Unsupported(f"{self.name} weights have no gradient; open the model with bf16 weights")


@dataclass(frozen=True)
class OneDnnProduct(TorchGradients):
    """bfloat16 in hardware (avx512_bf16). One row takes another kernel there, so it is padded to four.

    Four rows cost 42 ms where one costs 36 and two cost 50: all products of a 0.5B model on two Zen 4 cores,
    torch 2.13.
    """

    name: str = "onednn"
    rows_hint: int = 64

    def pack(self, weight: Tensor, into: Tensor | None = None) -> Tensor:
        """A packed copy in oneDNN's own layout; a new one each time."""
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), self.rows_hint)
        return packed

    def multiply(
        self, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, is_wide: bool = False
    ) -> Tensor:
        """x: [N, inputs] bfloat16."""
        count = x.shape[0]
        padded = F.pad(x, (0, 0, 0, 4 - count)) if count < 4 else x
        y: Tensor = torch.ops.mkldnn._linear_pointwise(padded.contiguous(), packed, bias, "none", [], "")
        return y[:count].float() if is_wide else y[:count]


@dataclass(frozen=True)
class WidenedProduct(TorchGradients):
    """float32 products of widened weights, packed by oneDNN for 64 rows (packed for one row, one row would
    differ). One row is padded to two: with AVX-512 it takes another kernel.
    """

    name: str = "widened"
    rows_hint: int = 64

    def pack(self, weight: Tensor, into: Tensor | None = None) -> Tensor:
        """A packed float32 copy: twice the bytes of a bfloat16 weight."""
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().float(), self.rows_hint)
        return packed

    def multiply(
        self, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, is_wide: bool = False
    ) -> Tensor:
        """x: [N, inputs] float32."""
        count = x.shape[0]
        padded = F.pad(x, (0, 0, 0, 1)) if count == 1 else x
        y: Tensor = torch.ops.mkldnn._linear_pointwise(padded.contiguous(), packed, bias, "none", [], "")
        return y[:count]


@dataclass(frozen=True)
class PlainProduct(TorchGradients):
    """torch's own product; rows are padded to what the device's kernels need to be alike.

    rows_at_once: the rows of each call of the library, the last ones padded; None: one call for all.
    """

    dtype: torch.dtype | None = None  # of the activations, where the weights may have another one
    name: str = "plain"
    rows_at_once: int | None = None

    def pack(self, weight: Tensor, into: Tensor | None = None) -> Tensor:
        """The weight itself where it has the activations' type, else a copy of that type."""
        return weight.detach() if self.dtype is None else weight.detach().to(self.dtype)

    def multiply(
        self, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, is_wide: bool = False
    ) -> Tensor:
        """x: [N, inputs] of the packed weight's type."""
        count = x.shape[0]
        if self.rows_at_once is not None:
            missing = -count % self.rows_at_once
        else:
            missing = -count % 8 if x.dtype == torch.float32 else max(0, 2 - count)
        x = F.pad(x, (0, 0, 0, missing)) if missing else x
        parts = torch.split(x, self.rows_at_once or max(1, len(x)))
        ys = [_linear(part, packed, bias, is_wide) for part in parts]
        y = ys[0] if len(ys) == 1 else torch.cat(ys)
        return y[:count] if missing else y


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, is_wide: bool) -> Tensor:
    """One call of the library. What is wide is added up and returned in float32: rounded first, a logit of 20
    would be one of steps of 0.125.
    """
    if not is_wide or x.dtype == torch.float32:
        return F.linear(x, weight, bias)
    if x.is_cuda:
        y = torch.mm(x, weight.t(), out_dtype=torch.float32)
    else:
        y = F.linear(x.float(), weight.float())
    return y if bias is None else y + bias.float()
