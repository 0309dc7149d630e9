"""All layers of a decoder in one call of the compiled kernels, where no gradient is wanted.

Holds pointers into the packed weights of the layers; `transformer.py` makes them anew whenever a parameter
has changed. Leaves out the arithmetic, which is that of `compiled.py` in the same order (kernels/decoder.c),
the embedding, the last norm and the head.
"""

import ctypes
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from groschen.model.compiled import CompiledOperations
from groschen.model.config import LayerConfig, ModelConfig
from groschen.model.kvcache import KeyValueCache, Rows

_POINTERS = (
    "input_norm attention_norm mlp_norm last_norm query_norm key_norm qkv output gate_up down "
    "qkv_bias output_bias gate_up_bias down_bias cosines sines"
).split()

_PRODUCTS = ("qkv", "output", "gate_up", "down")
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 8, torch.uint8: 4}  # of a packed weight
_TILES = 2  # bfloat16 again, as the matrix unit wants it


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in _POINTERS),
        ("window", ctypes.c_int64),
        *((f"{name}_kind", ctypes.c_int32) for name in _PRODUCTS),
    ]


class _Sizes(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("width", "mlp_width", "heads", "kv_heads", "head_width")),
        *((name, ctypes.c_float) for name in ("eps", "norm_offset", "scale", "softcap")),
        ("is_gelu", ctypes.c_int32),
    ]


class _Tokens(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("positions", "slots", "tables", "row", "visible")),
        *((name, ctypes.c_int64) for name in ("tokens", "max_blocks")),
    ]


class FusedLayer(NamedTuple):
    """What one layer reads; None where it has none. Norms in the activations' type, products packed."""

    input_norm: Tensor
    attention_norm: Tensor
    mlp_norm: Tensor | None
    last_norm: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    qkv: Tensor
    output: Tensor
    gate_up: Tensor
    down: Tensor
    qkv_bias: Tensor | None
    output_bias: Tensor | None
    gate_up_bias: Tensor | None
    down_bias: Tensor | None
    cosines: Tensor
    sines: Tensor


class FusedLayers:
    """The layers of one model, ready to be run in one call."""

    def __init__(
        self,
        operations: CompiledOperations,
        config: ModelConfig,
        layers: Sequence[FusedLayer],
        *,
        is_tiled: bool,
    ) -> None:
        kinds = {**_KINDS, torch.bfloat16: _TILES} if is_tiled else _KINDS
        self._library, self._layers = operations.library, list(layers)  # the list keeps the tensors alive
        self._dtype = operations.activation_dtype
        self._described = (_Layer * len(layers))(
            *(_describe(layer, each, kinds) for layer, each in zip(layers, config.layers, strict=True))
        )
        self._sizes = _Sizes(
            config.width, config.mlp_width, config.num_heads, config.num_kv_heads, config.head_width,
            config.norm_eps, config.norm_offset, config.attention_scale, config.attention_softcap or 0.0,
            config.activation == "gelu_tanh",
        )  # fmt: skip
        pointer, long = ctypes.c_void_p, ctypes.c_int64
        self._library.decoder.argtypes = (
            pointer, pointer, long, pointer, pointer, pointer, pointer, long, pointer, ctypes.c_int
        )  # fmt: skip
        self._library.decoder_scratch.restype = long
        self._bytes_per_token = self._library.decoder_scratch(ctypes.byref(self._sizes))

    def run(self, x_ND: Tensor, rows: Rows, cache: KeyValueCache) -> Tensor:
        """x: [N, D] of the activations' type, the embedded tokens; overwritten. Returns the stream after the
        last layer.
        """
        assert x_ND.dtype == self._dtype and x_ND.is_contiguous()
        assert (
            rows.tables.is_contiguous()
            and rows.tables.dtype == rows.row.dtype == rows.visible.dtype == torch.int32
        )
        assert rows.positions.dtype == rows.slots.dtype == torch.int64
        tokens = _Tokens(
            rows.positions.data_ptr(), rows.slots.data_ptr(), rows.tables.data_ptr(), rows.row.data_ptr(),
            rows.visible.data_ptr(), len(x_ND), rows.tables.shape[1],
        )  # fmt: skip
        scratch = torch.empty(len(x_ND) * self._bytes_per_token, dtype=torch.uint8)
        keys, values = cache.layer(0)
        failed = self._library.decoder(
            x_ND.data_ptr(), self._described, len(self._layers), ctypes.byref(self._sizes),
            ctypes.byref(tokens), keys.data_ptr(), values.data_ptr(), keys.numel(), scratch.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        if failed:
            raise MemoryError("no memory for the attention scores of one query block")
        return x_ND


def _describe(layer: FusedLayer, config: LayerConfig, kinds_of: Mapping[torch.dtype, int]) -> _Layer:
    pointers = {
        name: None if tensor is None else tensor.data_ptr() for name, tensor in layer._asdict().items()
    }
    kinds = {f"{name}_kind": kinds_of[getattr(layer, name).dtype] for name in _PRODUCTS}
    return _Layer(**pointers, **kinds, window=config.window or 0)
