"""Penny's shape, its first weights, and a forward over padded rows in plain torch, which is what pre-training
uses.

`groschen.model.transformer` is built for exact bits at any batch; here only speed counts. Both read the same
parameters, and a test holds their results together.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from groschen.model.config import ModelConfig
from groschen.model.transformer import Attention, Block, Transformer
from penny.vocabulary import SIZE

CONFIG: dict[str, object] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": SIZE,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": True,
}
_SPREAD = 0.02


def new_model(seed: int, **changes: object) -> Transformer:
    """A model with random weights in float32, output projections smaller by sqrt(2 layers) as in GPT-2."""
    config = ModelConfig.from_json({**CONFIG, **changes})
    model = Transformer(config, torch.float32)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.tensors().items():
        if "norm" in name:
            tensor.fill_(1.0)
            continue
        is_output = name.endswith(("o_proj.weight", "down_proj.weight"))
        spread = _SPREAD / (2 * config.num_layers) ** 0.5 if is_output else _SPREAD
        tensor.copy_(spread * torch.randn(tensor.shape, generator=generator))
    return model


def hidden(model: Transformer, ids_RT: Tensor, positions_RT: Tensor, branches_RT: Tensor) -> Tensor:
    """The normed hidden states of rows that are padded at the end, [R, T, D].

    A row is a stem with branches: a token sees what stands before it in the stem (branch 0) and in its own
    branch. positions: [R, T], those of a branch go on from where the stem ends.
    """
    config = model.config
    cosines, sines = (each[positions_RT][:, :, None] for each in model.angles(config.layers[0].rope))
    mask = (branches_RT[:, None] == 0) | (branches_RT[:, None] == branches_RT[:, :, None])
    mask = torch.where(mask.tril(), 0.0, -torch.inf)[:, None]
    x = functional.embedding(ids_RT, model.embed_tokens.weight)
    for block in model.layers:
        assert isinstance(block, Block)
        x = x + _attention(
            block.self_attn, _norm(x, block.input_layernorm, config), config, (cosines, sines), mask
        )
        gate_up = functional.linear(
            _norm(x, block.post_attention_layernorm, config), block.mlp.gate_up_proj.weight
        )
        gate, up = gate_up.chunk(2, dim=-1)
        x = x + functional.linear(functional.silu(gate) * up, block.mlp.down_proj.weight)
    return _norm(x, model.norm, config)


def _attention(
    layer: Attention, x: Tensor, config: ModelConfig, angles: tuple[Tensor, Tensor], mask: Tensor
) -> Tensor:
    rows, length = x.shape[:2]
    heads = functional.linear(x, layer.qkv_proj.weight).view(rows, length, -1, config.head_width)
    queries, keys, values = heads.split([config.num_heads, config.num_kv_heads, config.num_kv_heads], dim=2)
    assert layer.q_norm is not None and layer.k_norm is not None
    queries = _rotate(_norm(queries, layer.q_norm, config), *angles).transpose(1, 2)
    keys = _rotate(_norm(keys, layer.k_norm, config), *angles).transpose(1, 2)
    share = config.num_heads // config.num_kv_heads
    keys, values = (each.repeat_interleave(share, dim=1) for each in (keys, values.transpose(1, 2)))
    mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return functional.linear(mixed.transpose(1, 2).flatten(2), layer.o_proj.weight)


def _norm(x: Tensor, norm: nn.Module, config: ModelConfig) -> Tensor:
    weight = norm.weight
    assert isinstance(weight, Tensor)
    return functional.rms_norm(x, (x.shape[-1],), weight, config.norm_eps)


def _rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """RoPE on halves. x: [R, T, H, E]; cosines, sines: [R, T, 1, E / 2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
