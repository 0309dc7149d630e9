"""How much memory a recipe will take, part by part, before anything is taken.

Counts what `model/` and a full or adapter training step hold at their peak: training and generation share the
weights, and the cache stays while the gradients are there. Leaves out the allocator's fragments and the files
that the kernel caches. Measured peaks belong beside it: plan.compare.
"""

from dataclasses import dataclass, fields

import torch

from groschen.errors import DoesNotFit
from groschen.model.config import ModelConfig
from groschen.model.flops import body_weights, head_weights
from groschen.model.kvcache import KEYS_PER_BLOCK, KeyValueCache
from groschen.model.operations import Kit
from groschen.model.rope import table_bytes

_RUNTIME_BYTES = 400 << 20  # Python, torch and its threads, resident after import
_FLOAT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one kind of machine keeps a model: the types, and whether products read a packed copy."""

    weight_bytes: int  # of one weight, 2 for bfloat16
    activation_dtype: torch.dtype
    product: str  # its name in model/products.py

    @property
    def copy_bytes(self) -> int:
        """Of the copy of one weight that the products read; see model/products.py."""
        if self.product == "plain":
            return 0 if self.activation_dtype.itemsize == self.weight_bytes else _FLOAT
        return _FLOAT if self.product == "widened" else self.weight_bytes

    @classmethod
    def of(cls, kit: Kit, weight_dtype: torch.dtype) -> "Layout":
        """The layout of the kit that `operations.kit_for` chose."""
        return cls(
            weight_bytes=weight_dtype.itemsize,
            activation_dtype=kit.operations.activation_dtype,
            product=kit.product.name,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes of each part, and what there is."""

    runtime: int  # Python, torch, and the angles of all positions
    weights: int
    packed_weights: int
    master_weights: int  # float32, of what is trained
    gradients: int  # float32
    optimizer: int  # two float32 moments for each trained weight
    reference: int  # frozen weights for a KL term
    cache: int  # keys and values of all rows that decode together
    activations: int  # of one micro-batch, kept for its gradient
    logits: int  # of the tokens that are scored together, their gradient, and what makes it
    available: int  # what this process may take, before any of the above

    @property
    def total(self) -> int:
        """Everything at once: the peak that is planned for."""
        return sum(size for _, size in self.parts)

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """Name and bytes of what is taken."""
        names = [field.name for field in fields(self) if field.name != "available"]
        return tuple((name.replace("_", " "), getattr(self, name)) for name in names)


def parameter_count(config: ModelConfig) -> int:
    """All trainable numbers: products, embedding (once if tied), norms and biases."""
    queries, keys = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
    vectors = config.width * (4 if config.has_sandwich_norms else 2)
    vectors += 2 * config.head_width if config.has_qk_norm else 0
    vectors += queries + 2 * keys if config.has_qkv_bias else 0
    vectors += config.width if config.has_output_bias else 0
    vectors += 2 * config.mlp_width + config.width if config.has_mlp_bias else 0
    embeddings = head_weights(config) * (1 if config.has_tied_head else 2)
    return body_weights(config) + embeddings + config.num_layers * vectors + config.width


def activation_floats(config: ModelConfig, *, recomputes_layers: bool) -> int:
    """Numbers kept for the gradient of one token: the inputs of norms, products, the gate and attention.

    With recomputation each layer keeps its input only. Read from the autograd functions of
    model/operations.py; the gradients that pass through one layer while it is undone are in it as well.
    """
    queries, keys = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
    layer = (6 if config.has_sandwich_norms else 4) * config.width  # inputs of the norms and of two products
    layer += queries + 2 * config.mlp_width  # inputs of the output product, and of the gate
    # What attention read, after RoPE, and before norms of queries and keys if there are any.
    layer += (queries + 2 * keys) * (2 if config.has_qk_norm else 1)
    passing = 2 * config.width + 6 * config.mlp_width
    if recomputes_layers:
        return config.num_layers * config.width + layer + passing
    return config.num_layers * layer + passing


def plan_memory(
    config: ModelConfig,
    layout: Layout,
    *,
    available: int,
    cache_tokens: int,
    micro_batch_tokens: int,
    scored_tokens: int,
    recomputes_layers: bool = False,
    adapter_weights: int | None = None,
    has_reference: bool = False,
) -> MemoryPlan:
    """The parts of a training run. Call `refuse_if_too_much` to refuse what exceeds `available`.

    cache_tokens: positions that are kept at once, a group's prompt once. micro_batch_tokens: of one forward
    and backward pass. scored_tokens: of them, how many have logits at once. adapter_weights: of a LoRA
    adapter; None: every weight is trained.
    """
    total = parameter_count(config)
    trained = total if adapter_weights is None else adapter_weights
    weights = layout.weight_bytes * (total + (adapter_weights or 0))
    packed = layout.copy_bytes * (body_weights(config) + head_weights(config))
    per_token = KeyValueCache.bytes_per_block(config, layout.activation_dtype) / KEYS_PER_BLOCK
    kept = activation_floats(config, recomputes_layers=recomputes_layers) * layout.activation_dtype.itemsize
    return MemoryPlan(
        runtime=_RUNTIME_BYTES + table_bytes({layer.rope for layer in config.layers}, config.max_context),
        weights=weights,
        packed_weights=packed,
        master_weights=_FLOAT * trained,
        gradients=_FLOAT * trained,
        optimizer=2 * _FLOAT * trained,
        reference=weights + packed if has_reference else 0,
        cache=round(per_token * cache_tokens),
        activations=round((kept + per_token) * micro_batch_tokens),
        logits=3 * _FLOAT * config.vocab_size * min(scored_tokens, micro_batch_tokens),
        available=available,
    )


def refuse_if_too_much(memory: MemoryPlan) -> None:
    """Raises DoesNotFit with the parts and what to change, the part that helps most first."""
    if memory.total <= memory.available:
        return
    missing = memory.total - memory.available
    parts = sorted(memory.parts, key=lambda part: -part[1])
    advice = [_ADVICE[name] for name, size in parts if name in _ADVICE and size > 0]
    listed = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts if size >= 0.01e9)
    raise DoesNotFit(
        f"this run needs {memory.total / 1e9:.1f} GB and {memory.available / 1e9:.1f} GB are to be had, "
        f"{missing / 1e9:.1f} too few (in GB: {listed}); {', or '.join(dict.fromkeys(advice[:3]))}"
    )


_ADVICE = {
    "activations": "lower the tokens of a micro-batch or recompute the layers",
    "logits": "lower the longest completion",
    "cache": "let fewer rows decode together or lower the longest completion",
    "optimizer": "train an adapter instead of every weight",
    "gradients": "train an adapter instead of every weight",
    "master weights": "train an adapter instead of every weight",
    "reference": "leave out the KL term",
    "weights": "take a smaller model",
    "packed weights": "take a smaller model",
}
