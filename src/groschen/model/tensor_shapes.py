"""The tensors of a decoder by the names of a Hugging Face checkpoint, before any memory is taken for them.

Leaves out the modules that hold them (`transformer.py`); a test compares the two.
"""

from groschen.model.config import ModelConfig


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of this model; a head that is the embedding has none of its own."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, config.width)}
    inside = _layer(config)
    for layer in range(config.num_layers):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in inside.items()}
    shapes["model.norm.weight"] = (config.width,)
    if not config.has_tied_head:
        shapes["lm_head.weight"] = (config.vocab_size, config.width)
    return shapes


def _layer(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    queries, keys = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
    products = {
        "self_attn.q_proj": (queries, config.width, config.has_qkv_bias),
        "self_attn.k_proj": (keys, config.width, config.has_qkv_bias),
        "self_attn.v_proj": (keys, config.width, config.has_qkv_bias),
        "self_attn.o_proj": (config.width, queries, config.has_output_bias),
        "mlp.gate_proj": (config.mlp_width, config.width, config.has_mlp_bias),
        "mlp.up_proj": (config.mlp_width, config.width, config.has_mlp_bias),
        "mlp.down_proj": (config.width, config.mlp_width, config.has_mlp_bias),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs, has_bias) in products.items():
        shapes[f"{name}.weight"] = (outputs, inputs)
        if has_bias:
            shapes[f"{name}.bias"] = (outputs,)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if config.has_sandwich_norms:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    shapes |= {f"{name}.weight": (config.width,) for name in norms}
    if config.has_qk_norm:
        shapes |= {f"self_attn.{name}.weight": (config.head_width,) for name in ("q_norm", "k_norm")}
    return shapes
