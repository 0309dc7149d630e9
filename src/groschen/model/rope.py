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
from groschen.model.values import Raw, flag, mapping, real, shown, whole

_KINDS = ("default", "linear", "llama3", "yarn")
_THETA, _GLOBAL_THETA = 10_000.0, 1_000_000.0  # where a config has none; the other of Gemma 3
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

    @property
    def stretched_context(self) -> int:
        """Positions to which scaling stretches those of pre-training; 0 where the config's own number counts
        it in already (Llama 3, Gemma 3).
        """
        return int(self.factor * self.original_context) if self.kind in ("yarn", "linear") else 0


def read_rope(raw: Raw, layer_kind: str, family: str, head_width: int) -> RopeConfig:
    """The RopeConfig of the layers of one kind, from either spelling in config.json.

    Raises Unsupported for another kind of scaling or a parameter that is not known, BadFile for a missing
    one, a wrong type or range, or two spellings that contradict each other.
    """
    if family == "gemma3_text":
        return _rope(raw, _parameters_by_kind(raw, layer_kind), head_width)
    old, new = mapping(raw, "rope_scaling"), mapping(raw, "rope_parameters")
    theta = {"rope_theta": raw.get("rope_theta", _THETA)}
    if any(isinstance(value, Mapping) for value in new.values()):
        raise Unsupported(f"config.json: 'rope_parameters' by kinds of layers are not known of {family}")
    rope = _rope(raw, {**theta, **(old or new)}, head_width)
    if old and new and rope != _rope(raw, {**theta, **new}, head_width):
        raise BadFile(
            "config.json has 'rope_parameters' and another 'rope_scaling' beside them, of which only one can "
            "hold; move what is meant into 'rope_parameters' and remove 'rope_scaling'"
        )
    return rope


def _parameters_by_kind(raw: Raw, layer_kind: str) -> dict[str, Any]:
    """Of Gemma 3, whose layers that see everything have a base of their own, and alone are scaled."""
    by_kind, old = mapping(raw, "rope_parameters"), mapping(raw, "rope_scaling")
    flat = sorted(by_kind.keys() - {"full_attention", "sliding_attention"})
    if flat:
        raise Unsupported(
            f"config.json: 'rope_parameters' of gemma3_text has {flat[0][:80]!r}, expected an object for "
            "each of 'full_attention' and 'sliding_attention'"
        )
    own = mapping(by_kind, layer_kind)
    if layer_kind == "sliding_attention":
        return {"rope_theta": raw.get("rope_local_base_freq", _THETA), **own}
    if old and "rope_type" not in old:
        raise Unsupported("config.json: 'rope_scaling' of gemma3_text has no 'rope_type'; add it")
    if not {**own, **old}.get("truncate", True):
        raise Unsupported("config.json: 'truncate' false is not read by gemma3_text's class; remove it")
    return {"rope_theta": raw.get("rope_theta", _GLOBAL_THETA), **own, **old}


def _rope(raw: Raw, given: dict[str, Any], head_width: int) -> RopeConfig:
    for key, value in given.items():
        if key not in _KNOWN and value is not None:
            raise Unsupported(
                f"config.json: RoPE parameter {key[:80]!r} = {shown(value)} is not honoured here"
            )
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in _KINDS:
        raise Unsupported(
            f"config.json: RoPE scaling {shown(kind)} is not supported; supported are {', '.join(_KINDS)}"
        )
    if given.get("partial_rotary_factor") not in (1.0, None):
        raise Unsupported(
            "config.json: 'partial_rotary_factor' is not honoured, only whole heads are rotated"
        )
    theta = real(given, "rope_theta", 1, 1e15)
    if kind == "default":
        return RopeConfig(head_width, theta)
    factor = real(given, "factor", 0, 1e6)
    key = "original_max_position_embeddings"
    original = whole(given if key in given else {key: raw.get("max_position_embeddings")}, key, 1, 1 << 28)
    if kind == "linear":
        is_counted_in = (
            raw.get("model_type") == "gemma3_text"
        )  # its max_position_embeddings are the stretched
        return RopeConfig(head_width, theta, kind, factor, 0 if is_counted_in else original)
    if kind == "llama3":
        low, high = real(given, "low_freq_factor", 0, 1e6), real(given, "high_freq_factor", 0, 1e6)
        if low >= high:
            raise BadFile(f"config.json: 'low_freq_factor' {low:g} must be below 'high_freq_factor' {high:g}")
        return RopeConfig(head_width, theta, kind, factor, original, low, high)
    return RopeConfig(
        head_width, theta, kind, factor, original,
        beta_fast=_or_zero(given, "beta_fast", 1e6) or 32.0,
        beta_slow=_or_zero(given, "beta_slow", 1e6) or 1.0,
        is_truncated=flag({"truncate": True, **given}, "truncate"), magnitude=_yarn_magnitude(given, factor),
    )  # fmt: skip


def _or_zero(given: Raw, key: str, most: float) -> float:
    """A number of which null, zero and nothing all mean the default."""
    return 0.0 if given.get(key) in (None, 0) else real(given, key, 0, most)


def _yarn_magnitude(given: Raw, factor: float) -> float:
    def magnitude(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if given.get("attention_factor") is not None:
        return real(given, "attention_factor", 0, 1e3)
    mscale, mscale_all_dim = (_or_zero(given, key, 1e3) for key in ("mscale", "mscale_all_dim"))
    return magnitude(mscale) / magnitude(mscale_all_dim) if mscale and mscale_all_dim else magnitude(1.0)


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
