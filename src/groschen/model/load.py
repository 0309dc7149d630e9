"""A checkpoint's weights in a decoder, or a refusal before memory is taken."""

import torch

from groschen import machine
from groschen.errors import DoesNotFit
from groschen.model.checkpoint import Checkpoint, load_weights, open_checkpoint
from groschen.model.config import ModelConfig
from groschen.model.transformer import Transformer

_SPARE_BYTES = 300_000_000  # for Python, torch and one tensor on its way


def load_model(
    source: str | Checkpoint, dtype: torch.dtype = torch.bfloat16, device: torch.device | None = None
) -> Transformer:
    """The decoder of a folder, a .gguf file or a hub id, with its weights packed for the products of
    `device`.

    dtype: of the weights, bfloat16 or float32. Raises BadFile, Unsupported, or DoesNotFit if the memory is
    too small.
    """
    device = device or torch.device("cpu")
    checkpoint = open_checkpoint(source) if isinstance(source, str) else source
    config = ModelConfig.from_json(checkpoint.config)
    check_memory(checkpoint, config, dtype, device)
    model = Transformer(config, dtype, device)
    load_weights(model.tensors(), checkpoint)
    model.pack()
    return model.requires_grad_(False)


def check_memory(
    checkpoint: Checkpoint, config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> None:
    """Raises DoesNotFit if the weights and their packed copy are more than the free memory of the device."""
    numbers = sum(torch.Size(shape).numel() for shape in checkpoint.names().values())
    embedding = config.vocab_size * config.width
    products = numbers if config.has_tied_head else numbers - embedding
    copies = 0 if device.type == "cuda" else products
    needed = (numbers + copies) * dtype.itemsize + _SPARE_BYTES
    free = machine.free_memory_bytes(device)
    if needed > free:
        raise DoesNotFit(
            f"{checkpoint.source} has {numbers / 1e6:,.0f} million parameters and needs {needed / 1e9:.1f} "
            f"GB as {str(dtype).removeprefix('torch.')} with its packed copy, {free / 1e9:.1f} GB are free; "
            "close other programs or use a smaller model"
        )
