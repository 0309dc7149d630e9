"""The families of decoders: which keys of config.json each one has, and what a missing key means.

A missing key means the default of the family's class in transformers 5, which need not be "off". Leaves out
what the values mean (`config.py`, `rope.py`). `tests/model/test_families.py` compares this table with the
classes themselves.
"""

from collections.abc import Mapping
from typing import Any

from groschen.errors import BadFile, Unsupported
from groschen.model.values import shown

Raw = Mapping[str, Any]

_SIZES: dict[str, Any] = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}  # fmt: skip
_QWEN: dict[str, Any] = {
    **_SIZES, "vocab_size": 151_936, "intermediate_size": 22_016, "num_key_value_heads": 32,
    "max_position_embeddings": 32_768, "hidden_act": "silu", "use_sliding_window": False,
    "sliding_window": 4096, "max_window_layers": 28, "layer_types": None,
}  # fmt: skip
_GEMMA: dict[str, Any] = {
    **_SIZES, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "query_pre_attn_scalar": 256,
    "sliding_window": 4096, "layer_types": None,
}  # fmt: skip

DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {
        **_SIZES, "vocab_size": 32_000, "intermediate_size": 11_008, "num_key_value_heads": None,
        "head_dim": None, "max_position_embeddings": 2048, "hidden_act": "silu", "attention_bias": False,
        "mlp_bias": False,
    },
    "mistral": {
        **_SIZES, "vocab_size": 32_000, "intermediate_size": 14_336, "num_key_value_heads": 8,
        "head_dim": None, "max_position_embeddings": 131_072, "hidden_act": "silu", "sliding_window": 4096,
    },
    "qwen2": {**_QWEN, "head_dim": None},
    "qwen3": {**_QWEN, "head_dim": 128, "attention_bias": False},
    "gemma2": {
        **_GEMMA, "vocab_size": 256_000, "max_position_embeddings": 8192, "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0, "use_bidirectional_attention": None,
    },
    "gemma3_text": {
        **_GEMMA, "vocab_size": 262_208, "max_position_embeddings": 131_072, "sliding_window_pattern": 6,
        "final_logit_softcapping": None, "attn_logit_softcapping": None, "use_bidirectional_attention": False,
    },
}  # fmt: skip
FAMILIES = tuple(DEFAULTS)

# Read of every family, without a default here: a rope key means something with its neighbours only, and of
# the token ids those of the tokenizer stand in.
_READ = frozenset(
    "model_type rope_theta rope_scaling rope_parameters bos_token_id eos_token_id pad_token_id".split()
)
# Never change what a forward pass in evaluation computes, whatever their value: training, generation and
# bookkeeping, and of the published files what transformers does not read.
_HARMLESS = frozenset(
    "architectures transformers_version use_cache initializer_range attention_dropout pretraining_tp "
    "cache_implementation torch_dtype dtype id2label label2id num_labels problem_type is_decoder "
    "output_attentions output_hidden_states return_dict chunk_size_feed_forward cross_attention_hidden_size "
    "task_specific_params finetuning_task tokenizer_class prefix decoder_start_token_id sep_token_id "
    "begin_suppress_tokens suppress_tokens min_length max_length do_sample temperature top_k top_p typical_p "
    "repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids "
    "num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id "
    "remove_invalid_values exponential_decay_length_penalty num_beams num_beam_groups diversity_penalty "
    "early_stopping torchscript tf_legacy_loss use_bfloat16 mlp_dropout hidden_dropout embedding_dropout "
    "hidden_dropout_prob attention_probs_dropout_prob resid_pdrop embd_pdrop attn_pdrop classifier_dropout "
    "is_llama_config transformers.js_config unsloth_fixed unsloth_version auto_map name_or_path "
    "sliding_window_size attn_implementation use_flash_attention use_flash_attn max_sequence_length "
    "model_max_length tokenizer_model_max_length tokenizer_padding_side gradient_checkpointing "
    "neftune_noise_alpha router_aux_loss_coef output_router_logits".split()
)
# Say nothing with these values, and would change the computation with others.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "is_causal": (True,), "is_encoder_decoder": (False,), "add_cross_attention": (False,),
    "pruned_heads": ({},), "partial_rotary_factor": (1.0,), "use_bidirectional_attention": (False,),
    "rope_interleaved": (False,), "use_mrope": (False,), "use_sliding_window": (False,), "num_experts": (0,),
    "num_local_experts": (0, 1), "attention_bias": (False,), "mlp_bias": (False,), "use_qk_norm": (False,),
    "qk_layernorm": (False,), "use_logn_attn": (False,), "use_dynamic_ntk": (False,),
}  # fmt: skip
# What a family's class does not read though published files of it have the key.
_IGNORED: dict[str, frozenset[str]] = {
    "llama": frozenset({"sliding_window", "max_window_layers"}),
    "mistral": frozenset({"max_window_layers"}),
    "qwen2": frozenset({"attention_bias"}),  # queries, keys and values always have one, the output never
    "qwen3": frozenset(),
    "gemma2": frozenset({"hidden_act"}),
    "gemma3_text": frozenset({"hidden_act"}),
}


def family_of(raw: Raw) -> str:
    """The family of a config.json. Raises Unsupported for another one."""
    if "text_config" in raw and raw.get("model_type") == "gemma3":
        raise Unsupported(
            "this checkpoint is a Gemma 3 with images (model_type 'gemma3'); only text decoders are "
            "read: use a checkpoint with model_type 'gemma3_text'"
        )
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in DEFAULTS:
        raise Unsupported(f"model_type {shown(family)} is not supported; supported are {', '.join(FAMILIES)}")
    return family


def completed(raw: Raw) -> dict[str, Any]:
    """The config with every key that is missing at the default of its family's class.

    A key that is null stays null. Raises Unsupported for a family, or a key that may change the computation
    and is not known, by name.
    """
    family = family_of(raw)
    for key, value in raw.items():
        if value is None or _is_known(family, key, value):
            continue
        raise Unsupported(
            f"config.json has {key[:80]!r} = {shown(value)}, which is not known of {family} and may change "
            "what the model computes; remove the key if you know that it does not"
        )
    return {**DEFAULTS[family], **raw}


def _is_known(family: str, key: str, value: object) -> bool:
    if key in _READ or key in _HARMLESS or key in _IGNORED[family] or key in DEFAULTS[family]:
        is_not_built = key == "use_bidirectional_attention" and value is not False
        # Gemma 3's class has the key and its attention never reads it.
        is_ignored = key == "attn_logit_softcapping" and family == "gemma3_text"
        return not (is_not_built or is_ignored)
    if key == "rope_local_base_freq" or key.startswith("_"):
        return key.startswith("_") or family == "gemma3_text"
    if key == "sliding_window_pattern" and family == "gemma2":
        return value == 2  # its class knows no other
    if key == "layer_types":
        return _is_plain_layer_types(family, value)
    return any(value == neutral and type(value) in (type(neutral), int) for neutral in _NEUTRAL.get(key, ()))


def _is_plain_layer_types(family: str, value: object) -> bool:
    """Llama's and Mistral's classes ignore the key: only what they compute anyway says nothing."""
    if not isinstance(value, list):
        raise BadFile(f"config.json: 'layer_types' must be a list, found {shown(value)}")
    kind = "full_attention" if family == "llama" else "sliding_attention"
    return all(item == kind for item in value)
