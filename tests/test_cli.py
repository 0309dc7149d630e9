"""cli.py: exit statuses, the one sentence on standard error, and how fast help answers."""

import os
import subprocess
import sys
import time

import pytest

from groschen import __version__, cli, doctor
from groschen.errors import BadFile, UsageError


def groschen(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "groschen", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def failing(failure: BaseException):
    def examine() -> None:
        raise failure

    return examine


def test_help_names_every_command_and_is_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    out, err = capsys.readouterr()
    assert "doctor" in out
    assert "chat" in out
    assert err == ""


def test_help_answers_within_a_second() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert groschen("--help").returncode == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0


def test_the_door_opens_without_torch() -> None:
    code = "import sys, groschen.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [(["doctr"], '"doctor"'), (["chatt", "m"], '"chat"'), (["doctor", "--jsn"], "--json")],
)
def test_a_typo_names_its_nearest_match_on_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], nearest: str
) -> None:
    assert cli.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"Did you mean {nearest}?" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--set", "seed=1", "num_steps=2"],
            "num_steps=2 is not understood here; each setting needs its own --set",
        ),
        (["two", "words"], "two words is not understood here; --help says what is"),
    ],
)
def test_a_word_too_many_is_wrong_use(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert cli.run(["train", "countdown", *arguments]) == 2
    assert capsys.readouterr() == ("", f"groschen: {sentence}\n")


def test_a_missing_model_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["chat"]) == 2
    assert "MODEL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("failure", "status"), [(BadFile("x is cut short"), 1), (UsageError("x is cut short"), 2)]
)
def test_a_known_failure_is_its_sentence_and_its_exit_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, failure: Exception, status: int
) -> None:
    monkeypatch.setattr(doctor, "examine", failing(failure))
    assert cli.run(["doctor"]) == status
    assert capsys.readouterr() == ("", "groschen: x is cut short\n")


def test_an_unknown_failure_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", failing(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        cli.run(["doctor"])


def test_ctrl_c_is_no_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", failing(KeyboardInterrupt()))
    assert cli.run(["doctor"]) == 130
    assert capsys.readouterr() == ("", "groschen: stopped by Ctrl-C\n")


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "groschen", "--help"]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write_end)
    assert done.stderr == ""
    assert done.returncode == 1
