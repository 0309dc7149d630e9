"""A look at the model before sizes are chosen, and runs and plans that are made of it."""

import io
import json
from pathlib import Path

import msgspec
import pytest
from tests.train.tiny_run import write_model, write_task

from groschen import cli
from groschen.config import build, read_toml
from groschen.errors import BadRequest, VerifierFailed
from groschen.evals.report_data import read_plan
from groschen.model.checkpoint import open_checkpoint
from groschen.records import Split
from groschen.tasks.load import load_task
from groschen.tasks.task import Task
from groschen.text.load import load_text
from groschen.train import calibration, command
from groschen.train.calibration import calibrate
from groschen.train.planning import as_roofs
from groschen.train.recipe import GrpoRecipe

SMALL = (
    "num_steps=2", "sampling.problems_per_step=2", "sampling.group_size=2", "sampling.max_tokens=12",
    "evaluation.dev_problems=2", "evaluation.test_problems=3", "alarms.max_truncated_share=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    write_task(path)
    write_model(path / "model")
    return path


def test_a_look_draws_grades_and_trains_and_never_asks_for_a_test_problem(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Split]()
    of = Task.of
    monkeypatch.setattr(Task, "of", lambda task, split: asked.append(split) or of(task, split))
    task, checkpoint = load_task(str(folder / "task.py")), open_checkpoint(str(folder / "model"))
    made = GrpoRecipe(model=str(folder / "model"), task=str(folder / "task.py"))
    roofs = as_roofs({"bf16_gflops": 1.0, "read_gbps": 1.0})
    seen = calibrate(task, checkpoint, load_text(checkpoint.source), roofs, made, 20)
    assert set(asked) == {Split.DEV, Split.TRAIN}  # six problems of dev are too few
    assert len(seen.lengths) + len(seen.open_lengths) == 64
    assert max(seen.lengths) <= 20 and set(seen.open_lengths) <= {20}
    assert seen.num_graded == 64 and 0 <= seen.num_passed <= len(seen.lengths)
    assert seen.tokens_per_s > 0 and seen.trained_tokens_per_s > 0
    assert seen.generation_factor > 0 and seen.training_factor > 0
    assert 0 < seen.seconds < 60


def test_a_look_at_a_verifier_that_hangs_ends_with_its_error(folder: Path, tmp_path: Path) -> None:
    late = "    __import__('time').sleep(1000)\n    share ="
    (tmp_path / "task.py").write_text((folder / "task.py").read_text().replace("    share =", late))
    task, checkpoint = load_task(str(tmp_path / "task.py"), 0.3), open_checkpoint(str(folder / "model"))
    roofs = as_roofs({"bf16_gflops": 1.0, "read_gbps": 1.0})
    with pytest.raises(VerifierFailed, match=r"of a first look \(limit 20% .* longer than 0.3 s \(task"):
        calibrate(task, checkpoint, load_text(checkpoint.source), roofs, GrpoRecipe(), 20)


def test_a_slow_machine_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_MOST_DRAWING_S", 0.0)
    monkeypatch.setattr(calibration, "_DRAWING_S", 0.0)
    task, checkpoint = load_task(str(folder / "task.py")), open_checkpoint(str(folder / "model"))
    roofs = as_roofs({"bf16_gflops": 1.0, "read_gbps": 1.0})
    seen = calibrate(task, checkpoint, load_text(checkpoint.source), roofs, GrpoRecipe(), 20)
    lengths = (*seen.lengths, *seen.open_lengths)
    assert len(lengths) == 64 and min(lengths) >= 1 and sum(lengths) < 64 * 10


def test_a_run_without_a_recipe_writes_down_what_was_chosen(folder: Path, tmp_path: Path) -> None:
    stderr, model = io.StringIO(), str(folder / "model")
    overrides = [*SMALL, 'budget="1h"']
    report = command.begin(str(folder / "task.py"), model, tmp_path / "run", overrides, stderr)
    said = stderr.getvalue().splitlines()
    assert "no test problem is touched" in said[0]
    assert [line.partition(":")[0].split()[0] for line in said[1:4]] == ["prompts", "training", "measuring"]
    assert report.exists()
    written = read_toml(tmp_path / "run" / "config.toml")
    made = build(GrpoRecipe, written)
    assert (made.budget, made.num_steps, made.sampling.max_tokens) == ("1h", 2, 12)
    assert (made.optimizer.learning_rate, made.evaluation.every) == (3e-6, 1)
    assert read_plan(tmp_path / "run" / "plan.json").samples == 8


def test_what_is_wrong_is_said_before_the_model_is_tried(folder: Path, tmp_path: Path) -> None:
    stderr, model = io.StringIO(), str(folder / "model")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadRequest, match="is not empty"):
        command.begin(str(folder / "task.py"), model, tmp_path, SMALL, stderr)
    rows = (folder / "task.py").read_text().replace('answer="e")', 'answer="e", split="train")')
    (tmp_path / "task.py").write_text(rows)
    with pytest.raises(BadRequest, match="no problems in the split test"):
        command.begin(str(tmp_path / "task.py"), model, tmp_path / "run", SMALL[:3], stderr)
    assert stderr.getvalue() == ""


def test_without_a_wish_a_cpu_gets_a_night(folder: Path, tmp_path: Path) -> None:
    stderr, model = io.StringIO(), str(folder / "model")
    command.begin(str(folder / "task.py"), model, tmp_path / "run", SMALL, stderr, calibrates=False)
    assert read_toml(tmp_path / "run" / "config.toml")["budget"] == "8h"
    assert "the model was not tried" in stderr.getvalue()


def test_a_plan_without_a_recipe_offers_three_sizes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", str(folder / "task.py"), "--model", str(folder / "model"), "--no-calibration"]
    assert cli.run(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["30min", "8h", "60h"]
    assert all(len(line) <= 80 for line in lines[1:5])
    assert [line.rpartition(" ")[2] for line in lines[-3:]] == ["30min", "8h", "60h"]
    assert cli.run([*arguments, "--budget", "2h"]) == 0
    shown = capsys.readouterr().out
    assert "generation" in shown and "evaluation" in shown and "--budget 2h" in shown


def test_a_plan_for_scripts_has_settings_that_can_be_set(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "plan",
        str(folder / "task.py"),
        "--model",
        str(folder / "model"),
        "--no-calibration",
        "--json",
    ]
    assert cli.run(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["calibration"] is None and found["base_rate_assumed"] == 0.5
    assert [each["budget"] for each in found["sizes"]] == ["30min", "8h", "60h"]
    for each in found["sizes"]:
        flags = [f"{name}={msgspec.json.encode(value).decode()}" for name, value in each["settings"].items()]
        made = build(GrpoRecipe, {}, flags)
        assert made.num_steps == each["settings"]["num_steps"]
        assert (
            each["plan"]["total"]["seconds"]["high"]
            <= {"30min": 1800, "8h": 28800, "60h": 216000}[each["budget"]]
        )
