"""From what the user typed to an engine that answers: weights, text and engine of one model."""

from dataclasses import dataclass

import torch

from groschen import machine
from groschen.engine.engine import Engine, EngineConfig
from groschen.model.checkpoint import open_checkpoint
from groschen.model.load import load_model
from groschen.model.quantized import Weights
from groschen.text.bundle import Text
from groschen.text.load import load_text


@dataclass(frozen=True, slots=True)
class Opened:
    """An engine and the text side of its model."""

    engine: Engine
    text: Text


def open_engine(
    source: str,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | None = None,
    config: EngineConfig | None = None,
    weights: Weights = Weights.PLAIN,
) -> Opened:
    """The engine of a folder, a .gguf file or a hub id, on a CUDA device if there is one.

    weights: int8 and int4 are smaller and faster for few readers, on CPUs, and somewhat worse.
    Raises BadFile, Unsupported or DoesNotFit, each with one sentence.
    """
    device = device or machine.best_device()
    machine.prepare(device)
    checkpoint = open_checkpoint(source)
    text = load_text(checkpoint.source)  # before the weights: cheap, and as often the thing that is wrong
    model = load_model(checkpoint, dtype, device, weights)
    return Opened(Engine(model, text.tokenizer, config), text)
