"""Weights of 8 or 4 bits for serving: a smaller model to read for each token, and one that cannot be trained.

A decoder that answers one reader is bound by the bytes of its weights. `int8` keeps a scale for each 64
inputs (8.25 bits a weight), `int4` one for each 32 (4.5 bits) and its head as int8. Activations are rounded
to 16 bits for each product. A row has the same bits whatever runs beside it: sums within a block are whole
numbers (kernels/quantized.c). It needs the compiled kernels and is refused without them: done in torch, it
would be slower than bfloat16. Leaves out the arithmetic (`products.py`) and loading (`load.py`).
"""

from dataclasses import replace
from enum import StrEnum

import torch

from groschen.errors import BadRequest, Unsupported
from groschen.model.build_kernels import library
from groschen.model.compiled import CompiledOperations
from groschen.model.operations import Kit
from groschen.model.products import QuantizedProduct


class Weights(StrEnum):
    """How the weights of all products are kept in memory."""

    PLAIN = "bf16"  # as the checkpoint has them, in the type of the model
    INT8 = "int8"
    INT4 = "int4"

    @property
    def bits_per_weight(self) -> float:
        """Of the layers' products, with the scales; the head of `int4` has those of `int8`."""
        return {Weights.PLAIN: 16.0, Weights.INT8: 8.25, Weights.INT4: 4.5}[self]


def weights_of(word: str | None) -> Weights:
    """The mode that a flag names; None is plain. Raises BadRequest for another word."""
    try:
        return Weights.PLAIN if word is None else Weights(word)
    except ValueError as unknown:
        words = ", ".join(Weights)
        raise BadRequest(f"weights are '{word}', expected one of {words}") from unknown


def kits(weights: Weights, device: torch.device) -> tuple[Kit, Kit]:
    """What the layers and what the head run. Raises Unsupported without the compiled kernels."""
    if device.type != "cpu":
        raise Unsupported(
            f"{weights} weights run on CPUs only, and this model is opened on {device}; leave --weights out"
        )
    built = library(is_bf16=False)
    if built.library is None:
        raise Unsupported(f"{weights} weights need the compiled kernels: {built.why_not}")
    compiled = CompiledOperations(built.library, torch.float32)
    eight = Kit(compiled, QuantizedProduct(compiled, "int8", bits=8))
    if weights is Weights.INT8:
        return eight, eight
    return replace(eight, product=QuantizedProduct(compiled, "int4", bits=4)), eight


def check_trainable(weights: Weights) -> None:
    """Raises Unsupported for weights that can be neither trained nor written to a checkpoint."""
    if weights is not Weights.PLAIN:
        raise Unsupported(
            f"the weights of this model are {weights}, which is for serving only; open it with bf16 weights "
            "to train or to write it"
        )
