"""A GGUF file as a checkpoint: a config.json, Hugging Face names, and tensors dequantised as they are read.

Leaves out the tokenizer in the metadata (`text/load.py`) and writing (`gguf_export.py`). llama.cpp's
interleaving of q and k rows and Gemma's norm weights stored plus one are undone here, bit for bit where
float32 allows.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groschen.errors import BadFile, Unsupported
from groschen.model.gguf_blocks import dequantise
from groschen.model.gguf_config import architecture_of, config_of_gguf
from groschen.model.gguf_format import GgufFile, TensorInfo, read_gguf
from groschen.model.gguf_names import ROPE_FACTORS, hugging_face_name, rotary_heads, rows_in_gguf


class GgufCheckpoint:
    """The model in one GGUF file. `file.metadata` keeps what else it says, the tokenizer for example."""

    def __init__(self, source: Path) -> None:
        """Read the header of `source`.

        Raises BadFile if the file is truncated, corrupt or incomplete; Unsupported for an architecture, key
        or tensor that is not honoured, by name.
        """
        self.source = source
        self.file: GgufFile = read_gguf(source)
        self._architecture = architecture_of(self.file)
        self._infos = self._infos_by_name()
        if "model.embed_tokens.weight" not in self._infos:
            raise BadFile(f"{source} has no tensor 'token_embd.weight'; it holds no model, get another file")
        shapes = self.names()
        self.config: dict[str, Any] = config_of_gguf(self.file, shapes, self._rope_divisors())
        self._check_vocabulary(shapes["model.embed_tokens.weight"][0])

    def names(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each tensor by its Hugging Face name."""
        return {name: info.shape for name, info in self._infos.items()}

    def read(self, name: str) -> Tensor:
        """The whole tensor `name`, [names()[name]] float32."""
        return self.read_rows(name, 0, self._infos[name].shape[0])

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` (excluded) of the tensor `name`, [stop - start, ...] float32."""
        info = self._infos[name]
        heads = rotary_heads(
            name, self._architecture, self.config["num_attention_heads"], self.config["num_key_value_heads"]
        )
        if heads is None:
            raw = self.file.read_bytes(info, start, stop)
        else:
            rows = self._rows_in_file(info, heads)[start:stop]
            raw = self.file.read_bytes(info).reshape(info.shape[0], -1)[rows].reshape(-1)
        numbers = torch.from_numpy(dequantise(raw, info.kind)).reshape(stop - start, *info.shape[1:])
        if self._architecture.norm_offset and name.endswith("norm.weight"):
            numbers -= self._architecture.norm_offset
        return numbers

    def _rows_in_file(self, info: TensorInfo, heads: int) -> NDArray[np.int64]:
        num_rows = info.shape[0]
        if num_rows % (2 * heads):
            raise BadFile(
                f"tensor '{info.name}' of {self.source} has {num_rows} rows, not a multiple of 2 x {heads} "
                "heads"
            )
        rows: NDArray[np.int64] = rows_in_gguf(num_rows, heads).numpy()
        return rows

    def _infos_by_name(self) -> dict[str, TensorInfo]:
        infos: dict[str, TensorInfo] = {}
        for info in self.file.tensors.values():
            if info.name == ROPE_FACTORS:
                continue
            name = hugging_face_name(info.name, self._architecture)
            if name is None:
                raise Unsupported(
                    f"the tensor '{info.name[:100]}' of {self.source} is not known for the architecture "
                    f"'{self._architecture.name}'; the model computes something that is not built here"
                )
            infos[name] = info
        return infos

    def _rope_divisors(self) -> Tensor | None:
        info = self.file.tensors.get(ROPE_FACTORS)
        if info is None:
            return None
        return torch.from_numpy(dequantise(self.file.read_bytes(info), info.kind))

    def _check_vocabulary(self, num_rows: int) -> None:
        tokens = self.file.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, list) and len(tokens) > num_rows:
            raise BadFile(
                f"{self.source} lists {len(tokens):,} tokens, but its embedding has {num_rows:,} rows; get "
                "another file"
            )
