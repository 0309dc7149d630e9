"""What a run that goes on is made of: the same problems, wherever they lie, or a refusal that says why."""

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.train.tiny_run import TASK, recipe

from groschen.errors import BadRequest
from groschen.evals.report import write_report
from groschen.train.opening import new_session, resumed_session
from groschen.train.session import Session

KEYS = TASK.replace(
    "def load():\n",
    "import csv, os\n\n\ndef load():\n    rows = csv.reader(open(os.path.dirname(__file__) + '/keys.csv'))\n",
).replace('answer="e")', "answer=next(rows)[0])")


def begun(folder: Path, task: str = TASK) -> Session:
    """A new run in folder/run, on this task."""
    made = recipe(folder)
    (folder / "task.py").write_text(task)
    (folder / "keys.csv").write_text("e\n" * 60)
    return new_session(made, folder / "run", io.StringIO())


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edit("keys.csv", "e\n", "f\n"), r"1 of 60 problems differ: 1 changed \(first 'p0' in \w+, a"),
        (edit("task.py", "range(60)", "range(59)"), r"1 gone \(first 'p59'"),
        (edit("task.py", "def verify", "SHARES = {'test': 0.5}\n\n\ndef verify"), r"moved \(.* now in test"),
        (edit("task.py", "> 0.6", "> 0.5"), "the problems are the same, but the files that decide verdicts"),
    ],
    ids=["csv", "row", "shares", "verifier"],
)
def test_another_task_is_refused_and_what_changed_is_said(
    tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    begun(tmp_path, KEYS).close()
    change(tmp_path)
    with pytest.raises(BadRequest, match=said):
        resumed_session(tmp_path / "run", (), io.StringIO())


def test_a_task_that_draws_anew_is_refused_before_there_is_a_folder(tmp_path: Path) -> None:
    drawn = TASK.replace("range(60)", "__import__('random').sample(range(999), 60)")
    with pytest.raises(BadRequest, match="another one each time"):
        begun(tmp_path, drawn)
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_from_another_working_folder_and_after_its_files_have_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, elsewhere = tmp_path / "first", tmp_path / "second", tmp_path / "elsewhere"
    first.mkdir(), elsewhere.mkdir()
    made = dataclasses.replace(recipe(first), task="task.py", model="model")
    monkeypatch.chdir(first)
    new_session(made, tmp_path / "run", io.StringIO()).close()
    monkeypatch.chdir(elsewhere)
    resumed_session(tmp_path / "run", (), io.StringIO()).close()
    shutil.move(first, second)
    with pytest.raises(BadRequest, match="--set task=PATH"):
        resumed_session(tmp_path / "run", (), io.StringIO())
    places = (f"task={second / 'task.py'}", f"model={second / 'model'}")
    resumed_session(tmp_path / "run", places, io.StringIO()).close()
    (second / "task.py").write_text(TASK.replace('"e"', '"f"'))
    with pytest.raises(BadRequest, match="60 of 60 problems differ"):
        resumed_session(tmp_path / "run", places, io.StringIO())


def test_what_check_warns_of_is_said_by_train_by_resume_and_by_the_report(tmp_path: Path) -> None:
    words = """" ".join(f"{letter}{number // 2}" for letter in "abcdefghijkl")"""
    copies = TASK.replace('f"say {number}"', f"(str.upper if number % 2 else str)({words})")
    copies = copies.replace('answer="e")', 'answer="e", split="test" if number in range(1, 21, 2) else None)')
    made = recipe(tmp_path)
    (tmp_path / "task.py").write_text(copies)
    said = io.StringIO()
    new_session(made, tmp_path / "run", said).close()
    resumed_session(tmp_path / "run", (), resumed := io.StringIO()).close()
    for text in (said.getvalue(), resumed.getvalue(), write_report(tmp_path / "run").read_text()):
        assert "held-out problems stand nearly word for word in train" in text
    assert json.loads((tmp_path / "run" / "check.json").read_text())["ok"] is True
