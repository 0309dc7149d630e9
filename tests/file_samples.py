"""Tiny random models made with transformers, for the tests of files."""

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZES, rope_parameters=LLAMA3_ROPE, head_dim=16),
    "llama_tied_with_biases": LlamaConfig(
        **SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True
    ),
    "mistral": MistralConfig(**SIZES, sliding_window=None, head_dim=32),
    "qwen2": Qwen2Config(**SIZES, rope_parameters=YARN),
    "qwen2_tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, head_dim=32),
    "gemma2": Gemma2Config(**SIZES, head_dim=32, query_pre_attn_scalar=32, sliding_window=8),
    "gemma3": Gemma3TextConfig(**SIZES, head_dim=32, query_pre_attn_scalar=32, sliding_window=8),
}
FAMILIES = tuple(CONFIGS)


def tiny_model(name: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A transformers model of the config `name`, with every weight random, norms and biases too."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(CONFIGS[name])
    for parameter in model.parameters():  # not model.to(dtype): that would round the rotary frequencies too
        parameter.data = (torch.randn_like(parameter) * 0.2).to(dtype)
    return model.eval()


def parts_of(model: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """config.json as transformers writes it, and the tensors by checkpoint name, a tied head left out."""
    config = model.config.to_dict()
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return config, tensors


def logits_of(model: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Logits for forty fixed tokens, [40, V]."""
    tokens = torch.randint(3, SIZES["vocab_size"], (1, 40), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits: torch.Tensor = model.to(dtype)(tokens).logits[0]
    return logits
