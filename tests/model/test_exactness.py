"""The probe finds this machine exact, compiled and portable, and finds a fault that was put there."""

import pytest
import torch
from torch import Tensor

from groschen import machine
from groschen.model import exactness, operations
from groschen.model.build_kernels import Built, library
from groschen.model.compiled import CompiledOperations
from groschen.model.operations import Kit
from groschen.model.portable import PortableOperations
from groschen.model.products import CompiledProduct, PlainProduct, WidenedProduct

CPU = torch.device("cpu")


def compiled_kit(*, is_bf16: bool) -> Kit:
    built = library(is_bf16=is_bf16)
    if built.library is None:
        pytest.skip(built.why_not)
    compiled = CompiledOperations(built.library, torch.bfloat16 if is_bf16 else torch.float32)
    return Kit(compiled, PlainProduct() if is_bf16 else CompiledProduct(compiled))


KITS = {
    "compiled": lambda: compiled_kit(is_bf16=False),
    "compiled with bf16 activations": lambda: compiled_kit(is_bf16=True),
    "portable": lambda: Kit(PortableOperations(torch.float32), WidenedProduct()),
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

    def multiply(self, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None) -> Tensor:
        y = super().multiply(x, packed, outputs, bias)
        return y * (1 + 2**-23) if len(x) == 1 else y


def test_a_product_that_treats_one_row_differently_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = Kit(PortableOperations(torch.float32), _Hasty())
    for module in (exactness, operations):
        monkeypatch.setattr(module, "kit_for", lambda device, dtype: kit)
    report = exactness.probe(torch.bfloat16)
    assert not report.exact
    assert report.first_inexact == "product"


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
