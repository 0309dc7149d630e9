"""A config.json means what transformers takes it to mean, whatever keys are missing, odd or written twice.

The oracle is transformers itself: the same config.json, the same random weights, the same logits. Where it
refuses a config, or would drop something without a word, a refusal by name is right; another number never is.
"""

import copy
import warnings
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from groschen.errors import BadFile, Unsupported
from groschen.model.config import ModelConfig
from groschen.model.families import DEFAULTS, FAMILIES
from groschen.model.transformer import Transformer
from model.test_transformer import our_logits, some_ids

_SIZES = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 144, "num_hidden_layers": 3,
    "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "rms_norm_eps": 1e-3, "head_dim": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
SIZES = ("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers", "num_attention_heads")
_OWN: dict[str, dict[str, Any]] = {
    "llama": {"hidden_act": "silu", "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "mistral": {"hidden_act": "silu", "sliding_window": 20},
    "qwen2": {
        "use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1, "tie_word_embeddings": True,
    },
    "qwen3": {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1,
              "attention_bias": True},
    "gemma2": {
        "sliding_window": 20, "query_pre_attn_scalar": 30, "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 12.0, "attention_bias": True, "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh",
    },
    "gemma3_text": {
        "sliding_window": 20, "query_pre_attn_scalar": 30, "sliding_window_pattern": 2,
        "rope_local_base_freq": 500.0, "final_logit_softcapping": 12.0,
    },
}  # fmt: skip
_BASE = {
    family: {"model_type": family, **_SIZES, "rope_theta": 5000.0, **_OWN[family]} for family in FAMILIES
}
_LINEAR = {"rope_type": "linear", "factor": 4.0}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
_LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
_GONE = "(gone)"  # the key is not there

# Keys in odd forms, tried with every family.
ODD: dict[str, dict[str, Any]] = {
    "null heads": {"num_key_value_heads": None},
    "null head_dim": {"head_dim": None},
    "null window": {"sliding_window": None},
    "null softcaps": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    "null act": {"hidden_act": None},
    "null tie": {"tie_word_embeddings": None},
    "tie as text": {"tie_word_embeddings": "false"},
    "tie as number": {"tie_word_embeddings": 0},
    "bias as number": {"attention_bias": 1},
    "untied": {"tie_word_embeddings": False},
    "no bias": {"attention_bias": False},
    "a bias": {"attention_bias": True},
    "an MLP bias": {"mlp_bias": True},
    "not causal": {"is_causal": False},
    "both directions": {"use_bidirectional_attention": True},
    "one direction": {"use_bidirectional_attention": False},
    "window of nobody": {"sliding_window": 7},
    "sliding switched off": {"use_sliding_window": False},
    "sliding switched on": {"use_sliding_window": True},
    "another pattern": {"sliding_window_pattern": 3},
    "another first layer": {"max_window_layers": 2},
    "layer types": {"layer_types": ["sliding_attention", "full_attention", "full_attention"]},
    "all layers full": {"layer_types": ["full_attention"] * 3},
    "too few layer types": {"layer_types": ["full_attention"]},
    "another activation": {"hidden_act": "gelu_pytorch_tanh"},
    "another activation, Gemma's key": {"hidden_activation": "silu"},
    "scalar of nobody": {"query_pre_attn_scalar": 11},
    "softcaps of nobody": {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "local base of nobody": {"rope_local_base_freq": 77.0},
    "integer eps": {"rms_norm_eps": 1},
    "null eps": {"rms_norm_eps": None},
    "null theta": {"rope_theta": None},
    "integer theta": {"rope_theta": 700},
    "part of a head": {"partial_rotary_factor": 0.5},
    "whole heads": {"partial_rotary_factor": 1.0},
    "empty scaling": {"rope_scaling": {}},
    "linear": {"rope_scaling": _LINEAR},
    "linear in the older word": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "linear in both words": {"rope_scaling": {"type": "yarn", **_LINEAR}},
    "kind null": {"rope_scaling": {"rope_type": None, "type": "linear", "factor": 4.0}},
    "llama3": {"rope_scaling": _LLAMA3},
    "llama3 without its context": {"rope_scaling": {**_LLAMA3, "original_max_position_embeddings": _GONE}},
    "YaRN": {"rope_scaling": _YARN},
    "YaRN without its context": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    "YaRN, zero betas": {"rope_scaling": {**_YARN, "beta_fast": 0, "beta_slow": 0}},
    "YaRN, mscale": {"rope_scaling": {**_YARN, "mscale": 0.7, "mscale_all_dim": 1.2}},
    "YaRN, half of mscale": {"rope_scaling": {**_YARN, "mscale": 0.7, "mscale_all_dim": 0}},
    "YaRN, not truncated": {"rope_scaling": {**_YARN, "truncate": False}},
    "YaRN, attention factor": {"rope_scaling": {**_YARN, "attention_factor": 1.5}},
    "new spelling": {"rope_parameters": {"rope_type": "default", "rope_theta": 777.0}},
    "new spelling without theta": {"rope_parameters": {"rope_type": "default"}},
    "new spelling without kind": {"rope_parameters": {"rope_theta": 777.0}},
    "new spelling, linear": {"rope_parameters": {**_LINEAR, "rope_theta": 777.0}},
    "both spellings": {"rope_parameters": {"rope_type": "default"}, "rope_scaling": _LINEAR},
    "both spellings, two bases": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 777.0}, "rope_scaling": _LINEAR,
    },
    "both spellings, equal": {"rope_parameters": _LINEAR, "rope_scaling": _LINEAR},
    "by kinds": {
        "rope_parameters": {
            "full_attention": {**_LINEAR, "rope_theta": 777.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 55.0},
        }
    },
    "by kinds, one": {"rope_parameters": {"full_attention": {**_LINEAR, "rope_theta": 777.0}}},
    "by kinds, no base": {"rope_parameters": {"full_attention": _LINEAR}},
    "by kinds, null": {"rope_parameters": {"full_attention": _LINEAR, "sliding_attention": None}},
    "by kinds and scaled": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 777.0}},
        "rope_scaling": _LINEAR,
    },
}  # fmt: skip


