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
    "changes", [{"use_cache": True}, {"_name_or_path": "x"}, {"unknown_but_null": None}, {"torch_dtype": "x"}]
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
        {"model_type": "qwen2", "layer_types": ["full_attention"]},
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


# The keys of published config.json files, by the model's name; the sizes of the large ones stand in full.
_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "use_cache": True,
}
_LLAMA_ROPE = {
    "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}  # fmt: skip
_QWEN = {"model_type": "qwen2", "hidden_act": "silu", "use_cache": True, "attention_dropout": 0.0}
_GEMMA = {"attention_bias": False, "attention_dropout": 0.0, "hidden_activation": "gelu_pytorch_tanh"}
OFFICIAL: dict[str, dict[str, Any]] = {
    "Llama-2-7b": {
        **_LLAMA, "_name_or_path": "meta-llama/Llama-2-7b-hf", "bos_token_id": 1, "eos_token_id": 2,
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008,
        "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None,
        "tie_word_embeddings": False, "torch_dtype": "float16", "vocab_size": 32000,
    },
    "llama-7b of the first release": {
        **_LLAMA, "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 4096, "intermediate_size": 11008,
        "initializer_range": 0.02, "max_sequence_length": 2048, "num_attention_heads": 32, "pad_token_id": -1,
        "num_hidden_layers": 32, "rms_norm_eps": 1e-06, "tie_word_embeddings": False, "vocab_size": 32000,
    },
    "Llama-3.2-1B-Instruct": {
        **_LLAMA, "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_size": 2048,
        "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": False,
        "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": {**_LLAMA_ROPE, "factor": 32.0}, "rope_theta": 500000.0,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "vocab_size": 128256,
    },
    "SmolLM2-135M": {
        **_LLAMA, "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 0,
        "hidden_size": 576, "initializer_range": 0.041666666666666664, "intermediate_size": 1536,
        "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False, "num_attention_heads": 9,
        "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000, "tie_word_embeddings": True,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "vocab_size": 49152,
    },
    "Mistral-7B-v0.1": {
        "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
        "sliding_window": 4096, "tie_word_embeddings": False, "vocab_size": 32000,
    },
    "Mistral-Nemo-Instruct-2407": {
        "model_type": "mistral", "attention_dropout": 0.0, "head_dim": 128, "hidden_size": 5120,
        "hidden_act": "silu", "intermediate_size": 14336, "max_position_embeddings": 131072,
        "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0, "sliding_window": None, "tie_word_embeddings": False, "vocab_size": 131072,
    },
    "Qwen2-0.5B": {
        **_QWEN, "bos_token_id": 151643, "eos_token_id": 151643, "hidden_size": 896,
        "intermediate_size": 4864, "max_position_embeddings": 131072, "max_window_layers": 24,
        "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 131072, "tie_word_embeddings": True, "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "Qwen2.5-7B": {
        **_QWEN, "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 131072,
        "max_window_layers": 28, "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072, "use_mrope": False,
        "use_sliding_window": False, "tie_word_embeddings": False, "vocab_size": 152064,
    },
    "Qwen3-0.6B": {
        "model_type": "qwen3", "attention_bias": False, "attention_dropout": 0.0, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "max_window_layers": 28, "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True, "use_cache": True, "use_sliding_window": False, "vocab_size": 151936,
    },
    "gemma-2-2b-it": {
        **_GEMMA, "model_type": "gemma2", "attn_logit_softcapping": 50.0, "bos_token_id": 2,
        "cache_implementation": "hybrid", "eos_token_id": [1, 107], "final_logit_softcapping": 30.0,
        "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 2304, "intermediate_size": 9216,
        "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 26,
        "num_key_value_heads": 4, "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0, "sliding_window": 4096, "sliding_window_size": 4096, "use_cache": True,
        "vocab_size": 256000,
    },
    "gemma-3-270m-it": {
        **_GEMMA, "model_type": "gemma3_text", "_sliding_window_pattern": 6, "attn_logit_softcapping": None,
        "bos_token_id": 2, "eos_token_id": 1, "final_logit_softcapping": None, "head_dim": 256,
        "hidden_size": 640, "intermediate_size": 2048, "layer_types": (["sliding_attention"] * 5
        + ["full_attention"]) * 3, "max_position_embeddings": 32768, "num_attention_heads": 4,
        "num_hidden_layers": 18, "num_key_value_heads": 1, "pad_token_id": 0, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000.0, "rope_scaling": None,
        "rope_theta": 1000000.0, "sliding_window": 512, "use_bidirectional_attention": False,
        "use_cache": True, "vocab_size": 262144,
    },
    "gemma-3-1b-it": {
        **_GEMMA, "model_type": "gemma3_text", "bos_token_id": 2, "cache_implementation": "hybrid",
        "eos_token_id": [1, 106], "head_dim": 256, "hidden_size": 1152, "intermediate_size": 6912,
        "max_position_embeddings": 32768, "num_attention_heads": 4, "num_hidden_layers": 26,
        "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512,
        "sliding_window_pattern": 6, "use_cache": True, "vocab_size": 262144,
    },
}  # fmt: skip


@pytest.mark.parametrize("model", OFFICIAL)
def test_the_keys_of_published_files_load(model: str) -> None:
    config = ModelConfig.from_json(
        {"transformers_version": "4.40.0", "attn_implementation": "sdpa", **OFFICIAL[model]}
    )
    sliding = {"Mistral-7B-v0.1": 32, "gemma-2-2b-it": 13, "gemma-3-270m-it": 15, "gemma-3-1b-it": 22}
    assert sum(layer.window is not None for layer in config.layers) == sliding.get(model, 0)
    assert config.max_context == OFFICIAL[model].get("max_position_embeddings", 2048)


@pytest.mark.parametrize(
    ("family", "scaling", "context"),
    [
        ("qwen3", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, 256),
        ("qwen3", {"rope_type": "yarn", "factor": 4.0}, 256),
        ("qwen3", {"rope_type": "yarn", "factor": 1.5, "original_max_position_embeddings": 32}, 64),
        ("llama", {"rope_type": "linear", "factor": 2.0}, 128),
        ("llama", {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 32}, 64),
        ("gemma3", {"rope_type": "linear", "factor": 8.0}, 64),
    ],
)  # fmt: skip
def test_what_the_scaling_stretches_is_the_context(
    family: str, scaling: dict[str, Any], context: int
) -> None:
    config = read(family, max_position_embeddings=64, rope_scaling=scaling)
    assert config.max_context == context


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("tie_word_embeddings", ["false", 0, None, []]),
        ("rms_norm_eps", [0, -1e-6, 2, True, "1e-6", None, 10**4000]),
        ("rope_theta", [{}, 0, -5, "1e4", True, 10**4000, 1e300]),
        ("vocab_size", [2**31, 2**64, 320.0, True, -1, "320", [320], 10**4000]),
        ("hidden_size", [2**31, 0]),
        ("intermediate_size", [2**31, 1.5]),
        ("num_hidden_layers", [1025, 2**40]),
        ("head_dim", [0, -2, 2**31, "16"]),
        ("max_position_embeddings", [0, 2**40, 1e4]),
        ("layer_types", ["full_attention", {"0": "full_attention"}, [1, 2, 3], [["full_attention"]] * 3]),
        ("rope_scaling", ["yarn", [], 3, {"rope_type": ["yarn"]}, {"rope_type": "linear", "factor": -2}]),
        ("rope_scaling", [{"rope_type": "yarn", "factor": 1e6}, {"rope_type": "linear", "factor": "4"}]),
        ("eos_token_id", ["x", 1.5, True, [1, None], {"a": 1}]),
        ("is_causal", [False, 0, ""]),
        ("hidden_act", [7, ["silu"], ""]),
        ("attention_bias", ["yes", 1]),
        ("unheard_of", [False, 0, "", [], {}]),
        ("model_type", [5, None, ["llama"], "x" * 5000]),
        ("a" * 5000, [1]),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_one_short_sentence(key: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises((BadFile, Unsupported)) as refusal:
            read("qwen3", **{key: value})
        assert "\n" not in str(refusal.value)
        assert len(str(refusal.value)) < 400


@pytest.mark.parametrize("key", ["attn_logit_softcapping", "final_logit_softcapping"])
@pytest.mark.parametrize("value", [-1.0, 0, "30", True])
def test_a_cap_that_caps_nothing_is_refused(key: str, value: Any) -> None:
    with pytest.raises(BadFile, match=key):
        read("gemma2", **{key: value})


def test_ids_of_ends_outside_of_the_vocabulary_are_left_out() -> None:
    config = read("llama", eos_token_id=[-1, 2, 320, 10**300], bos_token_id=-1)
    assert (config.eos_ids, config.bos_id) == ((2,), None)
