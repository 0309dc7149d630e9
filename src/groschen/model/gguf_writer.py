"""Write the GGUF container: metadata and tensors whose bytes come piece by piece.

Leaves out names, permutations and metadata of a model (`gguf_export.py`). The bytes of a tensor are asked for
when their turn comes, so no more than one piece is in memory.
Source: the GGUF specification (ggml, docs/gguf.md), version 3.
"""

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from groschen.model.atomic import new_file
from groschen.model.gguf_format import (
    DEFAULT_ALIGNMENT,
    MAGIC,
    NUMBER_FORMATS,
    ROOT_ALIGNMENT_KEY,
    MetadataValue,
    Scalar,
    TensorType,
    ValueKind,
)

_VERSION = 3


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor to write. `shape` is in torch's order; `pieces` yields its stored bytes from first to last."""

    name: str
    shape: tuple[int, ...]
    kind: TensorType
    pieces: Callable[[], Iterable[NDArray[np.uint8]]]

    @property
    def num_bytes(self) -> int:
        """Bytes that `pieces` yields in total."""
        return math.prod(self.shape) // self.kind.block * self.kind.block_bytes


def text(value: str) -> MetadataValue:
    """A metadata string."""
    return MetadataValue(ValueKind.STRING, value)


def integer(value: int) -> MetadataValue:
    """A metadata uint32, the kind in which llama.cpp expects counts and token ids."""
    return MetadataValue(ValueKind.UINT32, value)


def real(value: float) -> MetadataValue:
    """A metadata float32."""
    return MetadataValue(ValueKind.FLOAT32, float(value))


def boolean(value: bool) -> MetadataValue:
    """A metadata bool."""
    return MetadataValue(ValueKind.BOOL, value)


def array(item_kind: ValueKind, items: Iterable[Scalar]) -> MetadataValue:
    """A metadata array of one kind of item."""
    return MetadataValue(ValueKind.ARRAY, list(items), item_kind)


def write_container(path: Path, fields: Mapping[str, MetadataValue], tensors: Sequence[StoredTensor]) -> None:
    """Write a GGUF file, atomically; `general.alignment` is left out, so the alignment is 32 bytes.

    Raises BadRequest if `path` exists, BadFile if it cannot be written.
    """
    written = {key: field for key, field in fields.items() if key != ROOT_ALIGNMENT_KEY}
    with new_file(path) as file:
        file.write(MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(written)))
        for key, field in written.items():
            file.write(_text(key) + struct.pack("<I", field.kind) + _encode(field))
        offset = 0
        for tensor in tensors:
            shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
            file.write(_text(tensor.name) + shape + struct.pack("<IQ", tensor.kind.number, offset))
            offset += _padded(tensor.num_bytes)
        _pad(file)
        for tensor in tensors:
            _write_tensor(file, tensor)


def _write_tensor(file: BinaryIO, tensor: StoredTensor) -> None:
    start = file.tell()
    for piece in tensor.pieces():
        file.write(piece.data)
    written = file.tell() - start
    assert written == tensor.num_bytes, f"{tensor.name}: wrote {written} of {tensor.num_bytes} bytes"
    _pad(file)


def _encode(field: MetadataValue) -> bytes:
    if field.kind is not ValueKind.ARRAY:
        return _encode_items(field.kind, [field.value])  # type: ignore[list-item]
    assert field.item_kind is not None and isinstance(field.value, list)
    return struct.pack("<IQ", field.item_kind, len(field.value)) + _encode_items(field.item_kind, field.value)


def _encode_items(kind: ValueKind, items: Sequence[Scalar]) -> bytes:
    if kind is ValueKind.STRING:
        return b"".join(_text(str(item)) for item in items)
    return np.array(items, dtype=NUMBER_FORMATS[kind]).tobytes()


def _text(value: str) -> bytes:
    raw = value.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT


def _pad(file: BinaryIO) -> None:
    position = file.tell()
    file.write(bytes(_padded(position) - position))
