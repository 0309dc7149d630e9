"""`groschen export MODEL TARGET`: the same weights for other programs, as a Hugging Face folder or a GGUF
file.

Leaves out quantisation below 8 bits: `llama-quantize` makes it from a bf16 file.
"""

import json
from pathlib import Path

import torch

from groschen.errors import Unsupported
from groschen.model.checkpoint import Checkpoint, open_checkpoint
from groschen.model.config import ModelConfig
from groschen.model.folder_writer import write_folder
from groschen.model.gguf_export import Kind, tokenizer_fields, write_gguf
from groschen.model.gguf_format import MetadataValue, read_gguf
from groschen.model.gguf_tokenizer import tokenizer_metadata
from groschen.text.bundle import Text
from groschen.text.load import load_text


def export_folder(source: str, target: Path) -> None:
    """Write a new folder that transformers and vLLM load: weights in bfloat16 (bit for bit if they were),
    tokenizer, template.

    Raises BadFile or Unsupported for the source, BadRequest if the target exists.
    """
    checkpoint = open_checkpoint(source)
    ModelConfig.from_json(checkpoint.config)  # what this project cannot compute, it does not pass on
    files = load_text(checkpoint.source).files()
    write_folder(target, checkpoint.config, _weights(checkpoint), files)


def export_gguf(source: str, target: Path, kind: Kind) -> None:
    """Write a new GGUF file that llama.cpp and Ollama load; `kind` is the type of the matrices."""
    checkpoint = open_checkpoint(source)
    config = ModelConfig.from_json(checkpoint.config)
    fields = _tokenizer_fields(checkpoint.source, load_text(checkpoint.source), config.vocab_size)
    write_gguf(target, checkpoint.config, _weights(checkpoint), fields, kind)


def _weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {name: checkpoint.read(name).to(torch.bfloat16) for name in checkpoint.names()}


def _tokenizer_fields(source: Path, text: Text, vocab_size: int) -> dict[str, MetadataValue]:
    """A GGUF file's own fields unchanged, a folder's translated."""
    if source.is_file():
        return tokenizer_fields(read_gguf(source).fields)
    settings = json.loads(text.files()["tokenizer_config.json"])
    if text.template is not None:
        sources = text.template.sources
        if "default" not in sources:
            raise Unsupported(
                f"{source} has chat templates named {', '.join(sorted(sources))}, but none named default, "
                "which is the one that llama.cpp takes; name one of them default"
            )
        settings["chat_template"] = [{"name": name, "template": item} for name, item in sources.items()]
    return tokenizer_metadata(json.loads(text.tokenizer.backend.to_str()), settings, vocab_size)
