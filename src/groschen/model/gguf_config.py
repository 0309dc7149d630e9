"""Read a GGUF file's metadata as the keys of a Hugging Face config.json.

Leaves out tensors, the tokenizer and the other direction (`gguf_metadata.py`). A key that could change the
computation and isn't known here is refused by name.
Sources: gguf-py's constants.py and llama.cpp's load_arch_hparams of each
architecture (facts).
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from groschen.errors import BadFile, Unsupported
from groschen.model.config import check_depth
from groschen.model.gguf_format import GgufFile
from groschen.model.gguf_names import ARCHITECTURES, Architecture
from groschen.model.gguf_rope import llama3_scaling
from groschen.model.values import shown

Value = TypeVar("Value", int, float, str, bool)

PLAIN_KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}
_USED_KEYS = {
    *PLAIN_KEYS,
    "vocab_size",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "tensor_data_layout",  # of files made from Meta's own checkpoints; changes nothing
    "rope.scaling.finetuned",  # a remark
}
_GEMMA_KEYS = {
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "rope.freq_base_swa",
}
_NEUTRAL_VALUES: dict[str, tuple[object, ...]] = {  # keys that say nothing as long as they have these values
    "attention.causal": (True,),
    "pooling_type": (0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_ext_factor": (1.0,),
    "rope.scale_linear": (1.0,),
}
# What config.json may leave out, by model type; llama.cpp assumes the same for missing metadata.
DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma2": {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 4096},
    "gemma3": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "sliding_window": 4096,
    },
}
SLIDING_PERIOD = {"gemma2": 2, "gemma3": 6}  # every n-th layer sees everything
# llama.cpp tells the 27B models by their depth and scales their scores otherwise.
_LAYERS_OF_27B = {"gemma2": 46, "gemma3": 62}


def architecture_of(file: GgufFile) -> Architecture:
    """The architecture of a GGUF file. Raises BadFile if it names none, Unsupported if it isn't ours."""
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise BadFile(f"{file.path} has no 'general.architecture'; it is not a model, get another file")
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise Unsupported(
            f"{file.path} has the architecture {shown(name)}, which is not read from GGUF; read are: {known}"
        )
    return ARCHITECTURES[name]


def config_of_gguf(
    file: GgufFile, shapes: Mapping[str, tuple[int, ...]], divisors: Tensor | None
) -> dict[str, Any]:
    """A config.json for the model in `file`, in the older spelling, which every transformers release reads.

    shapes: of the tensors, by Hugging Face name. divisors: the tensor `rope_freqs.weight`, if there is one.
    Raises BadFile for a missing or contradictory key, Unsupported for one that is not honoured, each by name.
    """
    architecture = architecture_of(file)
    _refuse_unknown_keys(file, architecture)
    defaults = DEFAULTS.get(architecture.name, {})
    config: dict[str, Any] = {
        "architectures": [architecture.class_name],
        "model_type": architecture.model_types[0],
    }
    for key, name in PLAIN_KEYS.items():
        fallback = config.get("num_attention_heads") if name == "num_key_value_heads" else None
        config[name] = _get(file, architecture, key, int, fallback)
        if config[name] < 1:
            raise BadFile(f"'{architecture.name}.{key}' of {file.path} is {config[name]}; get the file again")
    check_depth(config["num_hidden_layers"], f"'{architecture.name}.block_count' of {file.path}")
    config |= {
        "vocab_size": shapes["model.embed_tokens.weight"][0],
        "head_dim": _head_dim(file, architecture, config),
        "rms_norm_eps": _shortest(_get(file, architecture, "attention.layer_norm_rms_epsilon", float, None)),
        "tie_word_embeddings": "lm_head.weight" not in shapes,
        "torch_dtype": "bfloat16",
        **_token_ids(file),
    }
    config |= _rope_keys(file, architecture, int(config["head_dim"]), divisors)
    if architecture.name in SLIDING_PERIOD:
        return config | _gemma_keys(file, architecture, config, defaults)
    if architecture.name == "llama":
        config["attention_bias"] = "model.layers.0.self_attn.q_proj.bias" in shapes
        config["mlp_bias"] = "model.layers.0.mlp.gate_proj.bias" in shapes
    return config | {"hidden_act": "silu"}


def _get(
    file: GgufFile, architecture: Architecture, key: str, kind: type[Value], default: Value | None
) -> Value:
    """The value of an architecture's key; `default` if the file has none, BadFile if that is None too."""
    value = file.metadata.get(f"{architecture.name}.{key}", default)
    if value is None:
        raise BadFile(
            f"{file.path} has no '{architecture.name}.{key}', which the model needs; get another file"
        )
    if isinstance(value, list):  # one for each layer
        if not value or any(item != value[0] for item in value):
            raise Unsupported(
                f"'{architecture.name}.{key}' of {file.path} differs from layer to layer, which is not "
                "honoured"
            )
        value = value[0]
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise BadFile(
            f"'{architecture.name}.{key}' of {file.path} is {shown(value)}, expected a {kind.__name__}"
        )
    return value


def _shortest(value: float) -> float:
    """The shortest decimal that is the same float32: 1e-06 instead of 9.999999974752427e-07."""
    return float(str(np.float32(value)))


