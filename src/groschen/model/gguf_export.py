"""Write a model as a GGUF file that llama.cpp loads: names, row order, metadata and storage types.

Leaves out reading (`gguf_checkpoint.py`), the tokenizer's metadata (`gguf_tokenizer.py`) and every
quantisation but Q8_0: for those, give a bf16 file to llama.cpp's `llama-quantize`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groschen.errors import BadRequest, Unsupported
from groschen.model.gguf_blocks import quantise_q8_0
from groschen.model.gguf_format import TENSOR_TYPES, MetadataValue, TensorType
from groschen.model.gguf_metadata import metadata_of_config
from groschen.model.gguf_names import ROPE_FACTORS, Architecture, gguf_name, rotary_heads, rows_in_gguf
from groschen.model.gguf_rope import Rope, llama3_divisors
from groschen.model.gguf_writer import StoredTensor, integer, text, write_container

Kind = Literal["bf16", "f16", "q8_0"]

_FILE_TYPES: dict[str, int] = {"f16": 1, "q8_0": 7, "bf16": 32}  # llama.cpp's LLAMA_FTYPE numbers
_QUANTISATION_VERSION = 2
_FLOAT16_MAX = 65_504.0
_NUMBERS_AT_ONCE = 1 << 22  # 16 MiB in float32
_HEAD = "lm_head.weight"
_EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class _Heads:
    queries: int
    keys: int


def write_gguf(
    path: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    tokenizer_metadata: Mapping[str, MetadataValue],
    kind: Kind = "bf16",
    name: str | None = None,
) -> None:
    """Write the new file `path`, atomically; tensors are converted piece by piece.

    config: of config.json. tensors: by Hugging Face name; those with one axis stay float32, rows that are not
    a multiple of 32 long stay float16 in a q8_0 file. tokenizer_metadata: from `gguf_tokenizer.py`, or the
    `tokenizer.*` fields of the GGUF file that the model came from. name: shown by llama.cpp.
    Raises Unsupported for what llama.cpp cannot compute, BadRequest if vocabulary and embedding differ in
    length or a number does not fit float16.
    """
    architecture, fields, rope = metadata_of_config(config)
    _check_vocabulary(tensors, tokenizer_metadata)
    head = {
        "general.architecture": text(architecture.name),
        "general.type": text("model"),
        "general.name": text(name or path.stem),
        "general.file_type": integer(_FILE_TYPES[kind]),
        "general.quantization_version": integer(_QUANTISATION_VERSION),
    }
    heads = _Heads(
        config["num_attention_heads"], config.get("num_key_value_heads") or config["num_attention_heads"]
    )
    stored = [
        _stored(name, tensor, architecture, heads, kind)
        for name, tensor in tensors.items()
        if not (name == _HEAD and _is_tied(config, architecture, tensor, tensors))
    ]
    if rope.kind == "llama3":
        stored.append(_rope_factors(rope, fields[f"{architecture.name}.rope.dimension_count"]))
    write_container(path, {**head, **fields, **tokenizer_metadata}, stored)


def tokenizer_fields(fields: Mapping[str, MetadataValue]) -> dict[str, MetadataValue]:
    """The tokenizer's part of a GGUF file's fields, to be written again unchanged."""
    return {key: field for key, field in fields.items() if key.startswith("tokenizer.")}


def _check_vocabulary(tensors: Mapping[str, Tensor], tokenizer_metadata: Mapping[str, MetadataValue]) -> None:
    field = tokenizer_metadata.get("tokenizer.ggml.tokens")
    num_tokens = len(field.value) if field is not None and isinstance(field.value, list) else 0
    num_rows = tensors[_EMBEDDING].shape[0]
    if num_tokens != num_rows:
        raise BadRequest(
            f"the tokenizer has {num_tokens:,} tokens and the embedding {num_rows:,} rows; llama.cpp needs "
            "as many: make the tokenizer's metadata with vocab_size set to the rows"
        )


def _is_tied(
    config: Mapping[str, Any], architecture: Architecture, head: Tensor, tensors: Mapping[str, Tensor]
) -> bool:
    """Whether the head is left out because llama.cpp takes the embedding for it."""
    if not (config.get("tie_word_embeddings") or architecture.always_tied):
        return False
    if not torch.equal(head, tensors[_EMBEDDING]):
        raise Unsupported(
            f"'{_HEAD}' differs from the embedding that {architecture.name} ties it to; it cannot be exported"
        )
    return True


def _stored(name: str, tensor: Tensor, architecture: Architecture, heads: _Heads, kind: Kind) -> StoredTensor:
    stored_name = gguf_name(name, architecture)
    if stored_name is None:
        raise Unsupported(f"llama.cpp has no tensor like '{name}' for the architecture '{architecture.name}'")
    kind_name = "F32" if tensor.dim() == 1 else kind.upper()
    if kind_name == "Q8_0" and tensor.shape[-1] % TENSOR_TYPES["Q8_0"].block:
        kind_name = "F16"
    num_heads = rotary_heads(name, architecture, heads.queries, heads.keys)
    rows = None if num_heads is None else torch.argsort(rows_in_gguf(tensor.shape[0], num_heads))
    offset = architecture.norm_offset if name.endswith("norm.weight") else 0.0
    return StoredTensor(
        stored_name,
        tuple(tensor.shape),
        TENSOR_TYPES[kind_name],
        _pieces(name, tensor, rows, offset, TENSOR_TYPES[kind_name]),
    )


def _pieces(
    name: str, tensor: Tensor, rows: Tensor | None, offset: float, kind: TensorType
) -> Callable[[], Iterator[NDArray[np.uint8]]]:
    """The bytes of a tensor in runs of whole rows; `rows` says which row goes where, `offset` is added."""
    row_numbers = max(1, tensor.numel() // tensor.shape[0])
    step = max(1, _NUMBERS_AT_ONCE // row_numbers)

    def pieces() -> Iterator[NDArray[np.uint8]]:
        for start in range(0, tensor.shape[0], step):
            part = (
                tensor.detach()[start : start + step]
                if rows is None
                else tensor.detach()[rows[start : start + step]]
            )
            yield _encode(name, part.float().cpu() + offset if offset else part.float().cpu(), kind)

    return pieces


def _encode(name: str, numbers: Tensor, kind: TensorType) -> NDArray[np.uint8]:
    flat = numbers.contiguous().reshape(-1)
    largest = {"F16": _FLOAT16_MAX, "Q8_0": 127 * _FLOAT16_MAX}.get(kind.name, math.inf)
    if not bool(flat.abs().max() <= largest):  # a NaN is not
        raise BadRequest(
            f"tensor '{name}' has numbers beyond {largest:,} or NaN, which {kind.name} cannot hold"
        )
    if kind.name == "Q8_0":
        return quantise_q8_0(flat.numpy())
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind.name]
    encoded: NDArray[np.uint8] = flat.to(dtype).view(torch.uint8).numpy()
    return encoded


def _rope_factors(rope: Rope, head_dim: MetadataValue) -> StoredTensor:
    assert isinstance(head_dim.value, int)
    divisors = llama3_divisors(rope, head_dim.value)
    raw = divisors.numpy().view(np.uint8)
    return StoredTensor(ROPE_FACTORS, tuple(divisors.shape), TENSOR_TYPES["F32"], lambda: [raw])
