"""The architectures that GGUF is read and written for: their tensor names, row orders and norm offsets.

Leaves out metadata (`gguf_config.py`). One table serves both directions, so that reading undoes writing.
Sources: gguf-py's tensor_mapping.py and llama.cpp's conversion scripts (facts only).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

ROPE_FACTORS = "rope_freqs.weight"  # divisors of the rotary frequencies: llama3 scaling, worked out

_OUTER_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_PRODUCTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TWO_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_FOUR_NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}


@dataclass(frozen=True, slots=True)
class Architecture:
    """One `general.architecture` of llama.cpp, and how its tensors differ from Hugging Face's."""

    name: str
    model_types: tuple[str, ...]  # of config.json; the first is given to a file that is read
    class_name: str  # for config.json's `architectures`
    block_names: Mapping[str, str]  # GGUF's name inside a block to Hugging Face's inside a layer
    biases: tuple[str, ...] = ()  # GGUF names inside a block that may have a bias
    interleaves_rotary: bool = False  # rows of q and k lie in pairs (0, E/2), (1, E/2 + 1), ... within a head
    norm_offset: float = 0.0  # stored norm weight minus Hugging Face's
    always_tied: bool = False  # llama.cpp has no separate head for it


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            "llama",
            ("llama", "mistral"),
            "LlamaForCausalLM",
            _PRODUCTS | _TWO_NORMS,
            biases=tuple(_PRODUCTS),
            interleaves_rotary=True,
        ),
        Architecture(
            "qwen2",
            ("qwen2",),
            "Qwen2ForCausalLM",
            _PRODUCTS | _TWO_NORMS,
            biases=("attn_q", "attn_k", "attn_v"),
        ),
        Architecture("qwen3", ("qwen3",), "Qwen3ForCausalLM", _PRODUCTS | _TWO_NORMS | _HEAD_NORMS),
        Architecture(
            "gemma2",
            ("gemma2",),
            "Gemma2ForCausalLM",
            _PRODUCTS | _FOUR_NORMS,
            norm_offset=1.0,
            always_tied=True,
        ),
        Architecture(
            "gemma3",
            ("gemma3_text",),
            "Gemma3ForCausalLM",
            _PRODUCTS | _FOUR_NORMS | _HEAD_NORMS,
            norm_offset=1.0,
        ),
    )
}


def hugging_face_name(name: str, architecture: Architecture) -> str | None:
    """Hugging Face's name of the GGUF tensor `name`, or None if this architecture has no such tensor."""
    stem, _, part = name.rpartition(".")
    if stem in _OUTER_NAMES and part == "weight":
        return f"{_OUTER_NAMES[stem]}.weight"
    prefix, _, inner = stem.rpartition(".")
    block = prefix.removeprefix("blk.")
    is_number = block.isascii() and block.isdecimal() and len(block) <= 4
    if not prefix.startswith("blk.") or not is_number or inner not in architecture.block_names:
        return None
    if part == "weight" or (part == "bias" and inner in architecture.biases):
        return f"model.layers.{int(block)}.{architecture.block_names[inner]}.{part}"
    return None


def gguf_name(name: str, architecture: Architecture) -> str | None:
    """GGUF's name of the Hugging Face tensor `name`, or None if this architecture has no such tensor."""
    stem, _, part = name.rpartition(".")
    outer = {theirs: ours for ours, theirs in _OUTER_NAMES.items()}
    if stem in outer and part == "weight":
        return f"{outer[stem]}.weight"
    layer, _, inner = stem.removeprefix("model.layers.").partition(".")
    inside = {theirs: ours for ours, theirs in architecture.block_names.items()}
    if not stem.startswith("model.layers.") or not layer.isdecimal() or inner not in inside:
        return None
    if part == "weight" or (part == "bias" and inside[inner] in architecture.biases):
        return f"blk.{layer}.{inside[inner]}.{part}"
    return None


def rotary_heads(name: str, architecture: Architecture, num_heads: int, num_kv_heads: int) -> int | None:
    """Number of heads whose rows GGUF interleaves in the Hugging Face tensor `name`; None if it does not."""
    if not architecture.interleaves_rotary:
        return None
    owner = name.rpartition(".")[0]
    if owner.endswith("self_attn.q_proj"):
        return num_heads
    return num_kv_heads if owner.endswith("self_attn.k_proj") else None


def rows_in_gguf(num_rows: int, num_heads: int) -> Tensor:
    """For each row of a Hugging Face q or k projection, where GGUF keeps it.

    Hugging Face turns number i of a head together with number i + E/2, ggml turns 2 i together with 2 i + 1.
    Returns [num_rows] int64, a permutation.
    """
    return torch.arange(num_rows).reshape(num_heads, -1, 2).transpose(1, 2).reshape(-1)
