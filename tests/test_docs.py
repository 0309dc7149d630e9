"""The documents say what is: commands, flags, paths and keys in them exist."""

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from tests.tiny import tiny_engine

from groschen import cli, machine
from groschen.doctor import Exactness, Examination, MeasuredRoofs
from groschen.engine.open import Opened
from groschen.text.bundle import Text
from groschen.text.chat import ChatTemplate

TOP = Path(__file__).parent.parent
DOCUMENTS = sorted([*TOP.glob("*.md"), *(TOP / "docs").glob("*.md")])


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)


def commands(document: Path) -> list[list[str]]:
    """Each simple command of the sh blocks, as words."""
    lines = "".join(blocks(document, "sh")).replace("\\\n", " ").splitlines()
    simple = [part for line in lines for part in re.split(r"&&|\|\||[|;]", line)]
    return [words for part in simple if (words := shlex.split(part, comments=True))]


GROSCHEN = [
    (document.name, words[1:])
    for document in DOCUMENTS
    for words in commands(document)
    if Path(words[0]).name == "groschen"
]


@pytest.mark.parametrize(("document", "words"), GROSCHEN, ids=lambda value: " ".join(value).strip())
def test_a_groschen_command_in_a_document_exists_with_its_flags(
    capsys: pytest.CaptureFixture[str], document: str, words: list[str]
) -> None:
    subcommand = [word for word in words[:1] if not word.startswith("-")]
    assert cli.run([*subcommand, "--help"]) == 0, f"{document}: groschen {' '.join(words)}"
    help_text = capsys.readouterr().out
    for flag in (word.split("=")[0] for word in words if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", help_text), f"{document}: {flag}"


def test_the_readme_shows_commands_to_check() -> None:
    assert any(document == "README.md" for document, _ in GROSCHEN)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_script_in_a_document_is_there_and_can_be_run(document: Path) -> None:
    for words in commands(document):
        if words[0].startswith(("scripts/", "benchmarks/")):
            path = TOP / words[0]
            assert path.is_file(), words
            assert path.stat().st_mode & 0o100, f"{words[0]} is not executable"


def test_every_path_of_the_readme_s_tree_exists() -> None:
    (tree,) = blocks(TOP / "README.md", "text")
    folders: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders[depth:] = [name]
        path = TOP.joinpath(*folders)
        assert path.is_dir() if name.endswith("/") else path.is_file(), f"{path} of the tree"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_link_to_a_file_of_the_repository_leads_to_it(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_json_of_doctor_has_the_keys_that_its_page_shows() -> None:
    (shown,) = blocks(TOP / "docs" / "json.md", "json")
    example = json.loads(shown)

    def names(record: type) -> set[str]:
        return {field.name for field in fields(record)}

    assert set(example) == names(Examination)
    assert set(example["roofs"]) == names(MeasuredRoofs)
    assert set(example["exactness"][0]) == names(Exactness)
    assert set(example["cpu"]) == names(machine.Cpu)
    assert set(example["caches"]) == names(machine.Caches)


def test_the_python_of_the_engine_page_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    template = ChatTemplate({"default": "{{ messages[0].content }}"}, special_tokens={})
    engine = tiny_engine()
    opened = Opened(engine, Text(tokenizer=engine.tokenizer, template=template))
    monkeypatch.setattr("groschen.engine.open.open_engine", lambda source: opened)
    (program,) = blocks(TOP / "docs" / "engine.md", "python")
    exec(compile(program, "docs/engine.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) >= 8
