"""Write a Hugging Face folder that transformers loads unchanged: config.json, weights and other files.

Leaves out GGUF (`gguf_export.py`) and adapters. Weights stream to the disk one tensor at a time (the
safetensors library's `save_file` first makes a second copy of them all), and the folder appears under its
name only when complete.
Source: the safetensors format description; the index file as transformers writes it.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groschen.errors import BadRequest
from groschen.model.atomic import new_folder, write_synced
from groschen.model.safetensors_folder import DTYPES, INDEX_FILE, SINGLE_FILE

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MORE_TEMPLATES = "additional_chat_templates"  # the one folder that may lie inside, for templates by name
_RESERVED = ("config.json", INDEX_FILE, SINGLE_FILE)


def write_folder(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    extra_files: Mapping[str, bytes | str],
    shard_bytes: int = 5_000_000_000,
) -> None:
    """Write config, weights and extra files (tokenizer, template, card) as a new folder, all or nothing.

    tensors: by checkpoint name; stored bit for bit in the type they have, in shards of at most `shard_bytes`
    of data. The config's data type is set to that of the weights; a head that the config ties to the
    embedding is not stored.
    Raises BadRequest if `folder` is in use or the arguments contradict each other, BadFile if the disk
    refuses.
    """
    stored = _without_tied_head(config, tensors)
    for name in extra_files:
        *folders, last = name.split("/")
        is_plain = last not in ("", ".", "..") and "\\" not in name and folders in ([], [_MORE_TEMPLATES])
        if not is_plain or name in _RESERVED or name.endswith(".safetensors"):
            raise BadRequest(
                f"'{name}' cannot be an extra file of a checkpoint folder; choose another plain file name"
            )
    shards = _split(stored, shard_bytes)
    with new_folder(folder) as place:
        _write(place / "config.json", _json(_with_dtype(config, stored)))
        for name, content in extra_files.items():
            (place / name).parent.mkdir(exist_ok=True)
            _write(place / name, content)
        for file_name, shard in shards.items():
            write_safetensors(place / file_name, shard)
        if len(shards) > 1:
            _write(place / INDEX_FILE, _json(_index(shards)))


def _without_tied_head(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    stored = dict(tensors)
    is_gemma = str(config.get("model_type", "")).startswith("gemma")
    if HEAD in stored and config.get("tie_word_embeddings", is_gemma):
        if EMBEDDING not in stored or not torch.equal(stored[HEAD], stored[EMBEDDING]):
            raise BadRequest(
                f"the config ties the head to the embedding, but '{HEAD}' differs; set tie_word_embeddings "
                "false"
            )
        del stored[HEAD]
    for name, tensor in stored.items():
        if tensor.dtype not in _NAMES:
            raise BadRequest(
                f"tensor '{name}' has the type {tensor.dtype}, which safetensors cannot store here; cast it"
            )
    return stored


def _with_dtype(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config with the type that most numbers have, under the key that it uses.

    That was `torch_dtype` before transformers 4.56; later releases read both.
    """
    sizes: dict[torch.dtype, int] = {}
    for tensor in tensors.values():
        if tensor.is_floating_point():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    if not sizes:
        return dict(config)
    name = str(max(sizes, key=lambda dtype: sizes[dtype])).removeprefix("torch.")
    present = [key for key in ("dtype", "torch_dtype") if key in config]
    return dict(config) | dict.fromkeys(present or ["dtype"], name)


def _split(tensors: Mapping[str, Tensor], shard_bytes: int) -> dict[str, dict[str, Tensor]]:
    """Tensors by file name, in their order; a tensor larger than a shard has one to itself."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        return {SINGLE_FILE: shards[0]}
    return {
        f"model-{number:05d}-of-{len(shards):05d}.safetensors": shard
        for number, shard in enumerate(shards, 1)
    }


def _index(shards: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    total = sum(tensor.nbytes for shard in shards.values() for tensor in shard.values())
    places = {name: file_name for file_name, shard in shards.items() for name in shard}
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file and see it to the disk. Raises OSError."""
    # Widest types first, so that every tensor lies on a multiple of its own item size.
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name in order:
        tensor = tensors[name]
        offsets: Sequence[int] = (position, position + tensor.nbytes)
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": list(offsets),
        }
        position += tensor.nbytes
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with write_synced(path) as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for name in order:
            numbers = tensors[name].detach().cpu().contiguous().reshape(-1)
            file.write(numbers.view(torch.uint8).numpy().data)


def _write(path: Path, content: bytes | str) -> None:
    with write_synced(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
