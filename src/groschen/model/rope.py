"""Rotary position embeddings: the angles of every position, in float32.

Kinds: default (RoFormer, arXiv 2104.09864), linear (arXiv 2306.15595), llama3 (the Llama 3.1 release) and
YaRN (arXiv 2309.00071), each as transformers 5 computes it. Leaves out the rotation itself (`operations.py`).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from groschen.errors import BadFile, Unsupported

_KINDS = ("default", "linear", "llama3", "yarn")
_KNOWN = frozenset(
    "rope_type type rope_theta factor low_freq_factor high_freq_factor original_max_position_embeddings "
    "attention_factor "
    "beta_fast beta_slow mscale mscale_all_dim truncate partial_rotary_factor".split()
)


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """How positions turn into angles. Unused fields keep their default."""

    head_width: int
    theta: float
    kind: str = "default"
    factor: float = 1.0  # the context is this many times longer than in pre-training
    original_context: int = 0  # positions in pre-training
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn: rotations from which a frequency is kept
    beta_slow: float = 1.0  # yarn: rotations up to which it is interpolated
    is_truncated: bool = True  # yarn: the two borders are rounded to whole dimensions
    magnitude: float = 1.0  # yarn: multiplies cosines and sines


def read_rope(raw: Mapping[str, Any], layer_kind: str, family: str, head_width: int) -> RopeConfig:
    """The RopeConfig of the layers of one kind, from either spelling in config.json.

    Raises Unsupported for another kind of scaling or a parameter that is not known, BadFile for a missing
    one.
    """
    given = _parameters(raw, layer_kind, family)
    for key, value in given.items():
        if key not in _KNOWN and value is not None:
            raise Unsupported(f"config.json: RoPE parameter {key!r} = {value!r} is not honoured here")
    kind = given.get("rope_type", given.get("type", "default")) or "default"
    if kind not in _KINDS:
        raise Unsupported(
            f"config.json: RoPE scaling {kind!r} is not supported; supported are {', '.join(_KINDS)}"
        )
    if given.get("partial_rotary_factor", 1.0) not in (1.0, None):
        raise Unsupported(
            "config.json: 'partial_rotary_factor' is not honoured, only whole heads are rotated"
        )
    theta = float(given.get("rope_theta") or 10000.0)
    if kind == "default":
        return RopeConfig(head_width, theta)
    factor = _need(given, "factor", kind)
    if kind == "linear":
        return RopeConfig(head_width, theta, kind, factor)
    original = given.get("original_max_position_embeddings") or raw.get("max_position_embeddings")
    if kind == "llama3":
        low, high = _need(given, "low_freq_factor", kind), _need(given, "high_freq_factor", kind)
        return RopeConfig(head_width, theta, kind, factor, int(original or 0), low, high)
    return RopeConfig(
        head_width, theta, kind, factor, int(original or 0),
        beta_fast=float(given.get("beta_fast") or 32.0), beta_slow=float(given.get("beta_slow") or 1.0),
        is_truncated=bool(given.get("truncate", True)), magnitude=_yarn_magnitude(given, factor),
    )  # fmt: skip


def _parameters(raw: Mapping[str, Any], layer_kind: str, family: str) -> dict[str, Any]:
    """The one dictionary of a layer kind, `rope_theta` included."""
    new = raw.get("rope_parameters")
    if new:
        if any(isinstance(value, Mapping) for value in new.values()):
            if layer_kind not in new:
                raise BadFile(f"config.json: 'rope_parameters' has no entry for {layer_kind!r}")
            return dict(new[layer_kind])
        return {"rope_theta": raw.get("rope_theta"), **new}
    given = dict(raw.get("rope_scaling") or {})
    theta = raw.get("rope_theta") or (1_000_000.0 if family == "gemma3_text" else 10_000.0)
    if family == "gemma3_text" and layer_kind == "sliding_attention":
        return {
            "rope_theta": raw.get("rope_local_base_freq") or 10_000.0
        }  # scaling is for the global layers alone
    return {**given, "rope_theta": theta}


def _need(given: Mapping[str, Any], key: str, kind: str) -> float:
    if given.get(key) is None:
        raise BadFile(f"config.json: RoPE scaling {kind!r} needs {key!r}")
    return float(given[key])


def _yarn_magnitude(given: Mapping[str, Any], factor: float) -> float:
    def magnitude(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if given.get("attention_factor") is not None:
        return float(given["attention_factor"])
    if given.get("mscale") and given.get("mscale_all_dim"):
        return magnitude(float(given["mscale"])) / magnitude(float(given["mscale_all_dim"]))
    return magnitude(1.0)


def frequencies(rope: RopeConfig) -> Tensor:
    """Angle per position of each pair of dimensions, [E / 2] float32, radians."""
    exponents = torch.arange(0, rope.head_width, 2, dtype=torch.int64).float() / rope.head_width
    plain = 1.0 / (rope.theta**exponents)
    if rope.kind == "linear":
        return plain / rope.factor
    if rope.kind == "llama3":
        return _llama3(plain, rope)
    if rope.kind == "yarn":
        return _yarn(plain, rope)
    return plain


def _llama3(plain: Tensor, rope: RopeConfig) -> Tensor:
    wavelengths = 2 * math.pi / plain
    longest, shortest = (
        rope.original_context / rope.low_freq_factor,
        rope.original_context / rope.high_freq_factor,
    )
    scaled = torch.where(wavelengths > longest, plain / rope.factor, plain)
    smooth = (rope.original_context / wavelengths - rope.low_freq_factor) / (
        rope.high_freq_factor - rope.low_freq_factor
    )
    blended = (1 - smooth) * scaled / rope.factor + smooth * scaled
    is_between = (wavelengths >= shortest) & (wavelengths <= longest)
    return torch.where(is_between, blended, scaled)


def _yarn(plain: Tensor, rope: RopeConfig) -> Tensor:
    def dimension_of(rotations: float) -> float:
        turns = rope.original_context / (rotations * 2 * math.pi)
        return rope.head_width * math.log(turns) / (2 * math.log(rope.theta))

    low, high = dimension_of(rope.beta_fast), dimension_of(rope.beta_slow)
    if rope.is_truncated:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.head_width - 1)
    if low == high:
        high += 0.001  # a step instead of a ramp, without a division by zero
    ramp = ((torch.arange(rope.head_width // 2).float() - low) / (high - low)).clamp(0, 1)
    return plain / rope.factor * ramp + plain * (1 - ramp)


def tables(rope: RopeConfig, num_positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions 0 .. num_positions - 1, each [P, E / 2] float32."""
    angles = torch.outer(torch.arange(num_positions).float(), frequencies(rope))
    cosines = angles.cos().mul_(rope.magnitude)
    sines = angles.sin_().mul_(rope.magnitude)  # in place: a context of a million positions is 0.5 GB
    return cosines.to(device), sines.to(device)


def table_bytes(ropes: Iterable[RopeConfig], num_positions: int) -> int:
    """Bytes of `tables` for all of them; making them takes no more."""
    return sum(2 * (rope.head_width // 2) * num_positions * torch.float32.itemsize for rope in ropes)
