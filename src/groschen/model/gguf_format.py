"""Read the GGUF container: header, metadata and where each tensor lies, all checked against the file's size.

Leaves out what the numbers mean (`gguf_blocks.py`), what the names mean (`gguf_names.py`) and writing
(`gguf_writer.py`). Plain reads instead of a memory map, so that pages once read do not count as memory of the
process and a file that shrinks while it is read gives an error instead of a bus fault.
Source: the GGUF specification (ggml, docs/gguf.md), versions 2 and 3.
"""

import math
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from groschen.errors import BadFile, Unsupported
from groschen.files import open_regular

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
ROOT_ALIGNMENT_KEY = "general.alignment"
_MAX_DIMENSIONS = 4
_MOST_ITEMS = 1 << 22  # of an array: a vocabulary with its merges has some hundred thousand
_SMALLEST_FIELD = 8 + 1 + 4 + 1  # bytes: key length, one character of key, kind, a one-byte value
_SMALLEST_TENSOR_INFO = 8 + 1 + 4 + 8 + 4 + 8  # bytes: name length, name, rank, one dimension, type, offset

Scalar = bool | int | float | str


class ValueKind(IntEnum):
    """The thirteen kinds of metadata value, by their number in the file."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


NUMBER_FORMATS: dict[ValueKind, str] = {
    ValueKind.UINT8: "<u1",
    ValueKind.INT8: "<i1",
    ValueKind.UINT16: "<u2",
    ValueKind.INT16: "<i2",
    ValueKind.UINT32: "<u4",
    ValueKind.INT32: "<i4",
    ValueKind.FLOAT32: "<f4",
    ValueKind.BOOL: "|b1",
    ValueKind.UINT64: "<u8",
    ValueKind.INT64: "<i8",
    ValueKind.FLOAT64: "<f8",
}


@dataclass(frozen=True, slots=True)
class MetadataValue:
    """One metadata value with its exact kind, so that it can be written again unchanged."""

    kind: ValueKind
    value: Scalar | list[Scalar]
    item_kind: ValueKind | None = None  # of the items, if `kind` is ARRAY


@dataclass(frozen=True, slots=True)
class TensorType:
    """How a tensor's numbers are stored: `block` numbers at a time in `block_bytes` bytes."""

    number: int
    name: str
    block: int
    block_bytes: int


