import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.runs.samples import Recipe, Sampling, manifest_for

from groschen.errors import BadFile, BadRequest
from groschen.runs.folder import check_settings, create_run, is_run, open_run
from groschen.runs.journal import read_journal

RECIPE = Recipe()
MANIFEST = manifest_for(RECIPE)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def read_only_place() -> Iterator[Path]:
    """A folder that may be read but not written; root gives its rights away for the time of the test."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    (place / "empty").mkdir()
    create_run(place / "run", MANIFEST, RECIPE).close()
    for folder in (place / "run" / "checkpoints", place / "run", place / "empty", place):
        folder.chmod(0o555)
    (place / "run" / "lock").chmod(0o444)
    am_root = os.geteuid() == 0
    if am_root:
        os.seteuid(65534)
    yield place
    if am_root:
        os.seteuid(0)
    for folder in (place, place / "run", place / "empty", place / "run" / "checkpoints"):
        folder.chmod(0o755)
    shutil.rmtree(place)


@pytest.mark.parametrize("exists", [False, True])
def test_a_new_run_appears_whole_in_a_new_or_empty_folder(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    with create_run(folder, MANIFEST, RECIPE) as run:
        assert is_run(folder)
        assert run.manifest == MANIFEST
        assert run.config(Recipe) == RECIPE
    assert names(tmp_path) == ["run"]
    assert names(folder) == ["checkpoints", "config.toml", "evaluations", "lock", "manifest.json", "rollouts"]


def test_a_new_run_is_held_by_its_process(tmp_path: Path) -> None:
    with (
        create_run(tmp_path / "run", MANIFEST, RECIPE),
        pytest.raises(BadRequest, match="is in use by process"),
    ):
        open_run(tmp_path / "run")
    open_run(tmp_path / "run").close()


def test_the_paths_are_those_that_the_page_lists(tmp_path: Path) -> None:
    with create_run(tmp_path / "run", MANIFEST, RECIPE) as run:
        assert [str(path.relative_to(tmp_path / "run")) for path in (
            run.paths.metrics, run.paths.ledger, run.paths.rollouts(12), run.paths.evaluation("base-test"),
            run.paths.checkpoints, run.paths.best, run.paths.report,
        )] == ["metrics.jsonl", "ledger.jsonl", "rollouts/step-000012.jsonl", "evaluations/base-test.jsonl",
               "checkpoints", "best", "report.html"]  # fmt: skip
        with run.journal(run.paths.rollouts(12)) as journal:
            journal.append({"n": 1})
        assert read_journal(run.paths.rollouts(12)) == [{"n": 1}]
        run.checkpoints().save(3, lambda place: (place / "x").write_bytes(b"x"))
        run.checkpoints().mark_best(3)
        assert (run.paths.best / "x").read_bytes() == b"x"


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(BadRequest, match="is not empty and not a run; choose another folder"):
        create_run(tmp_path, MANIFEST, RECIPE)
    assert names(tmp_path) == ["letter.txt"]
    with pytest.raises(BadRequest, match="exists already"):
        create_run(tmp_path / "letter.txt", MANIFEST, RECIPE)


def test_an_existing_run_is_not_begun_again(tmp_path: Path) -> None:
    create_run(tmp_path / "run", MANIFEST, RECIPE).close()
    with pytest.raises(BadRequest, match=r"holds a run already; go on with it \(groschen train --resume "):
        create_run(tmp_path / "run", MANIFEST, RECIPE)


def test_a_read_only_place_is_refused_in_one_sentence(read_only_place: Path) -> None:
    for name in ("new", "empty"):
        with pytest.raises(BadFile, match=r"could not be written \(Permission denied\); check"):
            create_run(read_only_place / name, MANIFEST, RECIPE)
    with pytest.raises(BadFile, match=r"lock could not be written \(Permission denied\)"):
        open_run(read_only_place / "run")
    assert names(read_only_place) == ["empty", "run"]


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 40, 100, 300):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(BadFile, match=r"could not be written .*check free space"):
                create_run(tmp_path / "run", MANIFEST, RECIPE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert names(tmp_path) == []
    create_run(tmp_path / "run", MANIFEST, RECIPE).close()


def test_what_is_no_run_cannot_be_opened_and_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="is not a run folder"):
        open_run(tmp_path)
    assert names(tmp_path) == []


def test_opening_removes_what_a_killed_save_left(tmp_path: Path) -> None:
    create_run(tmp_path / "run", MANIFEST, RECIPE).close()
    (tmp_path / "run" / "checkpoints" / ".step-000002.00000000.partial").mkdir()
    with open_run(tmp_path / "run") as run:
        assert names(run.paths.checkpoints) == []


def test_a_run_that_goes_on_may_change_its_budget_and_nothing_else(tmp_path: Path) -> None:
    create_run(tmp_path / "run", MANIFEST, RECIPE).close()
    with open_run(tmp_path / "run") as run:
        assert run.config(Recipe, ["budget=1h"]) == replace(RECIPE, budget="1h")
        with pytest.raises(BadRequest, match=r"changed: learning_rate \(1e-05 then, 0.002 now\)\. Leave it"):
            run.config(Recipe, ["learning_rate=2e-3", "budget=1h"])
        with pytest.raises(BadRequest, match=r"learning_rate .*sampling.temperature .*Leave them"):
            run.config(Recipe, ["sampling.temperature=0.5", "learning_rate=2e-3"])
        assert run.config(Recipe, ["task=elsewhere/x"]).task == "elsewhere/x"
    check_settings(RECIPE, RECIPE)
    with pytest.raises(BadRequest, match=r"sampling.temperature"):
        check_settings(RECIPE, replace(RECIPE, sampling=Sampling(temperature=2.0)))


def test_an_altered_config_is_found_out(tmp_path: Path) -> None:
    create_run(tmp_path / "run", MANIFEST, RECIPE).close()
    path = tmp_path / "run" / "config.toml"
    path.write_text(path.read_text().replace("1e-05", "1e-04"))
    with open_run(tmp_path / "run") as run, pytest.raises(BadFile, match="was changed after the run began"):
        run.config(Recipe)


def test_a_manifest_of_another_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="config_digest is not that of the config"):
        create_run(tmp_path / "run", replace(MANIFEST, config_digest="0"), RECIPE)
