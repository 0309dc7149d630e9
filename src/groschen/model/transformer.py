"""The decoder: one config-driven transformer for training, prefill and decode.

Tokens come flat: N tokens of any number of rows, and `Rows` says which is whose and where its keys and values
lie. There is no second forward: an engine passes a cache that lives on, a trainer one for this batch.
Attribute names are the checkpoint's names; query, key and value projections are stored as one matrix, gate
and up as another, and `tensors` shows them under their own names. Leaves out the arithmetic (`operations.py`)
and mixtures of experts, latent attention and attention sinks, which would be other classes in the place of
`MLP` and `Attention`.
"""

from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from groschen.errors import DoesNotFit
from groschen.model import operations as ops
from groschen.model.compiled import CompiledOperations
from groschen.model.config import ModelConfig
from groschen.model.fused import FusedLayer, FusedLayers
from groschen.model.kvcache import KeyValueCache, LayerCache, Rows
from groschen.model.products import CompiledProduct, PairedProduct, QuantizedProduct, TiledProduct
from groschen.model.quantized import Weights, check_trainable, kits
from groschen.model.rope import RopeConfig, tables
from groschen.model.shapes import AttentionShape


def _parameter(*shape: int, dtype: torch.dtype, device: str | None = None) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape, dtype=dtype, device=device), requires_grad=device != "meta")


class Embedding(nn.Module):
    """One row for each token. Nothing initialises the weight: a checkpoint fills it."""

    def __init__(self, num_tokens: int, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = _parameter(num_tokens, width, dtype=dtype)

    def forward(self, token_ids_N: Tensor, dtype: torch.dtype) -> Tensor:
        """token_ids: [N] int64. Returns [N, width] of the given type."""
        return ops.embed(token_ids_N, self.weight, dtype)


class Linear(nn.Module):
    """x W^T + b. The weight is packed for the product at first use and again whenever its values have
    changed. A quantised one is given once (`quantise`), and `weight` is a shape without memory.

    is_wide: the result is float32 whatever x is, for logits: bfloat16 would round 20 to steps of 0.125.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        has_bias: bool,
        dtype: torch.dtype,
        kit: ops.Kit,
        is_wide: bool = False,
    ) -> None:
        super().__init__()
        self._is_wide = is_wide
        self.is_quantised = isinstance(kit.product, QuantizedProduct)
        self.weight = _parameter(outputs, inputs, dtype=dtype, device="meta" if self.is_quantised else None)
        self.bias = _parameter(outputs, dtype=dtype) if has_bias else None
        self._product, self._addend_dtype = kit.product, kit.operations.activation_dtype
        self._packed: ops.Packed | None = None
        self._packed_versions = (-1, -1)

    def pack(self) -> ops.Packed:
        """The packed weight; torch counts in-place changes of a tensor, so a stale copy cannot be used."""
        versions = (self.weight._version, -1 if self.bias is None else self.bias._version)
        if self.is_quantised:
            assert self._packed is not None, "a quantised product is used before it has been loaded"
            return self._packed
        if self._packed is None or self._packed_versions != versions:
            weight = self._product.pack(self.weight, None if self._packed is None else self._packed.weight)
            bias = None if self.bias is None else self.bias.detach().to(self._addend_dtype)
            self._packed, self._packed_versions = ops.Packed(weight, bias), versions
        return self._packed

    def quantise(self, weight: Tensor) -> None:
        """weight: [outputs, inputs]; not kept. The bias, if there is one, has its values already."""
        assert self._packed is None, "layers that run in one call would keep the old codes"
        bias = None if self.bias is None else self.bias.detach().to(self._addend_dtype)
        self._packed = ops.Packed(self._product.pack(weight.detach()), bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        """x: [N, inputs]. Returns [N, outputs], of x's type unless it is wide."""
        return ops.multiply(self._product, x_ND, self.weight, self.bias, self.pack(), self._is_wide)

    def of_gated(self, x_NF: Tensor, operations: ops.Operations, is_gelu: bool) -> Tensor:
        """x: [N, 2 inputs], gate first. Returns [N, outputs], of activate(gate) * up."""
        given = (self.weight, self.bias, self.pack())
        return ops.multiply_gated(operations, self._product, x_NF, is_gelu, *given)


class Norm(nn.Module):
    """RMSNorm over the last dimension, in float32."""

    def __init__(self, width: int, config: ModelConfig, dtype: torch.dtype, kit: ops.Kit) -> None:
        super().__init__()
        self.weight = _parameter(width, dtype=dtype)
        self._eps, self._offset, self._operations = config.norm_eps, config.norm_offset, kit.operations
        self._scale: Tensor | None = None
        self._scale_version = -1

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., width]. Returns the same shape."""
        return ops.rms_norm(self._operations, x, self.weight, self.scale(), self._eps, self._offset)

    def scale(self) -> Tensor:
        """The weight in the activations' type, made anew whenever it has changed."""
        if self._scale is None or self._scale_version != self.weight._version:
            self._scale = self.weight.detach().to(self._operations.activation_dtype)
            self._scale_version = self.weight._version
        return self._scale


