"""Flags out of their range, paths of the user's home, and commands that can be pasted."""

import shlex
from pathlib import Path

import platformdirs
import pytest

from groschen import cli
from groschen.commands import command

TASK = ("--task", "countdown")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["train", "countdown", "--seed", "1.5"], "--seed must be a whole number from -9,2"),
        (["train", "countdown", "--seed", "1e3"], "--seed must be a whole number from -9,2"),
        (["train", "countdown", "--seed", "9" * 5000], "--seed must be"),
        (["train", "countdown", "--seed", "one"], "found 'one'"),
        (["eval", "penny", *TASK, "--samples", "0"], "--samples must be from 1 to 10,000, found 0"),
        (["eval", "penny", *TASK, "--samples", "2.0"], "--samples must be a whole number from 1 to 10,000"),
        (["eval", "penny", *TASK, "--problems", "0"], "--problems must be 1 or more, found 0"),
        (["eval", "penny", *TASK, "--max-tokens", "-1"], "--max-tokens must be from 1 to"),
        (
            ["eval", "penny", *TASK, "--temperature", "nan"],
            "--temperature must be 0 (the most probable token)",
        ),
        (["eval", "penny", *TASK, "--temperature", "-1"], "or from 0.0001 to 100, found -1.0"),
        (["eval", "penny", *TASK, "--seed", str(2**63)], "--seed must be from -9,2"),
        (["check", "countdown", "--limit", "-1"], "--limit must be 0 or more, found -1"),
        (["plan", "countdown", "--tokens", "0"], "--tokens must be 1 or more, found 0"),
        (["serve", "penny", "--port", "70000"], "--port must be from 0 to 65,535, found 70000"),
        (["serve", "penny", "--drain", "inf"], "--drain must be from 0 to 86,400, found inf"),
        (["serve", "penny", "--max-rows", "0"], "--max-rows must be from 1 to 100,000, found 0"),
        (["serve", "penny", "--max-queue", "0"], "--max-queue must be from 1"),
        (["serve", "penny", "--max-body", "1"], "--max-body must be from 1,024"),
        (["serve", "penny", "--speculate", "-1"], "--speculate must be from 0 to 1,000, found -1"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_number_out_of_its_range_is_wrong_use(
    arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and fault in err and err.count("\n") == 1 and len(err) < 400


def test_a_tilde_is_the_home_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", platformdirs.user_cache_dir())  # the compiled kernels stay there
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    few = ("--problems", "2", "--samples", "1", "--max-tokens", "16")
    assert cli.run(["eval", "penny", *TASK, *few, "--out=~/records"]) == 0
    assert cli.run(["export", "penny", "~/copy"]) == 0
    assert (tmp_path / "records").is_dir() and (tmp_path / "copy").is_dir()
    assert not (tmp_path / "~").exists()
    assert cli.run(["report", "~/nowhere"]) == 1
    assert str(tmp_path / "nowhere") in capsys.readouterr().err
    assert cli.run(["export", "penny", "~nobody-of-this-name/copy"]) == 2
    assert "write the whole path" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["plain", "with space", "it's", "a;b", "$HOME", "ä", "*", "new\nline"])
def test_a_printed_command_has_its_words_again_in_a_shell(name: str) -> None:
    path = Path("runs") / name
    assert shlex.split(command("train", "--resume", path)) == ["groschen", "train", "--resume", str(path)]
