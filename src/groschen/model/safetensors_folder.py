"""Read a Hugging Face folder: config.json with model.safetensors or its shards.

Leaves out writing (`folder_writer.py`) and any pickle. The header is checked against the file's size before a
tensor is read, and tensors come by plain reads: pages of a memory map, which safetensors' own reader makes,
would count as memory of the process until it ends, twice the weights at the peak.
Source: the safetensors format description (8 bytes of header length, JSON, data).
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groschen.errors import BadFile, Unsupported
from groschen.files import is_there, open_regular, read_object
from groschen.model.families import DEFAULTS
from groschen.model.values import shown

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_MOST_DIMENSIONS = 8
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_ADAPTER = "adapter_config.json"  # of a folder that peft wrote
_COMPLETE = "get the folder again, complete"

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_WEIGHT_DTYPES = ("F32", "F16", "BF16", "F64")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor lies; `offset` counts in bytes from the start of the file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


class SafetensorsFolder:
    """The model in one Hugging Face folder."""

    def __init__(self, source: Path) -> None:
        """Read config.json and the headers of all weight files in the folder `source`.

        Raises BadFile if a file is missing, truncated, corrupt or does not fit the others.
        """
        self.source = source
        _check_is_model(source)
        self.config: dict[str, Any] = read_object(source / "config.json")
        self._places: dict[str, _Place] = {}
        for path, expected in _weight_files(source).items():
            found = _read_header(path)
            missing = sorted(expected - found.keys())
            if missing:
                raise BadFile(
                    f"{path} lacks the tensor '{missing[0][:100]}' that {INDEX_FILE} says it has; get both "
                    "files again"
                )
            twice = sorted(found.keys() & self._places.keys())
            if twice:
                raise BadFile(
                    f"the tensor '{twice[0][:100]}' is in {path} and in another shard; get the folder again"
                )
            self._places |= found
        self._name_tied_head()

    def _name_tied_head(self) -> None:
        """Of a tied model that was saved with the head alone, the head is the embedding."""
        family = self.config.get("model_type")
        default = DEFAULTS.get(family, {}) if isinstance(family, str) else {}
        is_tied = self.config.get("tie_word_embeddings", default.get("tie_word_embeddings"))
        if is_tied is True and _HEAD in self._places and _EMBEDDING not in self._places:
            self._places[_EMBEDDING] = self._places.pop(_HEAD)

    def names(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each tensor by its name."""
        return {name: place.shape for name, place in self._places.items()}

    def read(self, name: str) -> Tensor:
        """The whole tensor `name`, in the type it is stored in; Unsupported if that isn't a float type."""
        return _read_whole(name, self._places[name])

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` (excluded) of the tensor `name`, in the type it is stored in."""
        place = self._places[name]
        width = math.prod(place.shape[1:])
        return _read(name, place, start * width, stop * width).reshape(stop - start, *place.shape[1:])


class SafetensorsFile:
    """The tensors of one file that is no model, such as the state of an optimizer."""

    def __init__(self, path: Path) -> None:
        """Read the header. Raises BadFile if the file is missing, truncated or corrupt."""
        self._places = _read_header(path)

    def names(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each tensor by its name."""
        return {name: place.shape for name, place in self._places.items()}

    def read(self, name: str) -> Tensor:
        """The whole tensor `name`, in the type it is stored in."""
        return _read_whole(name, self._places[name])


def _read_whole(name: str, place: _Place) -> Tensor:
    return _read(name, place, 0, math.prod(place.shape)).reshape(place.shape)


def _read(name: str, place: _Place, start: int, stop: int) -> Tensor:
    if place.dtype not in _WEIGHT_DTYPES:
        raise Unsupported(
            f"tensor '{name}' of {place.path} is stored as {place.dtype}; only "
            f"{', '.join(_WEIGHT_DTYPES)} are read: use a checkpoint that is not quantised"
        )
    dtype = DTYPES[place.dtype]
    numbers = torch.empty(stop - start, dtype=dtype)
    with open_regular(place.path) as file:
        file.seek(place.offset + start * dtype.itemsize)
        num_read = file.readinto(numbers.view(torch.uint8).numpy().data) if stop > start else 0
    if num_read != numbers.nbytes:
        raise BadFile(f"{place.path} became shorter while tensor '{name}' was read; get the file again")
    return numbers


def _check_is_model(folder: Path) -> None:
    """Raises a BadFile that names what the folder holds instead, where that can be told."""
    if is_there(folder / "config.json"):
        return
    if is_there(folder / _ADAPTER):
        base = read_object(folder / _ADAPTER).get("base_model_name_or_path")
        raise BadFile(
            f"{folder} is a LoRA adapter for {str(base)[:200]}, not a model; merge it into that model first "
            "(peft: merge_and_unload, then save_pretrained)"
        )
    files = sorted(path.name for path in folder.glob("*.gguf"))
    if files:
        raise BadFile(f"{folder} has no config.json, but {len(files)} GGUF file(s); give {folder / files[0]}")


def _weight_files(folder: Path) -> dict[Path, set[str]]:
    """The weight files of a folder, each with the tensor names that the index expects in it."""
    if is_there(folder / SINGLE_FILE):
        return {folder / SINGLE_FILE: set()}
    if not is_there(folder / INDEX_FILE):
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        hint = (
            f"; {pickles[0]} is a pickle, which is never read: convert it to safetensors" if pickles else ""
        )
        ggufs = sorted(folder.glob("*.gguf"))
        hint = f"; give its file {ggufs[0]}" if ggufs else hint
        raise BadFile(
            f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}{hint or '; get the folder again, complete'}"
        )
    weight_map = read_object(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadFile(f"{folder / INDEX_FILE} has no 'weight_map'; get the file again")
    files: dict[Path, set[str]] = {}
    for name, file_name in weight_map.items():
        if not isinstance(file_name, str) or Path(file_name).name != file_name or len(file_name) > 255:
            raise BadFile(
                f"{folder / INDEX_FILE} places '{name[:100]}' in {shown(file_name)}, expected the name of a "
                "file beside it"
            )
        files.setdefault(folder / file_name, set()).add(name)
    missing = sorted(path.name for path in files if not is_there(path))
    if missing:
        raise BadFile(
            f"{folder} lacks {len(missing)} of {len(files)} weight files, {missing[0]} for one; get them "
            "again"
        )
    return files


def _read_header(path: Path) -> dict[str, _Place]:
    with open_regular(path, _COMPLETE) as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise BadFile(f"{path} is truncated: it has {size} bytes and no header; get the file again")
        num_bytes = int(struct.unpack("<Q", file.read(8))[0])
        if num_bytes > _LARGEST_HEADER or 8 + num_bytes > size:
            raise BadFile(
                f"{path} is truncated or corrupt: its header should have {num_bytes:,} bytes and the file "
                f"has {size:,}; get the file again"
            )
        raw = file.read(num_bytes)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path} is corrupt: its header is not valid JSON; get the file again") from error
    if not isinstance(header, dict):
        raise BadFile(f"{path} is corrupt: its header is not a JSON object; get the file again")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    return _place_all(path, entries, 8 + num_bytes, size)


def _place_all(path: Path, entries: Mapping[str, Any], data_start: int, size: int) -> dict[str, _Place]:
    """Places by name. The tensors must fill the data exactly, one after the other, as the format demands."""
    places: dict[str, _Place] = {}
    ranges: list[tuple[int, int, str]] = []
    for name, entry in entries.items():
        begin, end, place = _place(path, name, entry, data_start)
        places[name] = place
        ranges.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(ranges):
        if begin != position:
            raise BadFile(
                f"{path} is corrupt: tensor '{name[:100]}' begins at {begin:,}, expected {position:,}; get "
                "it again"
            )
        position = end
    if data_start + position != size:
        raise BadFile(
            f"{path} is {'truncated' if data_start + position > size else 'corrupt'}: its header speaks of "
            f"{data_start + position:,} bytes and the file has {size:,}; get the file again"
        )
    return places


def _place(path: Path, name: str, entry: Any, data_start: int) -> tuple[int, int, _Place]:
    """Begin and end of a tensor within the data, and its place, after its entry was checked."""
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (
        fields.get("dtype"),
        _counts(fields.get("shape")),
        _counts(fields.get("data_offsets")),
    )
    if shape is None or offsets is None or len(offsets) != 2 or not isinstance(dtype, str):
        raise BadFile(
            f"{path} is corrupt: '{name[:100]}' has the header entry {shown(entry)}; get the file again"
        )
    if dtype not in DTYPES:
        raise Unsupported(
            f"tensor '{name[:100]}' of {path} is stored as {dtype[:100]}, not read here: use another "
            "checkpoint"
        )
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPES[dtype].itemsize:
        raise BadFile(
            f"{path} is corrupt: '{name[:100]}' has {end - begin:,} bytes for {shape}; get the file again"
        )
    return begin, end, _Place(path, dtype, shape, data_start + begin)


def _counts(value: Any) -> tuple[int, ...] | None:
    """`value` as whole numbers from zero on, or None if it isn't a list of such."""
    if not isinstance(value, list) or len(value) > _MOST_DIMENSIONS:
        return None
    return tuple(value) if all(type(item) is int and 0 <= item < 1 << 63 for item in value) else None
