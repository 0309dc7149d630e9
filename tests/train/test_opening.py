"""What is refused before there is a run folder, and what is closed again where opening fails."""

import dataclasses
import io
from pathlib import Path

import pytest
from tests.train.tiny_run import recipe

from groschen.errors import BadRequest, GroschenError
from groschen.train.opening import new_session, resumed_session
from groschen.train.recipe import EvaluationSettings, GrpoRecipe


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"budget": "3 pounds"}, "is no budget"),
        ({"budget": "3USD"}, "counts in EUR"),
        ({"trackers": ("tensorbord",)}, "did you mean 'tensorboard'"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_before_there_is_a_folder(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(GroschenError, match=reason):
        new_session(recipe(tmp_path, **changes), tmp_path / "run", io.StringIO())
    assert not (tmp_path / "run").exists()


def only(folder: Path, split: str) -> GrpoRecipe:
    """The tiny recipe on a task whose author put every problem into one split."""
    made = recipe(folder)
    source = (folder / "task.py").read_text().replace('answer="e")', f'answer="e", split=Split("{split}"))')
    source = source.replace("def load", "from groschen.records import Split\n\n\ndef load")
    (folder / "task.py").write_text(source)
    return made


@pytest.mark.parametrize(("named", "missing"), [("train", "test"), ("test", "dev")])
def test_a_task_without_a_split_is_refused_before_there_is_a_folder(
    tmp_path: Path, named: str, missing: str
) -> None:
    with pytest.raises(BadRequest, match=f"no problems in the split {missing}"):
        new_session(only(tmp_path, named), tmp_path / "run", io.StringIO())
    assert not (tmp_path / "run").exists()


def test_a_task_without_a_test_split_can_be_trained_on_without_a_test(tmp_path: Path) -> None:
    untested = EvaluationSettings(test_problems=0, prompt_problems=0)
    made = dataclasses.replace(only(tmp_path, "train"), evaluation=untested)
    new_session(made, tmp_path / "run", io.StringIO()).close()
    assert (tmp_path / "run").exists()


def test_a_tracker_that_fails_leaves_no_live_table_and_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    class Watch:
        """Notes what it is told."""

        def start(self, facts: object) -> None:
            told.append("start")

        def finish(self) -> None:
            told.append("finish")

    class Tracker:
        """Notes that it is closed."""

        def close(self) -> None:
            told.append("close")

    def opened(name: str, tracked: object) -> Tracker:
        if name == "wandb":
            raise BadRequest("no account")
        return Tracker()

    monkeypatch.setattr("groschen.train.opening.watch_for", lambda stderr: Watch())
    monkeypatch.setattr("groschen.train.opening.check_tracker", lambda name: None)
    monkeypatch.setattr("groschen.train.opening.open_tracker", opened)
    with pytest.raises(BadRequest, match="no account"):
        new_session(recipe(tmp_path, trackers=("mlflow", "wandb")), tmp_path / "run", io.StringIO())
    assert told == ["start", "close", "finish"]
    monkeypatch.undo()
    resumed_session(tmp_path / "run", ["trackers=[]"], io.StringIO()).close()