class Attention(nn.Module):
    """Grouped-query attention with RoPE; GQA, arXiv 2305.13245."""

    def __init__(self, config: ModelConfig, layer: int, dtype: torch.dtype, kit: ops.Kit) -> None:
        super().__init__()
        self._heads, self._kv_heads, self._width = config.num_heads, config.num_kv_heads, config.head_width
        self._operations = kit.operations
        self._shape = AttentionShape(
            config.attention_scale, config.layers[layer].window, config.attention_softcap
        )
        num_all = self._heads + 2 * self._kv_heads
        self.qkv_proj = Linear(config.width, num_all * self._width, config.has_qkv_bias, dtype, kit)
        self.o_proj = Linear(self._heads * self._width, config.width, config.has_output_bias, dtype, kit)
        self.q_norm = Norm(self._width, config, dtype, kit) if config.has_qk_norm else None
        self.k_norm = Norm(self._width, config, dtype, kit) if config.has_qk_norm else None

    def forward(self, x_ND: Tensor, angles: tuple[Tensor, Tensor], cache: LayerCache, rows: Rows) -> Tensor:
        """x: [N, D]; angles: cosines and sines [P, E / 2]. Returns [N, D]."""
        heads_NHE = self.qkv_proj(x_ND).view(len(x_ND), -1, self._width)
        queries, keys, values = heads_NHE.split([self._heads, self._kv_heads, self._kv_heads], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        queries = ops.rotate(self._operations, queries, rows.positions, *angles)
        keys = ops.rotate(self._operations, keys, rows.positions, *angles)
        mixed_NHE = ops.attend(self._operations, queries, keys, values, cache, rows, self._shape)
        out: Tensor = self.o_proj(mixed_NHE.flatten(1))
        return out


class MLP(nn.Module):
    """down(activate(gate) * up)."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, kit: ops.Kit) -> None:
        super().__init__()
        self._is_gelu, self._operations = config.activation == "gelu_tanh", kit.operations
        self.gate_up_proj = Linear(config.width, 2 * config.mlp_width, config.has_mlp_bias, dtype, kit)
        self.down_proj = Linear(config.mlp_width, config.width, config.has_mlp_bias, dtype, kit)

    def forward(self, x_ND: Tensor) -> Tensor:
        """x: [N, D]. Returns [N, D]."""
        return self.down_proj.of_gated(self.gate_up_proj(x_ND), self._operations, self._is_gelu)


class Block(nn.Module):
    """One layer: attention and MLP, each normed before (and for Gemma after) and added to the stream."""

    def __init__(self, config: ModelConfig, layer: int, dtype: torch.dtype, kit: ops.Kit) -> None:
        super().__init__()
        self.input_layernorm = Norm(config.width, config, dtype, kit)
        self.self_attn = Attention(config, layer, dtype, kit)
        self.post_attention_layernorm = Norm(config.width, config, dtype, kit)
        self.mlp = MLP(config, dtype, kit)
        self.pre_feedforward_layernorm: Norm | None = None
        self.post_feedforward_layernorm: Norm | None = None
        if config.has_sandwich_norms:
            self.pre_feedforward_layernorm = Norm(config.width, config, dtype, kit)
            self.post_feedforward_layernorm = Norm(config.width, config, dtype, kit)

    def forward(self, x_ND: Tensor, angles: tuple[Tensor, Tensor], cache: LayerCache, rows: Rows) -> Tensor:
        """x: [N, D]. Returns [N, D]."""
        mixed_ND = self.self_attn(self.input_layernorm(x_ND), angles, cache, rows)
        if self.pre_feedforward_layernorm is None or self.post_feedforward_layernorm is None:
            x_ND = x_ND + mixed_ND
            out_ND: Tensor = x_ND + self.mlp(self.post_attention_layernorm(x_ND))
            return out_ND
        x_ND = x_ND + self.post_attention_layernorm(mixed_ND)
        out_ND = x_ND + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x_ND)))
        return out_ND

    def fused(self, cosines: Tensor, sines: Tensor) -> FusedLayer:
        """What the kernels read of this layer when they run it in one call."""
        attention, mlp = self.self_attn, self.mlp
        qkv, output = attention.qkv_proj.pack(), attention.o_proj.pack()
        gate_up, down = mlp.gate_up_proj.pack(), mlp.down_proj.pack()
        before_mlp, after_mlp = self.pre_feedforward_layernorm, self.post_feedforward_layernorm
        return FusedLayer(
            input_norm=self.input_layernorm.scale(),
            attention_norm=self.post_attention_layernorm.scale(),
            mlp_norm=None if before_mlp is None else before_mlp.scale(),
            last_norm=None if after_mlp is None else after_mlp.scale(),
            query_norm=None if attention.q_norm is None else attention.q_norm.scale(),
            key_norm=None if attention.k_norm is None else attention.k_norm.scale(),
            qkv=qkv.weight,
            output=output.weight,
            gate_up=gate_up.weight,
            down=down.weight,
            qkv_bias=qkv.bias,
            output_bias=output.bias,
            gate_up_bias=gate_up.bias,
            down_bias=down.bias,
            cosines=cosines,
            sines=sines,
        )


class Transformer(nn.Module):
    """A decoder with the weights of one checkpoint.

    dtype: of the weights, bfloat16 or float32. weights: how those of the products are kept; quantised, they
    are filled by `Linear.quantise` and never change.
    """

    def __init__(
        self,
        config: ModelConfig,
        dtype: torch.dtype,
        device: torch.device | None = None,
        weights: Weights = Weights.PLAIN,
    ) -> None:
        super().__init__()
        device = device or torch.device("cpu")
        self.config, self.weights = config, weights
        if weights is Weights.PLAIN:
            self.kit = head_kit = ops.kit_for(device, dtype)
        else:
            self.kit, head_kit = kits(weights, device)
        with device:
            self.embed_tokens = Embedding(config.vocab_size, config.width, dtype)
            self.layers = nn.ModuleList(Block(config, i, dtype, self.kit) for i in range(config.num_layers))
            self.norm = Norm(config.width, config, dtype, self.kit)
            self.lm_head = Linear(config.width, config.vocab_size, False, dtype, head_kit, is_wide=True)
        if config.has_tied_head and weights is Weights.PLAIN:
            self.lm_head.weight = self.embed_tokens.weight
        self._angles: dict[RopeConfig, tuple[Tensor, Tensor]] = {}
        self._blocks = [block for block in self.layers if isinstance(block, Block)]
        self._parameters_of_layers = list(self.layers.parameters())
        self._fused: FusedLayers | None = None
        self._fused_version = -1
        # Whether a gradient computes each layer again instead of keeping what it needs: less memory, a third
        # more arithmetic, and the same bits, because a layer has the same bits each time.
        self.recomputes_layers = False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.norm.weight.device

    @property
    def activation_dtype(self) -> torch.dtype:
        """The type of what flows between layers and of the cache: float32 where a CPU has no bfloat16
        products.
        """
        return self.kit.operations.activation_dtype

    def new_cache(self, num_blocks: int) -> KeyValueCache:
        """An empty cache for this model, on its device."""
        return KeyValueCache(self.config, num_blocks, self.activation_dtype, self.device)

    def forward(self, token_ids_N: Tensor, rows: Rows, cache: KeyValueCache) -> Tensor:
        """token_ids: [N] int64. Returns the normed hidden state of every token, [N, D]."""
        x_ND = self.embed_tokens(token_ids_N, self.activation_dtype)
        if self.config.embedding_scale is not None:
            scale = torch.tensor(self.config.embedding_scale, dtype=self.norm.weight.dtype).item()
            x_ND = x_ND * scale
        fused = None if torch.is_grad_enabled() or rows.copies is not None else self._fused_layers()
        if fused is not None:
            x_ND = fused.run(x_ND, rows, cache)
        else:
            is_kept = not (self.recomputes_layers and torch.is_grad_enabled())
            for index, block in enumerate(self.layers):
                given = (x_ND, self.angles(self.config.layers[index].rope), cache.layer(index), rows)
                x_ND = block(*given) if is_kept else self._again_later(block, *given)
        hidden_ND: Tensor = self.norm(x_ND)
        return hidden_ND

    def _again_later(self, block: nn.Module, *given: object) -> Tensor:
        """The layer's output; its insides are thrown away and computed again for the gradient. Training deep
        nets with sublinear memory cost, arXiv 1604.06174.
        """
        out_ND: Tensor = checkpoint(block, *given, use_reentrant=False, preserve_rng_state=False)
        return out_ND

    def _fused_layers(self) -> FusedLayers | None:
        """The layers for one call of the kernels, made anew if a parameter has changed; None where other
        operations or products run, or where what a product takes at once does not fill a row.
        """
        operations, product = self.kit.operations, self.kit.product
        if not isinstance(product, CompiledProduct | PairedProduct | TiledProduct | QuantizedProduct):
            return None
        if not isinstance(operations, CompiledOperations):
            return None
        config = self.config
        inputs = (config.width, config.mlp_width, config.num_heads * config.head_width)
        if any(width % product.inputs_at_once for width in inputs):
            return None
        version = sum(parameter._version for parameter in self._parameters_of_layers)
        if self._fused is None or self._fused_version != version:
            layers = [
                block.fused(*self.angles(each.rope))
                for block, each in zip(self._blocks, config.layers, strict=True)
            ]
            is_tiled = isinstance(product, TiledProduct)
            self._fused = FusedLayers(operations, config, layers, is_tiled=is_tiled)
            self._fused_version = version
        return self._fused

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """hidden: [N, D], only the rows that are needed: the head is 28 % of a 0.5B model. Returns [N, V]
        float32.
        """
        logits_NV: Tensor = self.lm_head(hidden_ND)
        cap = self.config.logits_softcap
        return logits_NV if cap is None else cap * torch.tanh(logits_NV / cap)

    def angles(self, rope: RopeConfig) -> tuple[Tensor, Tensor]:
        """Cosines and sines of every position of the context, made once for each kind of layer."""
        if rope not in self._angles:
            with torch.inference_mode(False):  # an engine may ask first, a trainer must be able to save them
                self._angles[rope] = tables(rope, self.config.max_context, self.device)
        return self._angles[rope]

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As torch's. Raises Unsupported if a gradient of quantised weights is asked for."""
        if requires_grad:
            check_trainable(self.weights)
        super().requires_grad_(requires_grad)
        return self

    def pack(self) -> None:
        """Pack every weight and make the angles now instead of at their first use: what is free after that is
        free.
        """
        for module in self.modules():
            if isinstance(module, Linear):
                module.pack()
        for layer in self.config.layers:
            self.angles(layer.rope)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor under the name that a Hugging Face checkpoint gives it, as views that can be written
        to. Raises Unsupported for quantised weights.
        """
        check_trainable(self.weights)
        found: dict[str, Tensor] = {}
        for name, parameter in self.named_parameters():
            found.update(self.named_views(name, parameter.detach()))
        return found

    def named_views(self, name: str, tensor: Tensor) -> dict[str, Tensor]:
        """A tensor of the shape of our parameter `name`, under its checkpoint's names: a fused projection as
        its parts, anything else as it is.
        """
        config, name = self.config, name if name.startswith("lm_head.") else f"model.{name}"
        queries, keys = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
        parts = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
        sizes = {"qkv_proj": (queries, keys, keys), "gate_up_proj": (config.mlp_width, config.mlp_width)}
        for fused, names in parts.items():
            if f".{fused}." in name:
                views = tensor.split_with_sizes(sizes[fused])
                return {name.replace(fused, part): view for part, view in zip(names, views, strict=True)}
        return {name: tensor}


def check_context(config: ModelConfig, num_tokens: int) -> None:
    """Raises DoesNotFit if `num_tokens` positions are more than the model has."""
    if num_tokens > config.max_context:
        raise DoesNotFit(
            f"{num_tokens} tokens do not fit the model's context of {config.max_context}; shorten the prompt"
        )
