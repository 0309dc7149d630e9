"""What a checkpoint's config.json asks of the decoder, or a refusal that names the key.

Reads Llama 3.x (SmolLM too), Mistral, Qwen2/2.5, Qwen3 (dense), Gemma 2 and Gemma 3 (text), with RoPE either
as `rope_theta` and `rope_scaling` or as `rope_parameters`. `families.py` says which keys there are and what a
missing one means. Seams for what is not built: attention kinds (MLA, sinks) would be a field of
`LayerConfig`, a mixture of experts one beside `mlp_width`.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from groschen.errors import BadFile, Unsupported
from groschen.model.families import completed, family_of
from groschen.model.rope import RopeConfig, read_rope
from groschen.model.values import Raw, flag, ids, real, shown, whole

# Beyond every model that there is; they bound what a damaged file makes this program ask of the machine.
_MOST_LAYERS, _MOST_HEADS = 1024, 1 << 12
_MOST_NUMBERS = 1 << 24  # of a width, or of the vocabulary
_MOST_POSITIONS = 1 << 28
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_KINDS = ("full_attention", "sliding_attention")


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
        BadFile for a value of the wrong type or range, or one that contradicts another.
        """
        family = family_of(raw)
        config = completed(raw)
        is_gemma = family.startswith("gemma")
        width, heads = whole(config, "hidden_size", 1, _MOST_NUMBERS), _heads(config)
        bias = family in ("llama", "qwen3") or is_gemma
        bias = bias and flag(config, "attention_bias")
        layers = _read_layers(config, family, heads.width)
        vocab_size = whole(config, "vocab_size", 1, _MOST_NUMBERS)
        scale_base = real(config, "query_pre_attn_scalar", 0, 1e9) if is_gemma else float(heads.width)
        return cls(
            family=family,
            vocab_size=vocab_size,
            width=width,
            mlp_width=whole(config, "intermediate_size", 1, _MOST_NUMBERS),
            num_heads=heads.queries,
            num_kv_heads=heads.keys,
            head_width=heads.width,
            max_context=_context(config, layers),
            norm_eps=real(config, "rms_norm_eps", 0, 1),
            norm_offset=1.0 if is_gemma else 0.0,
            has_sandwich_norms=is_gemma,
            has_qk_norm=family in ("qwen3", "gemma3_text"),
            has_qkv_bias=family == "qwen2" or bias,
            has_output_bias=bias,
            has_mlp_bias=family == "llama" and flag(config, "mlp_bias"),
            activation=_activation(config, "hidden_activation" if is_gemma else "hidden_act"),
            attention_scale=scale_base**-0.5,
            attention_softcap=_softcap(config, "attn_logit_softcapping"),
            logits_softcap=_softcap(config, "final_logit_softcapping"),
            embedding_scale=width**0.5 if is_gemma else None,
            has_tied_head=flag(config, "tie_word_embeddings"),
            layers=layers,
            bos_id=next(iter(ids(raw.get("bos_token_id"), vocab_size)), None),
            eos_ids=ids(raw.get("eos_token_id"), vocab_size),
            raw=dict(raw),
        )


class _Heads(NamedTuple):
    queries: int
    keys: int
    width: int


def _heads(config: Raw) -> _Heads:
    queries = whole(config, "num_attention_heads", 1, _MOST_HEADS)
    # Null means one for each query head; a missing key has been given the class's default.
    keys = queries
    if config["num_key_value_heads"] is not None:
        keys = whole(config, "num_key_value_heads", 1, _MOST_HEADS)
    width = whole(config, "hidden_size", 1, _MOST_NUMBERS) // queries
    if config["head_dim"] is not None:
        width = whole(config, "head_dim", 1, _MOST_NUMBERS)
    if width % 2 or not width:
        raise BadFile(f"config.json: heads of {width} numbers have no two halves for RoPE to rotate")
    if queries % keys:
        raise BadFile(f"config.json: {queries} attention heads cannot share {keys} key/value heads evenly")
    return _Heads(queries, keys, width)


def check_depth(num_layers: int, where: str) -> None:
    """Raises BadFile for more layers than any model has, before a list of so many is made."""
    if num_layers > _MOST_LAYERS:
        raise BadFile(f"{where} is {num_layers:,}, expected at most {_MOST_LAYERS:,}; get the file again")


def _context(config: Raw, layers: tuple[LayerConfig, ...]) -> int:
    """Positions: what the config says, or as many as its scaling stretches the trained ones to."""
    context = whole(config, "max_position_embeddings", 1, _MOST_POSITIONS)
    stretched = max(layer.rope.stretched_context for layer in layers)
    if stretched > _MOST_POSITIONS:
        raise BadFile(f"config.json: RoPE scaling to {stretched:,} positions, expected at most 268,435,456")
    return max(context, stretched)


def _softcap(config: Raw, key: str) -> float | None:
    return None if config.get(key) is None else real(config, key, 0, 1e9)


def _activation(config: Raw, key: str) -> str:
    name = config[key]
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise Unsupported(
            f"activation {shown(name)} is not supported; supported are {', '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[name]


def _read_layers(config: Raw, family: str, head_width: int) -> tuple[LayerConfig, ...]:
    kinds = _layer_kinds(config, family)
    window = None
    if "sliding_attention" in kinds:
        if family in ("qwen2", "qwen3") and not flag(config, "use_sliding_window"):
            raise BadFile("config.json: 'layer_types' has sliding layers, but 'use_sliding_window' is false")
        window = whole(config, "sliding_window", 1, _MOST_POSITIONS)
    ropes = {kind: read_rope(config, kind, family, head_width) for kind in sorted(set(kinds))}
    return tuple(LayerConfig(window if kind == "sliding_attention" else None, ropes[kind]) for kind in kinds)


def _layer_kinds(config: Raw, family: str) -> list[str]:
    """`layer_types`, or what the family means where that key is missing."""
    count = whole(config, "num_hidden_layers", 1, _MOST_LAYERS)
    kinds = config.get("layer_types")
    if kinds is None or family in ("llama", "mistral"):
        return _kinds_by_rule(config, family, count)
    if not isinstance(kinds, list) or len(kinds) != count:
        raise BadFile(
            f"config.json: 'layer_types' must be a list of {count} kinds, one for each of "
            f"'num_hidden_layers', found {shown(kinds)}"
        )
    for kind in kinds:
        if kind not in _KINDS:
            raise Unsupported(f"config.json: layer type {shown(kind)} is not supported")
    return kinds


def _kinds_by_rule(config: Raw, family: str, count: int) -> list[str]:
    sliding: range | list[int] = range(0)
    if family == "mistral" and config["sliding_window"] is not None:
        sliding = range(count)
    elif family in ("qwen2", "qwen3"):
        if flag(config, "use_sliding_window") and config["sliding_window"] is not None:
            sliding = range(whole(config, "max_window_layers", 0, 1 << 31), count)
    elif family in ("gemma2", "gemma3_text"):
        period = 2 if family == "gemma2" else whole(config, "sliding_window_pattern", 1, 1 << 31)
        sliding = [layer for layer in range(count) if (layer + 1) % period]
    return ["sliding_attention" if layer in sliding else "full_attention" for layer in range(count)]