TENSOR_TYPES: dict[str, TensorType] = {
    kind.name: kind
    for kind in (
        TensorType(0, "F32", 1, 4),
        TensorType(1, "F16", 1, 2),
        TensorType(2, "Q4_0", 32, 18),
        TensorType(3, "Q4_1", 32, 20),
        TensorType(6, "Q5_0", 32, 22),
        TensorType(7, "Q5_1", 32, 24),
        TensorType(8, "Q8_0", 32, 34),
        TensorType(12, "Q4_K", 256, 144),
        TensorType(13, "Q5_K", 256, 176),
        TensorType(14, "Q6_K", 256, 210),
        TensorType(20, "IQ4_NL", 32, 18),
        TensorType(30, "BF16", 1, 2),
    )
}
_TYPE_BY_NUMBER = {kind.number: kind for kind in TENSOR_TYPES.values()}
_NAMES_OF_TYPES_NOT_READ = {
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS",
    18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16",
    26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies. `shape` is in torch's order: rows first, the stored (contiguous) axis last."""

    name: str
    shape: tuple[int, ...]
    kind: TensorType
    offset: int  # bytes from the start of the file
    num_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; a tensor with one axis has rows of one number."""
        rows = self.shape[0] if len(self.shape) > 1 or self.kind.block == 1 else 1
        return self.num_bytes // rows


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF file whose header was read and found to fit the file."""

    path: Path
    version: int
    fields: dict[str, MetadataValue]
    tensors: dict[str, TensorInfo]
    metadata: dict[str, Scalar | list[Scalar]] = field(init=False)  # `fields` without the kinds

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", {key: item.value for key, item in self.fields.items()})

    def read_bytes(
        self, info: TensorInfo, first_row: int = 0, last_row: int | None = None
    ) -> NDArray[np.uint8]:
        """The stored bytes of rows `first_row` to `last_row` (excluded), flat; BadFile if the file shrank."""
        stop = info.num_bytes if last_row is None else last_row * info.row_bytes
        start = first_row * info.row_bytes
        try:
            raw = np.fromfile(self.path, dtype=np.uint8, count=stop - start, offset=info.offset + start)
        except OSError as error:
            raise BadFile(f"{self.path} cannot be read any more ({error}); check the disk") from error
        if raw.size != stop - start:
            raise BadFile(
                f"{self.path} became shorter while tensor '{info.name}' was read; get the file again"
            )
        return raw


def read_gguf(path: Path) -> GgufFile:
    """Header, metadata and tensor places of the GGUF file at `path`; no tensor is read.

    Raises BadFile if the file is missing, truncated, corrupt or has another byte order, Unsupported if a
    tensor has a storage type that `gguf_blocks.py` does not read.
    """
    with open_regular(path, "check the path") as file:
        return _Reader(path, file, os.fstat(file.fileno()).st_size).read()


class _Reader:
    """A position in the file that never leaves it."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size, self.position = path, file, size, 0

    def read(self) -> GgufFile:
        version = self._version()
        num_tensors = self._count("<Q", _SMALLEST_TENSOR_INFO, "tensors")
        num_fields = self._count("<Q", _SMALLEST_FIELD, "metadata fields")
        fields: dict[str, MetadataValue] = {}
        for _ in range(num_fields):
            key = self.text("a metadata key")
            if key in fields:
                raise self.corrupt(f"the metadata key '{key}' appears twice")
            fields[key] = self._value(key)
        infos = [self._tensor_info() for _ in range(num_tensors)]
        return GgufFile(self.path, version, fields, self._place(infos, self._alignment(fields)))

    def _version(self) -> int:
        magic = self.take(4, "the magic number")
        if magic != MAGIC:
            raise BadFile(
                f"{self.path} is not a GGUF file: it begins with {magic!r}, expected {MAGIC!r}; check the "
                "path"
            )
        version = self.number("<I", "the version")
        if version & 0xFFFF == 0:
            raise BadFile(
                f"{self.path} is a big-endian GGUF file; only little-endian ones are read: convert it again"
            )
        if version not in (2, 3):
            raise BadFile(
                f"{self.path} has GGUF version {version}; versions 2 and 3 are read: convert it again"
            )
        return version

    def corrupt(self, what: str) -> BadFile:
        return BadFile(
            f"{self.path} is corrupt: {what[:300]} (near byte {self.position:,}); get the file again"
        )

    def take(self, num_bytes: int, what: str) -> bytes:
        try:
            data = self.file.read(num_bytes) if num_bytes <= self.size - self.position else b""
        except OSError as error:
            raise BadFile(
                f"{self.path} cannot be read ({error.strerror or error}); check the disk"
            ) from error
        if len(data) != num_bytes:
            raise BadFile(
                f"{self.path} is truncated or corrupt: {what[:200]} needs {num_bytes:,} bytes at byte "
                f"{self.position:,}, but the file has {self.size:,}; get the file again"
            )
        self.position += num_bytes
        return data

    def number(self, layout: str, what: str) -> int:
        return int(struct.unpack(layout, self.take(struct.calcsize(layout), what))[0])

    def text(self, what: str) -> str:
        raw = self.take(self.number("<Q", f"the length of {what}"), what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.corrupt(f"{what} is not UTF-8 text") from error

    def _count(self, layout: str, smallest: int, what: str) -> int:
        count = self.number(layout, f"the number of {what}")
        if count * smallest > self.size - self.position:
            raise self.corrupt(f"it announces {count:,} {what}, more than {self.size:,} bytes can hold")
        if count > _MOST_ITEMS:
            raise self.corrupt(f"it has {count:,} {what}, expected at most {_MOST_ITEMS:,}")
        return count

    def _kind(self, key: str) -> ValueKind:
        number = self.number("<I", f"the kind of '{key}'")
        if number not in ValueKind.__members__.values():
            raise self.corrupt(f"the metadata key '{key}' has the unknown kind {number}")
        return ValueKind(number)

    def _value(self, key: str) -> MetadataValue:
        kind = self._kind(key)
        if kind is not ValueKind.ARRAY:
            return MetadataValue(kind, self._items(kind, 1, key)[0])
        item_kind = self._kind(key)
        if item_kind is ValueKind.ARRAY:
            raise Unsupported(
                f"the metadata key '{key[:100]}' of {self.path} holds arrays of arrays, which are not read"
            )
        smallest = 8 if item_kind is ValueKind.STRING else np.dtype(NUMBER_FORMATS[item_kind]).itemsize
        count = self._count("<Q", smallest, f"items of '{key}'")
        return MetadataValue(kind, self._items(item_kind, count, key), item_kind)

    def _items(self, kind: ValueKind, count: int, key: str) -> list[Scalar]:
        if kind is ValueKind.STRING:
            return [self.text(f"a text of '{key}'") for _ in range(count)]
        layout = np.dtype(NUMBER_FORMATS[kind])
        items: list[Scalar] = np.frombuffer(self.take(count * layout.itemsize, f"'{key}'"), layout).tolist()
        return items

    def _alignment(self, fields: dict[str, MetadataValue]) -> int:
        if ROOT_ALIGNMENT_KEY not in fields:
            return DEFAULT_ALIGNMENT
        value = fields[ROOT_ALIGNMENT_KEY].value
        if not isinstance(value, int) or value < 8 or value > 2**20 or value & (value - 1):
            raise self.corrupt(
                f"'{ROOT_ALIGNMENT_KEY}' is {value!r}, expected a power of two from 8 to 1,048,576"
            )
        return value

    def _tensor_info(self) -> TensorInfo:
        """One tensor's entry; its offset still counts from the start of the data section."""
        name = self.text("a tensor's name")
        rank = self.number("<I", f"the rank of '{name}'")
        if not 1 <= rank <= _MAX_DIMENSIONS:
            raise self.corrupt(f"tensor '{name}' has {rank:,} dimensions, expected 1 to {_MAX_DIMENSIONS}")
        shape = tuple(self.number("<Q", f"the shape of '{name}'") for _ in range(rank))[::-1]
        type_number = self.number("<I", f"the type of '{name}'")
        if type_number not in _TYPE_BY_NUMBER:
            found = _NAMES_OF_TYPES_NOT_READ.get(type_number, f"type {type_number}")
            raise Unsupported(
                f"tensor '{name[:100]}' of {self.path} is stored as {found}, which is not read; "
                f"use a file with {', '.join(TENSOR_TYPES)} only"
            )
        kind = _TYPE_BY_NUMBER[type_number]
        if 0 in shape or shape[-1] % kind.block:
            raise self.corrupt(f"tensor '{name}' has the shape {shape}, impossible in blocks of {kind.block}")
        offset = self.number("<Q", f"the offset of '{name}'")
        return TensorInfo(name, shape, kind, offset, math.prod(shape) // kind.block * kind.block_bytes)

    def _place(self, infos: Iterable[TensorInfo], alignment: int) -> dict[str, TensorInfo]:
        """Tensors by name, offsets from the start of the file; each lies inside it and none overlap."""
        data_start = -(-self.position // alignment) * alignment
        placed: dict[str, TensorInfo] = {}
        end_of_last = 0
        for info in sorted(infos, key=lambda info: info.offset):
            start = data_start + info.offset
            if info.name in placed:
                raise self.corrupt(f"the tensor '{info.name}' appears twice")
            if info.offset % alignment or start < end_of_last:
                raise self.corrupt(
                    f"tensor '{info.name}' begins at byte {start:,}, misaligned or inside another tensor"
                )
            end_of_last = start + info.num_bytes
            if end_of_last > self.size:
                raise BadFile(
                    f"{self.path} is truncated or corrupt: tensor '{info.name[:100]}' ends at byte "
                    f"{end_of_last:,}, but the file has {self.size:,}; get the file again"
                )
            placed[info.name] = TensorInfo(info.name, info.shape, info.kind, start, info.num_bytes)
        return placed
