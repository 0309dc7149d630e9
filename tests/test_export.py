"""A model goes out as a folder or a GGUF file and is the same model when it comes back."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from tests.test_bad_input import model_folder

from groschen import cli
from groschen.engine.open import open_engine
from groschen.model.checkpoint import open_checkpoint
from groschen.records import Request, SamplingParams
from groschen.text.load import load_text


def gpt2_like(folder: Path) -> Path:
    """A model whose tokenizer GGUF has a name for."""
    model_folder(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["pre_tokenizer"]["use_regex"] = True
    path.write_text(json.dumps(content))
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token": "<end>"}))
    return folder


def test_an_exported_folder_has_the_same_bits_and_loads_in_transformers(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "model")
    assert cli.run(["export", str(source), str(tmp_path / "copy")]) == 0
    ours, theirs = open_checkpoint(str(source)), open_checkpoint(str(tmp_path / "copy"))
    assert ours.names() == theirs.names()
    assert all(torch.equal(ours.read(name), theirs.read(name)) for name in ours.names())
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "copy", dtype=torch.float32)
    request = Request(prompt_ids=tuple(range(40, 60)), sampling=SamplingParams(max_tokens=1, temperature=0.0))
    engine = open_engine(str(tmp_path / "copy")).engine
    (completion,) = engine.generate([request])[0]
    with torch.no_grad():
        logits = model(torch.tensor([request.prompt_ids])).logits[0, -1]
    assert completion.token_ids[0] == int(logits.argmax())
    tolerance = 1e-4 if engine.model.activation_dtype == torch.float32 else 2e-2  # theirs are float32
    assert completion.logprobs[0] == pytest.approx(float(logits.log_softmax(-1).max()), abs=tolerance)


def test_an_existing_target_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = model_folder(tmp_path / "model")
    assert cli.run(["export", str(source), str(source)]) == 1
    assert "not" in capsys.readouterr().err
    assert open_checkpoint(str(source)).names()


def test_weights_of_a_folder_cannot_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["export", "model", str(tmp_path / "copy"), "--weights", "q8_0"]) == 2
    assert "--format gguf" in capsys.readouterr().err


@pytest.mark.real
@pytest.mark.slow
def test_a_real_file_survives_the_way_to_a_folder_and_back(real_gguf: Path, tmp_path: Path) -> None:
    folder, file = str(tmp_path / "folder"), str(tmp_path / "again.gguf")
    assert cli.run(["export", str(real_gguf), folder]) == 0
    assert cli.run(["export", folder, file, "--format", "gguf"]) == 0
    first, last = open_checkpoint(folder), open_checkpoint(file)
    assert first.names() == last.names()
    assert all(
        torch.equal(first.read(name), last.read(name).bfloat16()) for name in list(first.names())[::20]
    )


def templates_of(folder: Path, **named: str) -> Path:
    """The model folder with these templates instead of its own."""
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    entries = [{"name": name, "template": text} for name, text in named.items()]
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": entries}))
    return folder


def test_every_chat_template_goes_into_a_gguf_file(tmp_path: Path) -> None:
    source = templates_of(gpt2_like(tmp_path / "model"), default="D", tool_use="T")
    assert cli.run(["export", str(source), str(tmp_path / "m.gguf"), "--format", "gguf"]) == 0
    template = load_text(tmp_path / "m.gguf").chat_template()
    assert template.sources == {"default": "D", "tool_use": "T"}


def test_chat_templates_without_a_default_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = templates_of(gpt2_like(tmp_path / "model"), rag="R", tool_use="T")
    assert cli.run(["export", str(source), str(tmp_path / "m.gguf"), "--format", "gguf"]) == 1
    assert "named rag, tool_use, but none named default" in capsys.readouterr().err
    assert not (tmp_path / "m.gguf").exists()