def changed(family: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The base of a family with some keys set and some removed."""

    def without_gone(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: without_gone(item) for key, item in value.items() if item != _GONE}

    whole: dict[str, Any] = without_gone({**_BASE[family], **changes})
    return whole


def random_tensor(name: str, shape: torch.Size, generator: torch.Generator, is_gemma: bool) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    centre = 1.0 if "norm" in name and not is_gemma else 0.0
    return centre + noise * (0.2 if len(shape) == 1 else 0.15)


def their_model(raw: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = CONFIG_MAPPING[raw["model_type"]].from_dict(copy.deepcopy(raw))
        config._attn_implementation = "eager"
        model = AutoModelForCausalLM.from_config(config).float().eval()
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        is_gemma = raw["model_type"].startswith("gemma")
        parameter.data.copy_(random_tensor(name, parameter.shape, generator, is_gemma))
    return model


def compare(raw: dict[str, Any], num_tokens: int = 90) -> None:
    """Equal logits, or a refusal by us. Fails if transformers computes another number."""
    try:
        ours = Transformer(ModelConfig.from_json(raw), torch.float32)
    except (BadFile, Unsupported):
        return
    try:
        theirs = their_model(raw)
    except (StrictDataclassError, TypeError, KeyError, ValueError):
        return  # it refuses, in whatever way: there is no other number
    state = dict(theirs.state_dict())
    if ours.config.has_tied_head:
        del state["lm_head.weight"]
    tensors = ours.tensors()
    assert {name: tensor.shape for name, tensor in tensors.items()} == {n: t.shape for n, t in state.items()}
    for name, tensor in tensors.items():
        tensor.copy_(state[name])
    token_ids = some_ids(1, num_tokens)
    with torch.no_grad():
        expected, found = theirs(token_ids).logits, our_logits(ours, token_ids)
    assert expected.std() > 0.2
    assert (found - expected).abs().max() < 2e-4


def test_the_table_of_defaults_is_that_of_the_classes() -> None:
    for family, defaults in DEFAULTS.items():
        fields = {f.name: f.default for f in CONFIG_MAPPING[family].__dataclass_fields__.values()}
        extra = {"head_dim": None, "sliding_window_pattern": 6}  # read by the class, and no field of it
        assert defaults == {key: fields.get(key, extra.get(key)) for key in defaults}, family


_MISSING = [
    (family, key) for family in FAMILIES for key in _BASE[family] if key not in (*SIZES, "model_type")
]


@pytest.mark.parametrize(("family", "key"), [*_MISSING, *((family, "nothing") for family in FAMILIES)])
def test_a_missing_key_means_the_default_of_the_class(family: str, key: str) -> None:
    raw = changed(family, {key: _GONE})
    if key == "num_key_value_heads":
        raw["num_attention_heads"] = 32  # as many key heads as that have Qwen's classes
    assert ModelConfig.from_json(raw).family == family
    compare(raw)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_size_means_the_default_of_the_class(family: str) -> None:
    for key in SIZES:
        raw = changed(family, {key: _GONE})
        if key == "num_attention_heads":
            raw["num_key_value_heads"] = 4
        names = {"hidden_size": "width", "intermediate_size": "mlp_width", "num_hidden_layers": "num_layers",
                 "num_attention_heads": "num_heads", "vocab_size": "vocab_size"}  # fmt: skip
        theirs = CONFIG_MAPPING[family].from_dict(raw)
        assert getattr(ModelConfig.from_json(raw), names[key]) == getattr(theirs, key)


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text"])
def test_a_missing_window_is_that_of_the_class(family: str) -> None:
    """4,096 positions; where only one layer has it, the last positions alone feel it."""
    raw = changed(family, {"sliding_window": _GONE, "num_hidden_layers": 1, "num_attention_heads": 2})
    compare({**raw, "max_position_embeddings": 8192, "num_key_value_heads": 1}, num_tokens=4110)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_config_is_computed_as_transformers_does_or_refused(family: str, odd: str) -> None:
    compare(changed(family, ODD[odd]))


# What must load, so that refusing everything would not pass.
_LOADS = {
    "llama": ("null heads", "null head_dim", "null window", "untied", "no bias", "linear", "llama3", "YaRN",
              "new spelling", "both spellings, equal", "whole heads", "window of nobody", "all layers full"),
    "mistral": ("null window", "linear", "no bias", "sliding switched on"),
    "qwen2": ("null window", "sliding switched off", "another first layer", "layer types", "YaRN", "a bias"),
    "qwen3": ("sliding switched off", "YaRN", "new spelling without theta", "a bias", "all layers full"),
    "gemma2": ("null softcaps", "one direction", "layer types", "another activation", "untied"),
    "gemma3_text": ("null softcaps", "linear", "by kinds", "by kinds, one", "by kinds, no base",
                    "by kinds and scaled", "by kinds, null", "another pattern", "local base of nobody"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "odd"), [(family, odd) for family, odds in _LOADS.items() for odd in odds]
)
def test_what_the_class_knows_is_not_refused(family: str, odd: str) -> None:
    if odd != "sliding switched on" or family != "mistral":
        ModelConfig.from_json(changed(family, ODD[odd]))
