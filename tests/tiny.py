"""Small random models of every family and a byte tokenizer, so that no test needs a download."""

from typing import Any

import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from groschen.engine.engine import Engine, EngineConfig
from groschen.model.config import ModelConfig
from groschen.model.transformer import Transformer
from groschen.text.tokenizer import SpecialIds, Tokenizer

VOCABULARY = 320  # 256 bytes, the end token and some that no text contains
_BASE = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 144, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "eos_token_id": 256,
}  # fmt: skip
_LLAMA3_ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**_BASE, "model_type": "llama", "rope_theta": 5e5, "rope_scaling": _LLAMA3_ROPE},
    "smollm": {**_BASE, "model_type": "llama", "tie_word_embeddings": True, "num_attention_heads": 6,
               "num_key_value_heads": 3, "hidden_size": 96},
    "mistral": {**_BASE, "model_type": "mistral", "sliding_window": 20},
    "qwen2": {**_BASE, "model_type": "qwen2", "rope_theta": 1e6, "tie_word_embeddings": True},
    "qwen3": {**_BASE, "model_type": "qwen3", "head_dim": 32, "rope_theta": 1e6},
    "gemma2": {**_BASE, "model_type": "gemma2", "head_dim": 32, "sliding_window": 20,
               "query_pre_attn_scalar": 32, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3": {**_BASE, "model_type": "gemma3_text", "head_dim": 32, "sliding_window": 20,
               "query_pre_attn_scalar": 32, "num_key_value_heads": 1, "sliding_window_pattern": 2},
}  # fmt: skip


def tiny_model(
    family: str = "qwen2", dtype: torch.dtype = torch.bfloat16, seed: int = 0, **changes: Any
) -> Transformer:
    """A random model whose distributions are neither flat nor decided: logits spread over about 3 nat."""
    model = Transformer(ModelConfig.from_json({**FAMILIES[family], **changes}), dtype)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.tensors().items():
        spread = 0.1 if tensor.dim() == 1 else 1.2 * tensor.shape[1] ** -0.5
        centre = 1.0 if "norm" in name and model.config.norm_offset == 0 else 0.0
        tensor.copy_(centre + spread * torch.randn(tensor.shape, generator=generator))
    return model.requires_grad_(False)


def byte_tokenizer() -> Tokenizer:
    """One token for each byte, and <end> = 256."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<end>", special=True)])
    backend.add_tokens([f"<word {i}>" for i in range(257, VOCABULARY)])
    return Tokenizer(backend, SpecialIds(eos=(256,)))


def tiny_engine(model: Transformer | None = None, **config: Any) -> Engine:
    """An engine on a tiny model with a cache of 4 MB unless told otherwise."""
    return Engine(
        model or tiny_model(), byte_tokenizer(), EngineConfig(**{"cache_bytes": 4_000_000, **config})
    )
