"""What `groschen train` makes of what was typed."""

import io
from pathlib import Path

import pytest

from groschen.errors import BadFile, BadRequest, GroschenError, UsageError
from groschen.runs.budget import Spent
from groschen.train.command import _own_folder, _short, begin, conclusion, recipe_of


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("countdown", "countdown"),
        ("countdown?numbers=4", "countdown"),
        ("/data/invoices/task.py", "invoices"),
        ("/data/invoices.jsonl", "invoices"),
        ("reasoning-gym:chain_sum?digits=3", "reasoning-gym-chain_sum"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen2.5-0.5B-Instruct"),
        ("models/qwen2.5-q4_k_m.gguf", "qwen2.5-q4_k_m"),
    ],
)
def test_a_run_is_named_after_its_task_and_model(source: str, name: str) -> None:
    assert _short(source) == name


def test_the_built_in_task_has_a_recipe_for_the_built_in_model_alone() -> None:
    own, other = recipe_of("countdown", None, ()), recipe_of("countdown", "folder", ())
    assert (own.model, own.max_rows) == ("penny", 256)
    assert (other.model, other.max_rows) == ("folder", 64)
    assert recipe_of("countdown", "penny", ()) == own


def test_a_flag_beats_the_recipe_and_a_typo_is_named_with_its_nearest_setting() -> None:
    assert recipe_of("countdown", None, ["num_steps=3", "seed=9"]).seed == 9
    with pytest.raises(UsageError, match=r"sampling\.group_siez.*group_size"):
        recipe_of("countdown", None, ["sampling.group_siez=4"])


def test_another_task_needs_a_model() -> None:
    with pytest.raises(UsageError, match="--model"):
        recipe_of("task.py", None, ())


def test_paths_in_a_recipe_file_are_looked_for_beside_it(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("")
    (tmp_path / "r.toml").write_text('task = "task.py"\nmodel = "org/name"\n')
    found = recipe_of(str(tmp_path / "r.toml"), None, ())
    assert (found.task, found.model) == (str(tmp_path / "task.py"), "org/name")
    (tmp_path / "bad.toml").write_text('task = "countdown"\nmodel = "penny"\nnum_step = 3\n')
    with pytest.raises(BadRequest, match="num_steps"):
        recipe_of(str(tmp_path / "bad.toml"), None, ())


def test_two_trainings_that_begin_at_once_have_their_own_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of("countdown", None, ())
    folders = [_own_folder(recipe) for _ in range(3)]
    assert [folder.name for folder in folders] == [
        "countdown-penny",
        "countdown-penny-2",
        "countdown-penny-3",
    ]


def test_a_training_that_is_refused_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GroschenError, match="budget"):
        begin("countdown", None, None, ['budget="3 pounds"'], io.StringIO())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_stands_in_the_place_of_the_folder_of_runs_is_a_sentence(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if kind == "file":
        (tmp_path / "runs").write_text("")
    else:
        (tmp_path / "runs").symlink_to("nowhere")
    with pytest.raises(BadFile, match=r"^runs.* could not be written"):
        begin("countdown", None, None, (), io.StringIO())


def test_only_a_run_with_a_checkpoint_can_be_talked_to(tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    (folder / "checkpoints").mkdir(parents=True)
    assert not any("talk to it" in line for line in conclusion(folder, Spent()))
    (folder / "checkpoints" / "step-000002").mkdir()
    assert f"talk to it: groschen chat '{folder}'" in conclusion(folder, Spent())