def _refuse_unknown_keys(file: GgufFile, architecture: Architecture) -> None:
    used = _USED_KEYS | (_GEMMA_KEYS if architecture.name in SLIDING_PERIOD else set())
    for full_key, value in file.metadata.items():
        prefix, _, key = full_key.partition(".")
        if prefix == architecture.name and key not in used and not _is_neutral(key, value):
            raise Unsupported(
                f"'{full_key[:100]}' of {file.path} is {shown(value)}, which is not honoured; use "
                "another model"
            )
    if file.metadata.get("split.count", 1) not in (0, 1):
        raise Unsupported(
            f"{file.path} is one part of a split GGUF file; join the parts with llama-gguf-split --merge"
        )


def _is_neutral(key: str, value: object) -> bool:
    return any(type(value) is type(neutral) and value == neutral for neutral in _NEUTRAL_VALUES.get(key, ()))


def _head_dim(file: GgufFile, architecture: Architecture, config: Mapping[str, Any]) -> int:
    head_dim: int = _get(
        file,
        architecture,
        "attention.key_length",
        int,
        config["hidden_size"] // config["num_attention_heads"],
    )
    if head_dim < 1:
        raise BadFile(
            f"'{architecture.name}.attention.key_length' of {file.path} is {head_dim}; get the file again"
        )
    for key in ("attention.value_length", "rope.dimension_count"):
        other = _get(file, architecture, key, int, head_dim)
        if other != head_dim:
            raise Unsupported(
                f"'{architecture.name}.{key}' of {file.path} is {other}, the key length {head_dim}; not "
                "honoured"
            )
    return head_dim


def _token_ids(file: GgufFile) -> dict[str, Any]:
    """bos, eos and pad ids; an end-of-turn id is a second eos, as in the folders of chat models."""
    ids: dict[str, Any] = {}
    for name, key in (("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")):
        value = file.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(value, int):
            ids[name] = value
    turn = file.metadata.get("tokenizer.ggml.eot_token_id")
    if isinstance(turn, int) and "eos_token_id" in ids and turn != ids["eos_token_id"]:
        ids["eos_token_id"] = [ids["eos_token_id"], turn]
    return ids


def _rope_keys(
    file: GgufFile, architecture: Architecture, head_dim: int, divisors: Tensor | None
) -> dict[str, Any]:
    fallback = float(DEFAULTS.get(architecture.name, {}).get("rope_theta", 10_000.0))
    theta = _shortest(_get(file, architecture, "rope.freq_base", float, fallback))
    kind = _get(file, architecture, "rope.scaling.type", str, "none")
    if divisors is not None:
        if kind != "none":
            raise Unsupported(
                f"{file.path} has 'rope_freqs.weight' and rope scaling '{kind}' at once, not honoured"
            )
        return {"rope_theta": theta, "rope_scaling": llama3_scaling(divisors, theta, head_dim) or None}
    if kind == "none":
        return {"rope_theta": theta, "rope_scaling": None}
    if kind not in ("linear", "yarn"):
        raise Unsupported(
            f"'{architecture.name}.rope.scaling.type' of {file.path} is '{kind}'; linear and yarn are "
            "honoured"
        )
    scaling: dict[str, Any] = {"rope_type": kind}
    scaling["factor"] = _shortest(_get(file, architecture, "rope.scaling.factor", float, None))
    if kind == "yarn":
        key = "original_max_position_embeddings"
        scaling[key] = _get(file, architecture, "rope.scaling.original_context_length", int, None)
        for name in ("beta_fast", "beta_slow"):
            if f"{architecture.name}.rope.scaling.yarn_{name}" in file.metadata:
                scaling[name] = _shortest(_get(file, architecture, f"rope.scaling.yarn_{name}", float, None))
    return {"rope_theta": theta, "rope_scaling": scaling}


def _gemma_keys(
    file: GgufFile, architecture: Architecture, config: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    layers, theta = config["num_hidden_layers"], config["rope_theta"]
    period = _get(
        file, architecture, "attention.sliding_window_pattern", int, SLIDING_PERIOD[architecture.name]
    )
    keys: dict[str, Any] = {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": query_scalar(architecture.name, config),
        "layer_types": layer_types(layers, period),
    }
    keys["sliding_window"] = _get(
        file, architecture, "attention.sliding_window", int, defaults["sliding_window"]
    )
    local = _get(file, architecture, "rope.freq_base_swa", float, defaults.get("rope_local_base_freq", theta))
    if architecture.name == "gemma3":
        keys["rope_local_base_freq"] = _shortest(local)
    elif _shortest(local) != theta:
        raise Unsupported(
            f"'gemma2.rope.freq_base_swa' of {file.path} differs from 'rope.freq_base', not honoured"
        )
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if name in defaults or f"{architecture.name}.{name}" in file.metadata:
            keys[name] = _shortest(_get(file, architecture, name, float, defaults.get(name)))
        else:
            keys[name] = None
    return keys


def layer_types(num_layers: int, period: int) -> list[str]:
    """Kinds of attention when every `period`-th layer sees all; BadFile for a period below one."""
    if period < 1:
        raise BadFile(f"the sliding window pattern is {period}, expected 1 or more; get another file")
    return [
        "full_attention" if (layer + 1) % period == 0 else "sliding_attention" for layer in range(num_layers)
    ]


def query_scalar(architecture: str, config: Mapping[str, Any]) -> int:
    """Of what llama.cpp divides the scores by the root: the head width, or in 27B models width over heads."""
    if config["num_hidden_layers"] == _LAYERS_OF_27B[architecture]:
        return int(config["hidden_size"] // config["num_attention_heads"])
    return int(config["head_dim"])
