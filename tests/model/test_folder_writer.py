import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from file_samples import FAMILIES, logits_of, parts_of, tiny_model
from groschen.errors import BadRequest
from groschen.model.folder_writer import write_folder
from groschen.model.safetensors_folder import SafetensorsFolder


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_transformers_loads_what_was_written_bit_for_bit(
    tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    model = tiny_model(family, dtype)
    config, tensors = parts_of(model)
    write_folder(tmp_path / "m", config, tensors, {})
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not any(report.values())
    assert loaded.dtype == dtype
    found = dict(loaded.named_parameters())
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert torch.equal(logits_of(loaded), logits_of(model))


def test_our_reader_returns_the_same_bits_from_many_shards(tmp_path: Path) -> None:
    config, tensors = parts_of(tiny_model("qwen2"))
    write_folder(tmp_path / "m", config, tensors, {"README.md": "card", "x.json": b"{}"}, shard_bytes=30_000)
    shards = sorted((tmp_path / "m").glob("*.safetensors"))
    assert len(shards) > 3
    folder = SafetensorsFolder(tmp_path / "m")
    assert folder.names().keys() == tensors.keys()
    assert all(torch.equal(folder.read(name), tensor) for name, tensor in tensors.items())
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert all(torch.equal(parameter, tensors[name]) for name, parameter in loaded.named_parameters())
    assert (tmp_path / "m" / "README.md").read_text() == "card"


def test_the_safetensors_library_reads_mixed_types_and_the_format_mark(tmp_path: Path) -> None:
    tensors = {
        "b": torch.ones(3, dtype=torch.bfloat16),
        "f": torch.ones(2, 2),
        "view": torch.ones(4, 4)[:, 1],
    }
    write_folder(tmp_path / "m", {}, tensors, {})
    with safe_open(tmp_path / "m" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())


def test_a_tied_head_is_not_stored_and_a_contradiction_is_refused(tmp_path: Path) -> None:
    embedding = torch.randn(8, 4)
    tensors = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding}
    write_folder(tmp_path / "tied", {"tie_word_embeddings": True}, tensors, {})
    assert list(SafetensorsFolder(tmp_path / "tied").names()) == ["model.embed_tokens.weight"]
    write_folder(tmp_path / "untied", {"tie_word_embeddings": False}, tensors, {})
    assert set(SafetensorsFolder(tmp_path / "untied").names()) == set(tensors)
    with pytest.raises(BadRequest, match="ties the head"):
        write_folder(
            tmp_path / "x", {"model_type": "gemma3_text"}, {**tensors, "lm_head.weight": embedding + 1}, {}
        )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {"dtype": "float16"}),
        ({"torch_dtype": "float32"}, {"torch_dtype": "float16"}),
        ({"dtype": "float32", "torch_dtype": "float32"}, {"dtype": "float16", "torch_dtype": "float16"}),
    ],
)
def test_the_config_names_the_type_of_the_weights(
    tmp_path: Path, config: dict[str, str], expected: dict[str, str]
) -> None:
    write_folder(tmp_path / "m", config, {"a": torch.ones(9, dtype=torch.float16), "norm": torch.ones(2)}, {})
    assert json.loads((tmp_path / "m" / "config.json").read_text()) == expected


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "config.json",
        "a/b",
        "additional_chat_templates/../x",
        "additional_chat_templates/",
        "model.safetensors",
        "w.safetensors",
    ],
)
def test_an_extra_file_cannot_take_the_place_of_a_weight_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest, match="extra file"):
        write_folder(tmp_path / "m", {}, {"a": torch.ones(1)}, {name: b""})
    assert not (tmp_path / "m").exists()


def test_templates_by_name_lie_in_the_one_folder_that_may_be_inside(tmp_path: Path) -> None:
    files = {"chat_template.jinja": b"plain", "additional_chat_templates/tool_use.jinja": b"with tools"}
    write_folder(tmp_path / "m", {}, {"a": torch.ones(1)}, files)
    assert (tmp_path / "m" / "additional_chat_templates" / "tool_use.jinja").read_bytes() == b"with tools"
