"""The probe finds this machine exact, compiled and portable, and finds a fault that was put there."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from groschen import machine
from groschen.model import exactness, operations
from groschen.model.build_kernels import Built, library
from groschen.model.compiled import CompiledOperations
from groschen.model.kvcache import LayerCache, Rows
from groschen.model.operations import Kit
from groschen.model.portable import PortableOperations
from groschen.model.products import (
    CompiledProduct,
    OneDnnProduct,
    PairedProduct,
    PlainProduct,
    TiledProduct,
    WidenedProduct,
)
from groschen.model.shapes import AttentionShape, Categorical

CPU = torch.device("cpu")


def compiled_kit(*, is_bf16: bool) -> Kit:
    built = library(is_bf16=is_bf16)
    if built.library is None:
        pytest.skip(built.why_not)
    compiled = CompiledOperations(built.library, torch.bfloat16 if is_bf16 else torch.float32)
    if not is_bf16:
        return Kit(compiled, CompiledProduct(compiled))
    if machine.has_matrix_unit() and not compiled.has_tiles():
        pytest.skip("torch's products are not exact on a matrix unit, and this compiler does not know it")
    return Kit(compiled, TiledProduct(compiled) if compiled.has_tiles() else PlainProduct())


def paired_kit() -> Kit:
    compiled = compiled_kit(is_bf16=True).operations
    assert isinstance(compiled, CompiledOperations)
    if not compiled.has_product():
        pytest.skip("this CPU has no AVX512_BF16")
    return Kit(compiled, PairedProduct(compiled))


def tiled_kit() -> Kit:
    compiled = compiled_kit(is_bf16=True).operations
    assert isinstance(compiled, CompiledOperations)
    if not compiled.has_tiles():
        pytest.skip("this CPU has no AMX")
    return Kit(compiled, TiledProduct(compiled))


def onednn_kit() -> Kit:
    if not machine.has_fast_bf16() or machine.has_matrix_unit():
        pytest.skip("this CPU has no bfloat16 products, or oneDNN's are not exact on it")
    return Kit(PortableOperations(torch.bfloat16), OneDnnProduct())


KITS = {
    "compiled": lambda: compiled_kit(is_bf16=False),
    "compiled with bf16 activations": lambda: compiled_kit(is_bf16=True),
    "paired": paired_kit,
    "tiled": tiled_kit,
    "portable with bf16 activations": onednn_kit,
    "portable": lambda: Kit(PortableOperations(torch.float32), WidenedProduct()),
    "ordered, as on a GPU": lambda: Kit(
        PortableOperations(torch.float32, is_ordered=True), PlainProduct(torch.float32, rows_at_once=128)
    ),
}


@pytest.mark.parametrize("name", KITS)
def test_every_operation_is_exact(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = KITS[name]()
    for module in (exactness, operations):
        monkeypatch.setattr(module, "kit_for", lambda device, dtype: kit)
    report = exactness.probe(torch.bfloat16)
    assert report.exact, [check for check in report.checks if check.num_differing]
    assert report.first_inexact is None
    assert sum(check.num_compared for check in report.checks) > 1500


class _Hasty(WidenedProduct):
    """A product that treats a lone row differently, as oneDNN's bfloat16 kernel does."""

    def multiply(
        self, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, is_wide: bool = False
    ) -> Tensor:
        y = super().multiply(x, packed, outputs, bias, is_wide)
        return y * (1 + 2**-23) if len(x) == 1 else y


def test_a_product_that_treats_one_row_differently_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = Kit(PortableOperations(torch.float32), _Hasty())
    for module in (exactness, operations):
        monkeypatch.setattr(module, "kit_for", lambda device, dtype: kit)
    report = exactness.probe(torch.bfloat16)
    assert not report.exact
    assert report.first_inexact == "product"


class _OfAGpu(PortableOperations):
    """Changes bits where the libraries of a GPU take another kernel: `fault` says which."""

    fault = ""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        y = super().rms_norm(x, weight, eps, offset)
        return y * (1 + 2**-23) if self.fault == "rms_norm" and 8 <= x[..., 0].numel() < 16 else y

    def attend(self, queries: Tensor, cache: LayerCache, rows: Rows, shape: AttentionShape) -> Tensor:
        y = super().attend(queries, cache, rows, shape)
        return y * (1 + 2**-23) if self.fault == "attention" and rows.tables.shape[1] > 64 else y

    def categorical(self, logits: Tensor, *given: Tensor | None) -> Categorical:  # type: ignore[override]
        found = super().categorical(logits, *given)  # type: ignore[arg-type]
        is_other = self.fault == "draw" and len(logits) > 512
        return found._replace(logprobs=found.logprobs * (1 + 2**-22)) if is_other else found


class _ProductOfAGpu(PlainProduct):
    """Takes another kernel above 400 rows, as cuBLAS does somewhere."""

    def multiply(
        self, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, is_wide: bool = False
    ) -> Tensor:
        y = super().multiply(x, packed, outputs, bias, is_wide)
        return y * (1 + 2**-23) if len(x) > 400 else y


