"""Turn the quantised blocks of a GGUF file into float32 numbers, and numbers into Q8_0 blocks.

Leaves out all other quantisation directions: K-quants need an importance-weighted search that llama.cpp's
`llama-quantize` does better. Every product and sum is rounded to float32 in the order of ggml's reference, so
the results are its bits. Source of the layouts: ggml, ggml-common.h and ggml-quants.c.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from groschen.model.gguf_format import TensorType

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# What the sixteen codes of IQ4_NL stand for: closer together where weights are (ggml's kvalues_iq4nl).
_IQ4_VALUES = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32
)
_BYTES_AT_ONCE = 1 << 18  # keeps the temporaries of a step in the second-level cache


def dequantise(raw: Bytes, kind: TensorType) -> Floats:
    """The numbers that `raw` stores.

    raw: [bytes] uint8, whole blocks of `kind`. Returns [numbers] float32.
    """
    blocks = raw.reshape(-1, kind.block_bytes)
    decode = _DECODERS[kind.name]
    numbers: Floats = np.empty((len(blocks), kind.block), dtype=np.float32)
    step = max(1, _BYTES_AT_ONCE // kind.block_bytes)
    with np.errstate(
        invalid="ignore", over="ignore"
    ):  # a damaged scale becomes inf or NaN, which loading refuses
        for start in range(0, len(blocks), step):
            decode(blocks[start : start + step], numbers[start : start + step])
    return numbers.reshape(-1)


def quantise_q8_0(numbers: Floats) -> Bytes:
    """Q8_0 blocks: 32 signed bytes with one float16 scale, the largest magnitude over 127.

    numbers: [32 * blocks] float32, magnitudes below 127 times float16's largest. Returns [34 * blocks] uint8.
    Rounds half away from zero with the unrounded scale, as ggml's quantize_row_q8_0_ref does.
    """
    rows = numbers.reshape(-1, 32)
    scale = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    inverse[~np.isfinite(inverse)] = 0  # a scale below 3e-39 is zero in float16 anyway
    scaled = rows * inverse
    magnitude = np.abs(scaled)
    whole = np.floor(magnitude)
    rounded = np.copysign(whole + (magnitude - whole >= 0.5), scaled).astype(np.int8)
    with np.errstate(over="ignore"):
        stored = scale.astype("<f2").view(np.uint8)
    return np.concatenate([stored, rounded.view(np.uint8)], axis=1).reshape(-1)


def _scale(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte `at` of each block, [blocks, 1] float32."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _f32(blocks: Bytes, out: Floats) -> None:
    out[:] = blocks.view("<f4")


def _f16(blocks: Bytes, out: Floats) -> None:
    out[:] = blocks.view("<f2")


def _bf16(blocks: Bytes, out: Floats) -> None:
    out.view(np.uint32)[:] = blocks.view("<u2").astype(np.uint32) << np.uint32(16)


def _nibbles(packed: Bytes) -> Bytes:
    """[N, bytes] to [N, 2, bytes]: all low halves, then all high halves."""
    return np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=1)


def _q4_0(blocks: Bytes, out: Floats) -> None:
    codes = _nibbles(blocks[:, 2:]).reshape(-1, 32).view(np.int8) - np.int8(8)
    np.multiply(_scale(blocks, 0), codes, out=out)


def _q4_1(blocks: Bytes, out: Floats) -> None:
    np.multiply(_scale(blocks, 0), _nibbles(blocks[:, 4:]).reshape(-1, 32), out=out)
    np.add(out, _scale(blocks, 2), out=out)


def _five_bits(fifth: Bytes, packed: Bytes) -> Bytes:
    """[blocks, 32] codes: the low four bits of each packed in pairs, the fifth ones beside them."""
    fifth_bits = np.unpackbits(fifth, axis=1, bitorder="little") << np.uint8(4)
    return _nibbles(packed).reshape(-1, 32) | fifth_bits


def _q5_0(blocks: Bytes, out: Floats) -> None:
    codes = _five_bits(blocks[:, 2:6], blocks[:, 6:]).view(np.int8) - np.int8(16)
    np.multiply(_scale(blocks, 0), codes, out=out)


def _q5_1(blocks: Bytes, out: Floats) -> None:
    np.multiply(_scale(blocks, 0), _five_bits(blocks[:, 4:8], blocks[:, 8:]), out=out)
    np.add(out, _scale(blocks, 2), out=out)


def _iq4_nl(blocks: Bytes, out: Floats) -> None:
    np.multiply(_scale(blocks, 0), _IQ4_VALUES[_nibbles(blocks[:, 2:]).reshape(-1, 32)], out=out)


def _q8_0(blocks: Bytes, out: Floats) -> None:
    np.multiply(blocks[:, 2:].view(np.int8), _scale(blocks, 0), out=out)


def _k_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """Scale and minimum of the eight sub-blocks of 32 of a Q4_K or Q5_K block, each [blocks, 8, 1] float32.

    Twelve bytes hold sixteen numbers of six bits: the first four scales and minima in bytes 0 to 7 (low six
    bits), the other four in the nibbles of bytes 8 to 11, their upper two bits on top of bytes 0 to 7.
    """
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([first & 63, (third & 15) | ((first >> 2) & 48)], axis=1)
    minima = np.concatenate([second & 63, (third >> 4) | ((second >> 2) & 48)], axis=1)
    scale = _scale(blocks, 0) * scales.astype(np.float32)
    minimum = _scale(blocks, 2) * minima.astype(np.float32)
    return scale[:, :, None], minimum[:, :, None]


def _four_bits(packed: Bytes) -> Bytes:
    """[blocks, 128] bytes to [blocks, 8, 32] codes: 32 bytes hold two sub-blocks, low halves first."""
    return _nibbles(packed.reshape(-1, 32)).reshape(-1, 8, 32)


def _q4_k(blocks: Bytes, out: Floats) -> None:
    scale, minimum = _k_scales(blocks)
    numbers = out.reshape(-1, 8, 32)
    np.multiply(scale, _four_bits(blocks[:, 16:]), out=numbers)
    np.subtract(numbers, minimum, out=numbers)


def _q5_k(blocks: Bytes, out: Floats) -> None:
    scale, minimum = _k_scales(blocks)
    shifts = np.arange(8, dtype=np.uint8)[None, :, None]  # bit i of byte j belongs to number j of sub-block i
    fifth_bits = ((blocks[:, 16:48][:, None, :] >> shifts) & np.uint8(1)) << np.uint8(4)
    numbers = out.reshape(-1, 8, 32)
    np.multiply(scale, _four_bits(blocks[:, 48:]) | fifth_bits, out=numbers)
    np.subtract(numbers, minimum, out=numbers)


def _q6_k(blocks: Bytes, out: Floats) -> None:
    """Two halves of 128 numbers: 64 bytes of low nibbles, 32 of upper bit pairs, 8 signed scales."""
    low = _nibbles(blocks[:, :128].reshape(-1, 64)).reshape(-1, 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8)[None, None, :, None]
    high = ((blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & np.uint8(3)) << np.uint8(4)
    codes = (low | high).view(np.int8) - np.int8(32)
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    scale = (_scale(blocks, 208) * scales)[:, :, None]
    np.multiply(scale, codes.reshape(-1, 16, 16), out=out.reshape(-1, 16, 16))


_DECODERS: dict[str, Callable[[Bytes, Floats], None]] = {
    "F32": _f32,
    "F16": _f16,
    "BF16": _bf16,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
}
