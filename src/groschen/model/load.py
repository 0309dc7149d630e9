"""A checkpoint's weights in a decoder, or a refusal before memory is taken."""

import torch
from torch import Tensor

from groschen import machine
from groschen.errors import DoesNotFit
from groschen.model.checkpoint import Checkpoint, check_names, copy_weights, open_checkpoint
from groschen.model.config import ModelConfig
from groschen.model.operations import kit_for
from groschen.model.products import PlainProduct, WidenedProduct
from groschen.model.quantized import Weights
from groschen.model.rope import table_bytes
from groschen.model.tensor_shapes import tensor_shapes
from groschen.model.transformer import Linear, Transformer

_SPARE_BYTES = 300_000_000  # for Python, torch and one tensor on its way


def load_model(
    source: str | Checkpoint,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | None = None,
    weights: Weights = Weights.PLAIN,
) -> Transformer:
    """The decoder of a folder, a .gguf file or a hub id, with its weights packed for the products of
    `device`.

    dtype: of the weights, bfloat16 or float32; weights: int8 and int4 are made from it, one product after the
    other, and only serve. Raises BadFile, Unsupported, or DoesNotFit if the memory is too small.
    """
    device = device or torch.device("cpu")
    checkpoint = open_checkpoint(source) if isinstance(source, str) else source
    config = ModelConfig.from_json(checkpoint.config)
    check_names(tensor_shapes(config), checkpoint)
    check_memory(checkpoint, config, dtype, device, weights)
    model = Transformer(config, dtype, device, weights)
    if weights is Weights.PLAIN:
        copy_weights(model.tensors(), checkpoint)
    else:
        _load_quantised(model, checkpoint)
    model.pack()
    return model.requires_grad_(False)


def _load_quantised(model: Transformer, checkpoint: Checkpoint) -> None:
    """Never more in memory than what stays and one product as the checkpoint has it."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if not (model.config.has_tied_head and name == "lm_head.weight"):
            tensors |= model.named_views(name, parameter.detach())
    copy_weights({name: tensor for name, tensor in tensors.items() if not tensor.is_meta}, checkpoint)
    for name, module in model.named_modules():
        if not isinstance(module, Linear):
            continue
        if module is model.lm_head and model.config.has_tied_head:
            module.quantise(model.embed_tokens.weight)
            continue
        weight = torch.empty(module.weight.shape, dtype=module.weight.dtype)
        copy_weights(model.named_views(f"{name}.weight", weight), checkpoint)
        module.quantise(weight)


def check_memory(
    checkpoint: Checkpoint,
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    weights: Weights = Weights.PLAIN,
) -> None:
    """Raises DoesNotFit if what the weights will take is more than the free memory of the device."""
    needed = resident_bytes(checkpoint, config, dtype, device, weights) + _SPARE_BYTES
    kind, copy = str(dtype).removeprefix("torch."), "its packed copy"
    if weights is not Weights.PLAIN:
        head = 0 if config.has_tied_head else config.vocab_size * config.width
        needed += max(head, 2 * config.mlp_width * config.width) * dtype.itemsize  # one product on its way
        kind, copy = str(weights), f"its embedding as {kind}"
    free = machine.free_memory_bytes(device)
    if needed > free:
        numbers = _count(checkpoint)
        raise DoesNotFit(
            f"{checkpoint.source} has {numbers / 1e6:,.0f} million parameters and needs {needed / 1e9:.1f} "
            f"GB as {kind} with {copy} and the angles of {config.max_context:,} positions, "
            f"{free / 1e9:.1f} GB are free; close other programs or use a smaller model"
        )


def resident_bytes(
    checkpoint: Checkpoint,
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    weights: Weights = Weights.PLAIN,
) -> int:
    """What stays in memory: the weights, the copy that products read, and the angles of all positions."""
    numbers, embedding = _count(checkpoint), config.vocab_size * config.width
    layers = numbers - embedding * (1 if config.has_tied_head else 2)
    angles = table_bytes({layer.rope for layer in config.layers}, config.max_context)
    if weights is Weights.PLAIN:
        return numbers * dtype.itemsize + (layers + embedding) * _copy_bytes(device, dtype) + angles
    bits = layers * weights.bits_per_weight + embedding * Weights.INT8.bits_per_weight
    return int(bits) // 8 + embedding * dtype.itemsize + angles


def _count(checkpoint: Checkpoint) -> int:
    return sum(torch.Size(shape).numel() for shape in checkpoint.names().values())


def _copy_bytes(device: torch.device, dtype: torch.dtype) -> int:
    """Bytes of the packed copy of one number of a weight; 0 where products read the weight itself."""
    product = kit_for(device, dtype).product
    if isinstance(product, PlainProduct):
        return 0 if product.dtype in (None, dtype) else torch.float32.itemsize
    return torch.float32.itemsize if isinstance(product, WidenedProduct) else dtype.itemsize
