"""What a checkpoint's config.json asks of the decoder, or a refusal that names the key.

Reads Llama 3.x (SmolLM too), Mistral, Qwen2/2.5, Qwen3 (dense), Gemma 2 and Gemma 3 (text), with RoPE either
as `rope_theta` and `rope_scaling` or as `rope_parameters`. Seams for what is not built: attention kinds (MLA,
sinks) would be a field of `LayerConfig`, a mixture of experts one beside `mlp_width`. Keys as transformers 5
writes and reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from groschen.errors import BadFile, Unsupported
from groschen.model.rope import RopeConfig, read_rope

Raw = Mapping[str, Any]

# What a family means where its config.json does not say so: (normal form, default of attention_bias)
_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")
_MOST_LAYERS = 1024
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_READ = frozenset(
    "model_type architectures vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "num_key_value_heads head_dim max_position_embeddings rms_norm_eps hidden_act hidden_activation "
    "attention_bias mlp_bias tie_word_embeddings rope_theta rope_scaling rope_parameters "
    "rope_local_base_freq sliding_window use_sliding_window max_window_layers layer_types "
    "sliding_window_pattern query_pre_attn_scalar attn_logit_softcapping final_logit_softcapping "
    "bos_token_id eos_token_id pad_token_id torch_dtype dtype partial_rotary_factor "
    "use_bidirectional_attention quantization_config num_experts num_local_experts".split()
)
# Keys that never change what a forward pass in evaluation computes: training, generation and bookkeeping.
_HARMLESS = frozenset(
    "transformers_version use_cache initializer_range attention_dropout pretraining_tp cache_implementation "
    "id2label label2id num_labels problem_type is_decoder is_encoder_decoder add_cross_attention "
    "output_attentions output_hidden_states return_dict chunk_size_feed_forward cross_attention_hidden_size "
    "task_specific_params finetuning_task tokenizer_class prefix decoder_start_token_id sep_token_id "
    "begin_suppress_tokens suppress_tokens min_length max_length do_sample temperature top_k top_p typical_p "
    "repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids "
    "num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id "
    "remove_invalid_values exponential_decay_length_penalty num_beams num_beam_groups diversity_penalty "
    "early_stopping pruned_heads torchscript tf_legacy_loss use_bfloat16 mlp_dropout hidden_dropout "
    "embedding_dropout is_llama_config "
    "rope_interleaved transformers.js_config unsloth_fixed unsloth_version auto_map name_or_path".split()
)


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """What varies from layer to layer."""

    window: int | None  # positions that a query sees, its own included; None: all
    rope: RopeConfig


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One decoder. Widths in numbers, ids in tokens."""

    family: str  # model_type of config.json
    vocab_size: int
    width: int  # D
    mlp_width: int  # F
    num_heads: int  # H
    num_kv_heads: int  # K
    head_width: int  # E
    max_context: int  # positions
    norm_eps: float
    norm_offset: float  # 1: the norm multiplies by 1 + weight (Gemma)
    has_sandwich_norms: (
        bool  # a norm after attention and after the MLP as well, before the residual is added (Gemma)
    )
    has_qk_norm: bool  # queries and keys are normed by head before RoPE
    has_qkv_bias: bool
    has_output_bias: bool
    has_mlp_bias: bool
    activation: str  # "silu" or "gelu_tanh"
    attention_scale: float
    attention_softcap: float | None
    logits_softcap: float | None
    embedding_scale: float | None  # rounded to the type of the weights before it multiplies
    has_tied_head: bool
    layers: tuple[LayerConfig, ...]
    bos_id: int | None
    eos_ids: tuple[int, ...]
    raw: Raw = field(repr=False, compare=False)  # config.json as read; written back unchanged

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(self.layers)

    @classmethod
    def from_json(cls, raw: Raw) -> "ModelConfig":
        """Read the content of config.json.

        Raises Unsupported for an architecture or a key that changes the computation and is not honoured,
        BadFile for a key that is missing or contradicts another.
        """
        if "text_config" in raw and raw.get("model_type") == "gemma3":
            raise Unsupported(
                "this checkpoint is a Gemma 3 with images (model_type 'gemma3'); only text decoders are "
                "read: use a checkpoint with model_type 'gemma3_text'"
            )
        family = str(raw.get("model_type"))
        if family not in _FAMILIES:
            raise Unsupported(f"model_type {family!r} is not supported; supported are {', '.join(_FAMILIES)}")
        _refuse_unknown_keys(raw)
        is_gemma = family.startswith("gemma")
        num_heads, width = _count(raw, "num_attention_heads"), _count(raw, "hidden_size")
        kv_heads = _count(raw, "num_key_value_heads", num_heads)
        head_width = _count(raw, "head_dim", 256 if is_gemma else width // num_heads)
        if head_width % 2:
            raise BadFile(f"config.json: heads of {head_width} numbers have no two halves for RoPE to rotate")
        if num_heads % kv_heads:
            raise BadFile(
                f"config.json: {num_heads} attention heads cannot share {kv_heads} key/value heads evenly"
            )
        bias = bool(raw.get("attention_bias", False))
        scale_base = float(raw.get("query_pre_attn_scalar", 256)) if is_gemma else float(head_width)
        return cls(
            family=family,
            vocab_size=_count(raw, "vocab_size"),
            width=width,
            mlp_width=_count(raw, "intermediate_size"),
            num_heads=num_heads,
            num_kv_heads=kv_heads,
            head_width=head_width,
            max_context=_count(raw, "max_position_embeddings"),
            norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            norm_offset=1.0 if is_gemma else 0.0,
            has_sandwich_norms=is_gemma,
            has_qk_norm=family in ("qwen3", "gemma3_text"),
            has_qkv_bias=True if family == "qwen2" else bias,
            has_output_bias=False if family in ("qwen2", "mistral") else bias,
            has_mlp_bias=bool(raw.get("mlp_bias", False)),
            activation=_activation(raw, is_gemma),
            attention_scale=scale_base**-0.5,
            attention_softcap=_number_or_none(raw, "attn_logit_softcapping"),
            logits_softcap=_number_or_none(raw, "final_logit_softcapping"),
            embedding_scale=width**0.5 if is_gemma else None,
            has_tied_head=bool(raw.get("tie_word_embeddings", is_gemma)),
            layers=_read_layers(raw, family, head_width),
            bos_id=raw.get("bos_token_id"),
            eos_ids=_ids(raw.get("eos_token_id")),
            raw=dict(raw),
        )


def _refuse_unknown_keys(raw: Raw) -> None:
    for key, value in raw.items():
        if key in _READ or key in _HARMLESS or key.startswith("_") or not value:
            continue
        raise Unsupported(
            f"config.json has {key!r} = {value!r}, which is not known here and may change what the model "
            "computes; remove the key if you know that it does not"
        )
    for key in ("quantization_config", "num_experts", "num_local_experts", "use_bidirectional_attention"):
        if raw.get(key):
            raise Unsupported(f"config.json has {key!r} = {raw[key]!r}, which is not honoured here")
    if raw.get("partial_rotary_factor", 1.0) not in (1.0, None):
        raise Unsupported("config.json has 'partial_rotary_factor', and only whole heads are rotated here")


def _count(raw: Raw, key: str, default: int | None = None) -> int:
    value = raw.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadFile(f"config.json: {key!r} must be a positive whole number, found {value!r}")
    return value


def check_depth(num_layers: int, where: str) -> None:
    """Raises BadFile for more layers than any model has, before a list of so many is made."""
    if num_layers > _MOST_LAYERS:
        raise BadFile(f"{where} is {num_layers:,}, expected at most {_MOST_LAYERS:,}; get the file again")


def _number_or_none(raw: Raw, key: str) -> float | None:
    return None if raw.get(key) is None else float(raw[key])


def _ids(value: int | list[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def _activation(raw: Raw, is_gemma: bool) -> str:
    name = raw.get("hidden_activation") or (None if is_gemma else raw.get("hidden_act"))
    name = name or ("gelu_pytorch_tanh" if is_gemma else "silu")
    if name not in _ACTIVATIONS:
        raise Unsupported(f"activation {name!r} is not supported; supported are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _read_layers(raw: Raw, family: str, head_width: int) -> tuple[LayerConfig, ...]:
    kinds = _layer_kinds(raw, family)
    window = raw.get("sliding_window")
    if "sliding_attention" in kinds and not (isinstance(window, int) and window > 0):
        raise BadFile(
            f"config.json: layers with sliding attention need a positive 'sliding_window', found {window!r}"
        )
    ropes = {kind: read_rope(raw, kind, family, head_width) for kind in set(kinds)}
    return tuple(LayerConfig(window if kind == "sliding_attention" else None, ropes[kind]) for kind in kinds)


def _layer_kinds(raw: Raw, family: str) -> list[str]:
    """`layer_types`, or what the family meant before that key existed."""
    count = _count(raw, "num_hidden_layers")
    check_depth(count, "config.json: 'num_hidden_layers'")
    kinds = raw.get("layer_types")
    if kinds is None:
        kinds = [_kind_by_rule(raw, family, index) for index in range(count)]
    if len(kinds) != count:
        raise BadFile(f"config.json: 'layer_types' names {len(kinds)} layers, 'num_hidden_layers' is {count}")
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise Unsupported(f"config.json: layer type {kind!r} is not supported")
    return list(kinds)


def _kind_by_rule(raw: Raw, family: str, index: int) -> str:
    window, is_sliding = raw.get("sliding_window"), False
    if family == "mistral":
        is_sliding = window is not None
    elif family in ("qwen2", "qwen3"):
        is_sliding = (
            bool(raw.get("use_sliding_window"))
            and window is not None
            and index >= raw.get("max_window_layers", 28)
        )
    elif family in ("gemma2", "gemma3_text"):
        pattern = raw.get("sliding_window_pattern") or (2 if family == "gemma2" else 6)
        is_sliding = (index + 1) % pattern != 0
    return "sliding_attention" if is_sliding else "full_attention"
