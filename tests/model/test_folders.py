"""What users point at instead of a plain model folder: each loads, or the sentence says what it is."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import FAMILIES, tiny_model

from groschen import machine
from groschen.errors import BadFile
from groschen.model import load, transformer
from groschen.model.checkpoint import open_checkpoint
from groschen.model.folder_writer import write_folder
from groschen.model.load import load_model
from groschen.model.tensor_shapes import tensor_shapes

NEXT = "model.embed_tokens.weight", "lm_head.weight"


def saved(folder: Path, family: str = "qwen2", **changes: Any) -> dict[str, torch.Tensor]:
    tensors = {name: tensor.clone() for name, tensor in tiny_model(family).tensors().items()}
    write_folder(folder, {**FAMILIES[family], **changes}, tensors, {})
    return tensors


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shapes_that_are_expected_are_those_of_the_model(family: str) -> None:
    model = tiny_model(family)
    assert tensor_shapes(model.config) == {name: tuple(t.shape) for name, t in model.tensors().items()}


def test_a_tied_model_that_was_saved_with_its_head_alone_loads(tmp_path: Path) -> None:
    tensors = saved(tmp_path / "whole")
    embedding, head = NEXT
    renamed = {head if name == embedding else name: tensor for name, tensor in tensors.items()}
    write_folder(tmp_path / "head", {**FAMILIES["qwen2"], "tie_word_embeddings": False}, renamed, {})
    path = tmp_path / "head" / "config.json"
    path.write_text(json.dumps(FAMILIES["qwen2"]))
    loaded = load_model(str(tmp_path / "head")).tensors()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    path.write_text(json.dumps({**FAMILIES["qwen2"], "tie_word_embeddings": False}))
    with pytest.raises(BadFile, match=r"lacks model\.embed_tokens\.weight"):
        load_model(str(tmp_path / "head"))


def test_an_adapter_and_a_folder_with_a_gguf_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "org/base", "peft_type": "LORA"}'
    )
    with pytest.raises(BadFile, match="is a LoRA adapter for org/base, not a model; merge it"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "adapter_config.json").unlink()
    (tmp_path / "model-q4_k_m.gguf").write_bytes(b"GGUF")
    with pytest.raises(BadFile, match=rf"no config.json, but 1 GGUF file.*give {tmp_path}/model-q4_k_m.gguf"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadFile, match=rf"neither .*; give its file {tmp_path}/model-q4_k_m.gguf"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size": 2**24, "hidden_size": 2**20},
        {"intermediate_size": 2**24, "num_hidden_layers": 1000},
        {"head_dim": 2**20},
    ],
)
def test_shapes_are_compared_before_any_memory_is_taken(
    changes: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(json.dumps({**FAMILIES["qwen2"], **changes}))
    monkeypatch.setattr(transformer, "_parameter", lambda *args, **kwargs: pytest.fail("took memory"))
    monkeypatch.setattr(machine, "free_memory_bytes", lambda device: 1 << 60)
    with pytest.raises(BadFile, match=r"of the wrong shape|lacks") as refusal:
        load.load_model(str(tmp_path / "m"))
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("source", ["a" * 5000, "a/" * 3000, "a\0b", "~nobody-of-this-name/x"])
def test_what_is_no_path_is_one_sentence(source: str) -> None:
    with pytest.raises(BadFile, match="there is no model at"):
        open_checkpoint(source)


@pytest.mark.parametrize(
    "shard", ["b" * 5000, "..", "", "a\0b", "/etc/passwd", 5, None, "nothing.safetensors"]
)
def test_a_shard_of_any_name_is_one_short_sentence(shard: object, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    index = {"weight_map": {"c" * 5000: shard}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadFile) as refusal:
        open_checkpoint(str(tmp_path))
    assert len(str(refusal.value).replace(str(tmp_path), "")) < 700
