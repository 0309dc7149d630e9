"""An accuracy on problems that a run was trained on is refused, or said to be one."""

import json
from pathlib import Path

import pytest
from tests.runs.samples import Recipe, manifest_for

from groschen import cli
from groschen.evals.trained_on import num_trained_on
from groschen.records import Split
from groschen.runs.folder import create_run
from groschen.tasks.identity import NAME, encoded, fingerprints
from groschen.tasks.load import load_task

TASK = """
from groschen import Problem, Verdict
SHARES = {"dev": 0.1, "test": 0.2}
def load():
    for n in range(60):
        yield Problem(key=f"p{n}", messages=[{"role": "user", "content": f"Count to {n}."}], answer=n)
def verify(problem, text):
    return Verdict(reward=0.0, passed=False)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with the weights of penny as its best checkpoint, and the task that it was trained on."""
    monkeypatch.chdir(tmp_path)
    Path("task.py").write_text(TASK)
    create_run(Path("run"), manifest_for(Recipe()), Recipe()).close()
    Path("run", NAME).write_bytes(encoded(fingerprints(load_task("task.py").problems)))
    assert cli.run(["export", "penny", "run/checkpoints/step-000001"]) == 0
    Path("run/best").symlink_to("checkpoints/step-000001")
    return tmp_path / "run"


FEW = ("--samples", "1", "--max-tokens", "8", "--json")


@pytest.mark.parametrize("model", ["run", "run/best", "run/checkpoints/step-000001"])
def test_a_training_split_is_known_by_every_name_of_a_runs_model(run: Path, model: str) -> None:
    problems = load_task("task.py").problems
    assert num_trained_on(model, problems[Split.TEST], is_allowed=False) == 0
    assert num_trained_on(model, problems[Split.TRAIN][:5], is_allowed=True) == 5
    assert num_trained_on("penny", problems[Split.TRAIN], is_allowed=False) is None


def test_other_shares_after_the_run_are_noticed_and_a_flag_takes_them(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["eval", "run", "--task", "task.py", *FEW]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["trained_on"] == 0
    Path("task.py").write_text(TASK.replace("0.2", "0.8").replace('f"p{n}"', 'f"renamed{n}"'))
    test = load_task("task.py").problems[Split.TEST]
    assert cli.run(["eval", "run", "--task", "task.py", *FEW]) == 1
    out, err = capsys.readouterr()
    assert out == "" and f"of the {len(test)} problems" in err and "--allow-trained" in err
    assert cli.run(["eval", "run", "--against", "penny", "--task", "task.py", "--allow-trained", *FEW]) == 0
    out, err = capsys.readouterr()
    base, trained = json.loads(out)["models"]
    assert base["trained_on"] is None and 20 < trained["trained_on"] < len(test)
    assert f"{trained['trained_on']} of the {len(test)} problems that run is asked" in err


def test_a_run_that_kept_no_problems_is_told_of(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / NAME).unlink()
    assert num_trained_on("run", load_task("task.py").problems[Split.TRAIN], is_allowed=False) is None
    assert "does not say which problems" in capsys.readouterr().err
