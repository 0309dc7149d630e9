"""Whatever is wrong with a model, the command line says it in one sentence and leaves with status 1."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.tiny import FAMILIES, byte_tokenizer, tiny_model

from groschen import cli, machine
from groschen.model.folder_writer import write_folder
from groschen.text.bundle import Text
from groschen.text.chat import ChatTemplate

_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def model_folder(folder: Path) -> Path:
    """A whole model in two shards that `groschen chat` can talk to."""
    template = ChatTemplate({"default": _TEMPLATE}, special_tokens={})
    files = Text(tokenizer=byte_tokenizer(), template=template).files()
    tensors = {name: tensor.clone() for name, tensor in tiny_model("qwen2").tensors().items()}
    write_folder(folder, FAMILIES["qwen2"], tensors, files, shard_bytes=200_000)
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def chat(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str = "hello") -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"/set max_tokens 3\n{line}\n"))
    return cli.run(["chat", str(folder)])


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def put_a_nan_into_the_first_shard(folder: Path) -> None:
    path = sorted(folder.glob("*.safetensors"))[0]
    content = bytearray(path.read_bytes())
    content[-2:] = torch.tensor([float("nan")]).bfloat16().view(torch.uint8).numpy().tobytes()
    path.write_bytes(bytes(content))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing shard": (lambda folder: sorted(folder.glob("*.safetensors"))[1].unlink(), "model-00002-of"),
    "a truncated shard": (
        lambda folder: cut_in_half(sorted(folder.glob("*.safetensors"))[0]),
        "model-00001-of",
    ),
    "an unknown architecture": (lambda folder: change_config(folder, model_type="mamba"), "'mamba'"),
    "an unknown key": (lambda folder: change_config(folder, magic_scale=3), "'magic_scale'"),
    "no template": (lambda folder: (folder / "chat_template.jinja").unlink(), "no chat template"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "a broken tokenizer": (lambda folder: cut_in_half(folder / "tokenizer.json"), "tokenizer.json"),
    "a NaN among the weights": (put_a_nan_into_the_first_shard, "not"),
    "a config of another size": (lambda folder: change_config(folder, hidden_size=128), "shape"),
    "a vocabulary that is too small": (lambda folder: change_config(folder, vocab_size=100), "100"),
}


def test_a_whole_model_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(model_folder(tmp_path / "model"), monkeypatch) == 0
    assert "3 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_and_status_1(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, named = FAULTS[fault]
    folder = model_folder(tmp_path / "model")
    damage(folder)
    assert chat(folder, monkeypatch) == 1
    complaint = capsys.readouterr().err.strip().splitlines()[-1]
    assert complaint.startswith("groschen: ")
    assert named in complaint
    assert "Traceback" not in complaint


def test_a_model_bigger_than_the_memory_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "free_memory_bytes", lambda device: 250_000_000)
    assert chat(model_folder(tmp_path / "model"), monkeypatch) == 1
    assert "0.2 GB are free" in capsys.readouterr().err


def test_a_prompt_longer_than_the_context_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(model_folder(tmp_path / "model"), monkeypatch, line="x" * 700) == 0
    assert "703 tokens do not fit the model's context of 512" in capsys.readouterr().out


def test_a_path_that_is_nearly_right_is_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model_folder(tmp_path / "model")
    assert chat(tmp_path / "modle", monkeypatch) == 1
    assert "did you mean" in capsys.readouterr().err
