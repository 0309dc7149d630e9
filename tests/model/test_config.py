"""config.json: both spellings are read, and what would change the computation unseen is refused by name."""

from typing import Any

import pytest
from tests.tiny import FAMILIES

from groschen.errors import BadFile, GroschenError, Unsupported
from groschen.model.config import ModelConfig


def read(family: str, **changes: Any) -> ModelConfig:
    return ModelConfig.from_json({**FAMILIES[family], **changes})


def test_the_old_and_the_new_spelling_of_rope_mean_the_same() -> None:
    old = read("llama", rope_theta=5e5)
    raw = {key: value for key, value in FAMILIES["llama"].items() if not key.startswith("rope")}
    new = ModelConfig.from_json(
        {**raw, "rope_parameters": {**FAMILIES["llama"]["rope_scaling"], "rope_theta": 5e5}}
    )
    assert old.layers == new.layers
    assert old.layers[0].rope.kind == "llama3"


def test_both_spellings_of_gemma_3_give_local_and_global_layers_their_own_rope() -> None:
    scaling = {"rope_type": "linear", "factor": 8.0}
    old = read("gemma3", rope_theta=1e6, rope_local_base_freq=1e4, rope_scaling=scaling)
    each = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {**scaling, "rope_theta": 1e6},
    }
    new = read("gemma3", rope_parameters=each)
    assert old.layers == new.layers
    assert [(layer.window, layer.rope.theta) for layer in old.layers] == [(20, 1e4), (None, 1e6), (20, 1e4)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rotary_emb_base_magic", 7),
        ("num_local_experts", 8),
        ("quantization_config", {"quant_method": "gptq"}),
        ("partial_rotary_factor", 0.5),
        ("hidden_act", "relu2"),
        ("rope_scaling", {"rope_type": "longrope", "factor": 4.0}),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0, "new_trick": 1}),
        ("layer_types", ["full_attention", "linear_attention", "full_attention"]),
    ],
)
def test_a_key_that_changes_the_computation_and_is_not_known_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(Unsupported) as refusal:
        read("llama", **{key: value})
    named = {"hidden_act": "relu2", "rope_scaling": "longrope", "layer_types": "linear_attention"}.get(
        key, key
    )
    assert named in str(refusal.value) or "new_trick" in str(refusal.value)


@pytest.mark.parametrize(
    "changes", [{"use_cache": True}, {"_name_or_path": "x"}, {"unknown_but_off": False}, {"torch_dtype": "x"}]
)
def test_keys_that_change_nothing_are_accepted(changes: dict[str, Any]) -> None:
    assert read("qwen2", **changes) == read("qwen2")


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "mamba"},
        {"hidden_size": None},
        {"num_attention_heads": 5},
        {"head_dim": 15},
        {"num_hidden_layers": 4_000_000_000},
        {"sliding_window": 0, "model_type": "mistral", "layer_types": ["sliding_attention"] * 3},
        {"layer_types": ["full_attention"]},
        {"rope_scaling": {"rope_type": "linear"}},
    ],
)
def test_a_broken_config_is_one_sentence(changes: dict[str, Any]) -> None:
    with pytest.raises((BadFile, Unsupported)) as failure:
        read("llama", **changes)
    assert isinstance(failure.value, GroschenError)
    assert "\n" not in str(failure.value)


def test_a_gemma_3_with_images_says_what_to_use() -> None:
    with pytest.raises(Unsupported, match="gemma3_text"):
        ModelConfig.from_json({"model_type": "gemma3", "text_config": {}})
