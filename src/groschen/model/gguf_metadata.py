"""Say a Hugging Face config.json in a GGUF file's metadata.

Leaves out tensors, the tokenizer and the other direction (`gguf_config.py`). A config that llama.cpp would
compute differently is refused by name, because a file that loads and answers wrongly is worse than none.
Sources: gguf-py's constants.py and llama.cpp's load_arch_hparams of each architecture (facts).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from groschen.errors import Unsupported
from groschen.model.config import ModelConfig
from groschen.model.families import completed
from groschen.model.gguf_config import PLAIN_KEYS, SLIDING_PERIOD, layer_types, query_scalar
from groschen.model.gguf_format import MetadataValue
from groschen.model.gguf_names import ARCHITECTURES, Architecture
from groschen.model.gguf_rope import Rope, rope_of_config
from groschen.model.gguf_writer import integer, real, text


def metadata_of_config(config: Mapping[str, Any]) -> tuple[Architecture, dict[str, MetadataValue], Rope]:
    """Architecture, metadata and rotary settings for a config.json.

    Raises Unsupported where llama.cpp would compute something else, and as `ModelConfig.from_json` does.
    """
    architecture = _architecture_for(config)
    whole = completed(config)
    _refuse_missing_caps(whole, architecture)
    windows = [layer.window for layer in ModelConfig.from_json(config).layers if layer.window is not None]
    config = {key: item for key, item in whole.items() if item is not None}
    local_theta = 10_000.0 if architecture.name == "gemma3" else None
    rope = rope_of_config(config, 10_000.0 if local_theta is None else 1_000_000.0, local_theta)
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    _refuse_what_llama_cpp_computes_differently(config, architecture, windows)
    prefix = architecture.name
    fields = {f"{prefix}.{key}": integer(config[name]) for key, name in PLAIN_KEYS.items()}
    fields |= {
        f"{prefix}.vocab_size": integer(config["vocab_size"]),
        f"{prefix}.attention.key_length": integer(config["head_dim"]),
        f"{prefix}.attention.value_length": integer(config["head_dim"]),
        f"{prefix}.rope.dimension_count": integer(config["head_dim"]),
        f"{prefix}.attention.layer_norm_rms_epsilon": real(config["rms_norm_eps"]),
        f"{prefix}.rope.freq_base": real(rope.theta),
    }
    fields |= {f"{prefix}.{key}": item for key, item in _scaling_fields(rope).items()}
    if prefix in SLIDING_PERIOD:
        fields |= {f"{prefix}.{key}": item for key, item in _gemma_fields(config, prefix, rope).items()}
    return architecture, fields, rope


def _architecture_for(config: Mapping[str, Any]) -> Architecture:
    model_type = config.get("model_type")
    for architecture in ARCHITECTURES.values():
        if model_type in architecture.model_types:
            return architecture
    known = ", ".join(kind for architecture in ARCHITECTURES.values() for kind in architecture.model_types)
    raise Unsupported(f"models of type '{model_type}' are not written as GGUF; written are: {known}")


def _refuse_what_llama_cpp_computes_differently(
    config: Mapping[str, Any], architecture: Architecture, windows: Sequence[int]
) -> None:
    is_gemma = architecture.name in SLIDING_PERIOD
    activation = (
        config.get("hidden_activation")
        or config.get("hidden_act")
        or ("gelu_pytorch_tanh" if is_gemma else "silu")
    )
    if activation != ("gelu_pytorch_tanh" if is_gemma else "silu"):
        raise Unsupported(f"hidden_act '{activation}' cannot be said in GGUF for {architecture.name}")
    if is_gemma:
        scalar = config.get("query_pre_attn_scalar", 256)
        if scalar != query_scalar(architecture.name, config):
            raise Unsupported(
                f"query_pre_attn_scalar {scalar} cannot be said in GGUF for {architecture.name}"
            )
        return
    if windows and windows[0] < config["max_position_embeddings"]:
        raise Unsupported(
            f"llama.cpp has no sliding window for {architecture.name}; to export anyway, set sliding_window "
            f"to null, or max_position_embeddings to {windows[0]}, where both are the same"
        )


def _refuse_missing_caps(config: Mapping[str, Any], architecture: Architecture) -> None:
    """Gemma 2 without a cap, or Gemma 3 with one, is not what llama.cpp computes."""
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        expected_null = architecture.name != "gemma2"
        if key in config and (config[key] is None) != expected_null:
            raise Unsupported(f"'{key}' = {config[key]} cannot be said in GGUF for {architecture.name}")


def _scaling_fields(rope: Rope) -> dict[str, MetadataValue]:
    kind = rope.kind
    if kind in ("default", "llama3"):  # llama3's is a tensor
        return {}
    if kind not in ("linear", "yarn"):
        raise Unsupported(f"rope scaling '{kind}' cannot be said in GGUF")
    spoken = {"rope_type", "factor", "original_max_position_embeddings", "beta_fast", "beta_slow"}
    silent = sorted(key for key, item in rope.scaling.items() if key not in spoken and item is not None)
    if silent:
        raise Unsupported(f"the rope scaling key '{silent[0]}' cannot be said in GGUF")
    fields = {"rope.scaling.type": text(kind), "rope.scaling.factor": real(rope.setting("factor"))}
    if kind == "yarn":
        fields["rope.scaling.original_context_length"] = integer(
            rope.scaling["original_max_position_embeddings"]
        )
        for name in ("beta_fast", "beta_slow"):
            if rope.scaling.get(name) is not None:
                fields[f"rope.scaling.yarn_{name}"] = real(rope.scaling[name])
    return fields


def _gemma_fields(config: Mapping[str, Any], name: str, rope: Rope) -> dict[str, MetadataValue]:
    fields = {"attention.sliding_window": integer(config["sliding_window"])}
    period = (
        SLIDING_PERIOD[name]
        if name == "gemma2"
        else config.get("sliding_window_pattern", SLIDING_PERIOD[name])
    )
    types = list(config.get("layer_types") or layer_types(config["num_hidden_layers"], period))
    if "full_attention" in types:
        period = types.index("full_attention") + 1
    elif len(types) >= period:
        period = len(types) + 1
    if types != layer_types(len(types), period):
        raise Unsupported(
            "layer_types that do not repeat evenly cannot be said in GGUF; export a safetensors folder"
        )
    if period != SLIDING_PERIOD[name]:
        fields["attention.sliding_window_pattern"] = integer(period)
    if rope.local_theta is not None:
        fields["rope.freq_base_swa"] = real(rope.local_theta)
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if config.get(key) is not None:
            fields[key] = real(config[key])
    return fields
