"""The rotary settings of a config.json, and the frequency divisors that GGUF keeps for llama3 scaling.

Leaves out all other metadata. GGUF has no keys for llama3's scaling: llama.cpp's converter works the divisors
out and stores them as the tensor `rope_freqs.weight`, from which the settings are recognised again here.
Sources: llama.cpp's conversion/llama.py and base.py (facts); Llama 3.1's published `rope_scaling`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from groschen.errors import BadFile, Unsupported

_LOW, _HIGH = 1.0, 4.0  # low_freq_factor and high_freq_factor of every published llama3 scaling
_TRAINED_CONTEXTS = tuple(1 << power for power in range(13, 21)) + tuple(1 << power for power in range(6, 13))


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary settings, whatever their spelling. `scaling` is `rope_scaling` with `rope_type`, or empty."""

    theta: float
    local_theta: float | None = None  # base of the sliding layers, where it differs
    scaling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """`default`, `linear`, `llama3`, `yarn` or a kind that GGUF cannot say."""
        return str(self.scaling.get("rope_type", "default"))

    def setting(self, key: str) -> float:
        """The number `key` of the scaling. Raises BadFile if the config lacks it."""
        value = self.scaling.get(key)
        if not isinstance(value, int | float):
            raise BadFile(
                f"rope scaling '{self.kind}' needs a number '{key}', found {value!r}; complete config.json"
            )
        return float(value)


def rope_of_config(config: Mapping[str, Any], theta: float, local_theta: float | None) -> Rope:
    """The settings of a config.json in either spelling; `theta` and `local_theta` where it says nothing."""
    parameters = config.get("rope_parameters") or {}
    everywhere = parameters.get("full_attention", parameters)
    sliding = parameters.get("sliding_attention") or {}
    scaling = dict(config.get("rope_scaling") or {}) | dict(everywhere)
    found_theta = scaling.pop("rope_theta", config.get("rope_theta", theta))
    kind = scaling.pop("rope_type", scaling.pop("type", "default"))
    scaling.pop("type", None)
    if sliding.get("rope_type", "default") != "default":
        raise Unsupported(
            "rope scaling of the sliding layers cannot be said in GGUF; export a safetensors folder"
        )
    local = sliding.get("rope_theta", config.get("rope_local_base_freq", local_theta))
    partial = scaling.pop("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if partial not in (None, 1, 1.0):
        raise Unsupported(f"partial_rotary_factor {partial} cannot be said in GGUF for this architecture")
    return Rope(float(found_theta), local, {} if kind == "default" else {"rope_type": kind, **scaling})


def llama3_divisors(rope: Rope, head_dim: int) -> Tensor:
    """By what llama3's scaling divides each rotary frequency: 1 for short waves, `factor` for long ones.

    Returns [head_dim / 2] float32.
    """
    frequencies = rope.theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    low, high, factor = (rope.setting(key) for key in ("low_freq_factor", "high_freq_factor", "factor"))
    turns = rope.setting("original_max_position_embeddings") * frequencies / (2 * torch.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).float()


def llama3_scaling(divisors: Tensor, theta: float, head_dim: int) -> dict[str, Any]:
    """The llama3 settings that give `divisors`; empty if they are all one.

    divisors: [head_dim / 2]. Raises Unsupported if no llama3 setting with the published low and high factors
    does.
    """
    found = divisors.float()
    if bool((found == 1).all()):
        return {}
    is_whole = found.shape == (head_dim // 2,)  # else no tensor of `head_dim`, a number of the file, is made
    for context in _TRAINED_CONTEXTS if is_whole else ():
        scaling = {
            "rope_type": "llama3",
            "factor": round(float(found.max()), 4),
            "low_freq_factor": _LOW,
            "high_freq_factor": _HIGH,
            "original_max_position_embeddings": context,
        }
        expected = llama3_divisors(Rope(theta, scaling=scaling), head_dim)
        if torch.allclose(found, expected, rtol=1e-3, atol=0):
            return scaling
    raise Unsupported(
        "the tensor 'rope_freqs.weight' is not llama3's rope scaling, the only one recognised; "
        "use the safetensors checkpoint of this model"
    )
