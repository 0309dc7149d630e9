import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groschen.model.gguf_blocks import dequantise, quantise_q8_0
from groschen.model.gguf_format import TENSOR_TYPES, TensorType

_SCALES_AT = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "IQ4_NL": (0,), "Q4_K": (0, 2),
    "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip


@pytest.mark.parametrize("kind", TENSOR_TYPES.values(), ids=lambda kind: kind.name)
def test_random_blocks_become_the_same_bits_as_with_the_gguf_package(kind: TensorType) -> None:
    assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind.name]] == (kind.block, kind.block_bytes)
    assert gguf.GGMLQuantizationType[kind.name] == kind.number
    random = np.random.default_rng(3)
    blocks = random.integers(0, 256, (5000, kind.block_bytes), dtype=np.uint8)
    for at in _SCALES_AT.get(kind.name, ()):
        scales = random.standard_normal(len(blocks)).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    ours = dequantise(blocks.reshape(-1), kind)
    theirs = gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind.name]).reshape(-1)
    assert np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))


@pytest.mark.parametrize(("name", "steps"), [("Q4_1", 15), ("Q5_1", 31)])
def test_what_the_gguf_package_wrote_comes_back_within_half_a_step(name: str, steps: int) -> None:
    numbers = np.random.default_rng(5).standard_normal((100, 96)).astype(np.float32)
    stored = gguf.quantize(numbers, gguf.GGMLQuantizationType[name])
    back = dequantise(stored.reshape(-1), TENSOR_TYPES[name]).reshape(100, 3, 32)
    rows = numbers.reshape(100, 3, 32)
    step = (rows.max(-1, keepdims=True) - rows.min(-1, keepdims=True)) / steps
    assert (np.abs(back - rows) <= step * 0.6 + 2e-3).all()


def test_q8_0_blocks_are_the_bytes_of_the_gguf_package() -> None:
    random = np.random.default_rng(4)
    numbers = random.standard_normal(32 * 4000).astype(np.float32) * 10 ** random.uniform(-6, 4, 32 * 4000)
    numbers = numbers.astype(np.float32)
    numbers[:32] = 0
    numbers[32:64] = np.arange(-16, 16) * 0.5  # halves: rounded away from zero
    numbers[64:96] = -0.0
    theirs = gguf.quantize(numbers, gguf.GGMLQuantizationType.Q8_0)
    assert np.array_equal(quantise_q8_0(numbers), theirs)


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=32, max_size=32))
def test_q8_0_is_off_by_at_most_half_a_step_where_float16_holds_the_scale(values: list[float]) -> None:
    numbers = np.array(values, dtype=np.float32)
    scale = np.abs(numbers).max() / 127
    back = dequantise(quantise_q8_0(numbers), TENSOR_TYPES["Q8_0"])
    if 1e-4 < scale < 60_000:
        assert np.abs(back - numbers).max() <= scale * (0.5 + 127 * 2**-11 + 1e-3)