@pytest.mark.parametrize("fault", ["", "product", "rms_norm", "attention", "draw"])
def test_the_probe_of_a_gpu_sees_what_lies_beyond_the_shapes_of_a_cpu(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = _OfAGpu(torch.float32, is_ordered=True)
    monkeypatch.setattr(_OfAGpu, "fault", fault)
    product = _ProductOfAGpu if fault == "product" else PlainProduct
    kit = Kit(operation, product(torch.float32, rows_at_once=128))
    for module in (exactness, operations):
        monkeypatch.setattr(module, "kit_for", lambda device, dtype: kit)
    monkeypatch.setattr(exactness, "_SHAPES", ((64, 96),))
    reach = replace(exactness.CUDA, context=150, vocabularies=(2048,))
    assert exactness.probe(torch.bfloat16, reach=reach).first_inexact == (fault or None)
    if fault != "rms_norm":  # of 8 to 15 rows: no count of the other probe, but one of its chunks
        assert exactness.probe(torch.bfloat16, reach=exactness.CPU).first_inexact is None


def test_the_compiled_product_is_one_chain_of_fused_multiply_adds() -> None:
    """Against the definition, in float64 (a product of two bfloat16 numbers is exact there, so each sum
    rounds once).
    """
    kit = compiled_kit(is_bf16=False)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(45, 700, generator=generator).bfloat16()
    x = torch.randn(9, 700, generator=generator).bfloat16().float()
    chain = torch.zeros(9, 45)
    for k in range(700):
        chain = (chain.double() + x[:, k : k + 1].double() * weight[:, k].double()).float()
    found = kit.product.multiply(x, kit.product.pack(weight), 45, None)
    assert torch.equal(found, chain)


@pytest.mark.parametrize("kit", [paired_kit, tiled_kit])
@pytest.mark.parametrize(("outputs", "inputs"), [(45, 700), (33, 7), (130, 2050)])
def test_a_bfloat16_product_has_the_bits_of_a_row_alone_and_the_value_of_a_wide_one(
    kit: Callable[[], Kit], outputs: int, inputs: int
) -> None:
    product = kit().product
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(outputs, inputs, generator=generator) * inputs**-0.5).bfloat16()
    bias = torch.randn(outputs, generator=generator).bfloat16()
    packed = product.pack(weight)
    x = torch.randn(401, inputs, generator=generator).bfloat16()
    right = x.double() @ weight.double().t() + bias.double()
    whole = product.multiply(x, packed, outputs, bias, is_wide=True)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(whole.double(), right, rtol=0, atol=2e-5)
    assert torch.equal(product.multiply(x, packed, outputs, bias), whole.bfloat16())
    for count in (1, 2, 3, 11, 12, 13, 16, 17, 25, 33, 64, 128, 129, 193):
        part = x[401 - count :].clone()  # a row's place in memory differs too
        assert torch.equal(product.multiply(part, packed, outputs, bias, is_wide=True), whole[401 - count :])


@pytest.mark.parametrize("kit", [paired_kit, tiled_kit])
@pytest.mark.parametrize("tokens", [1, 2, 13, 2100])
def test_a_bfloat16_weight_gradient_is_the_float32_sum_over_tokens(
    kit: Callable[[], Kit], tokens: int
) -> None:
    product = kit().product
    generator = torch.Generator().manual_seed(0)
    grad = torch.randn(tokens, 45, generator=generator)
    x = torch.randn(tokens, 70, generator=generator).bfloat16()
    found = product.weight_gradient(grad, x)
    assert found.dtype == torch.float32
    right = grad.bfloat16().double().t() @ x.double()
    torch.testing.assert_close(found.double(), right, rtol=0, atol=1e-5 * tokens**0.5)
    total = torch.ones(45, 70)
    assert product.weight_gradient(grad, x, total) is total
    torch.testing.assert_close(total.double(), right + 1, rtol=0, atol=1e-5 * tokens**0.5)


def test_without_our_kernel_a_matrix_unit_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's products of bfloat16 differ there with the number of rows."""
    monkeypatch.setattr(machine, "has_fast_bf16", lambda: True)
    monkeypatch.setattr(machine, "has_matrix_unit", lambda: True)
    monkeypatch.setattr(operations, "library", lambda *, is_bf16: Built(None, "", "no compiler"))
    kit = operations.kit_for(CPU, torch.bfloat16)
    assert kit.operations.activation_dtype == torch.float32
    assert kit.product.name == ("widened" if machine.has_onednn() else "plain")


def test_a_cpu_with_neither_kernels_nor_onednn_multiplies_bf16_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "has_onednn", lambda: False)
    monkeypatch.setattr(operations, "library", lambda *, is_bf16: Built(None, "", "no compiler"))
    kit = operations.kit_for(CPU, torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(45, 70, generator=generator).bfloat16()
    x = torch.randn(9, 70, generator=generator)
    found = kit.product.multiply(x, kit.product.pack(weight), 45, None)
    torch.testing.assert_close(found, x @ weight.float().t())


@pytest.mark.parametrize("operation", ["rms_norm", "gate silu", "gate gelu", "rotate"])
def test_compiled_and_portable_operations_agree(operation: str) -> None:
    compiled, portable = compiled_kit(is_bf16=False).operations, PortableOperations(torch.float32)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(37, 198, generator=generator) * 4
    angles = torch.randn(64, 33, generator=generator)
    positions = torch.arange(37)
    found = []
    for each in (compiled, portable):
        if operation == "rms_norm":
            found.append(each.rms_norm(x, angles.flatten()[:198], 1e-6, 1.0))
        elif operation == "rotate":
            found.append(each.rotate(x.view(37, 3, 66), positions, angles.cos(), angles.sin(), 1.0))
        else:
            found.append(each.gate(x, operation == "gate gelu"))
    assert (found[0] - found[1]).abs().max() < 5e-6 * found[1].abs().max()
