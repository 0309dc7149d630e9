"""`groschen eval`: figures that fit a pipe, one JSON object for scripts, records in a folder, refusals."""

import json
from pathlib import Path

import pytest

from groschen import cli

FEW = ("--task", "countdown", "--problems", "6", "--samples", "2", "--max-tokens", "48")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """penny under another name, long enough to need a second line."""
    folder = tmp_path_factory.mktemp("models") / "a-copy-of-penny-with-a-name-as-long-as-a-run-has"
    assert cli.run(["export", "penny", str(folder)]) == 0
    return str(folder)


def test_the_table_of_two_models_fits_eighty_columns(
    other: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["eval", other, "--against", "penny", *FEW]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80 and "…" not in out
    assert "pass@1 (95 %)" in out and "gain +0.0 points" in " ".join(out.split())
    first_words = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert other in "".join(first_words), "a name is folded, not cut"


def test_scripts_get_one_object_and_the_records_of_each_model(
    other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "records"
    assert cli.run(["eval", other, "--against", "penny", *FEW, "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["k"], found["paired"]["gain"]) == (6, 2, 0.0)
    base, copy = (path.read_text().splitlines() for path in sorted(out.iterdir()))
    assert len(base) == 12 and base == copy, "the same weights, the same noise, the same completions"
    passed = sum(json.loads(line)["passed"] for line in base) / 12
    assert found["models"][0]["pass_at_1"] == pytest.approx(passed)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--against", "penny"], "compared with itself"),
        (["--temperature", "0"], "take --samples 1"),
        (["--out", "."], "exists; name a new folder"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["eval", "penny", "--task", "countdown", *arguments]) == 1
    assert sentence in capsys.readouterr().err


def test_what_cannot_be_known_is_a_dash_or_a_reason_and_never_nan(
    other: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    one = ("--task", "countdown", "--problems", "1", "--samples", "3", "--max-tokens", "48")
    assert cli.run(["eval", other, "--against", "penny", *one]) == 0
    out = capsys.readouterr().out
    assert "nan" not in out and "pass@3" in out
    last = " ".join(out.split()).rpartition("gain")[2]
    assert last == " +0.0 points (95 % interval -95.0 to +95.0), paired over 1 problem, p = 1"


BROKEN = """
from groschen import Problem, Verdict
def load():
    for n in range(60):
        yield Problem(key=f"p{n}", messages=[{"role": "user", "content": f"Count to {n}."}], answer=n)
def verify(problem, text):
    raise ValueError("no key")
"""


def test_a_verifier_that_always_fails_gives_no_accuracy_and_no_gain(
    other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "task.py").write_text(BROKEN)
    arguments = ["--task", str(tmp_path / "task.py"), "--samples", "2", "--json"]
    records = tmp_path / "records"
    assert cli.run(["eval", other, "--against", "penny", *arguments, "--out", str(records)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "the verifier failed on " in err and "ValueError: no key (task.py:7)" in err
    kept = [json.loads(line) for line in next(records.iterdir()).read_text().splitlines()]
    assert any(record["error"] for record in kept)
