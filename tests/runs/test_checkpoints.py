import hashlib
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from groschen.errors import BadFile, BadRequest
from groschen.runs import checkpoints as module
from groschen.runs.checkpoints import Checkpoints, find_fault


def writer(step: int, num_bytes: int = 1000) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(bytes([step % 256]) * num_bytes)
        (folder / "trainer").mkdir()
        (folder / "trainer" / "state.json").write_text(json.dumps({"step": step}))

    return write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_lists_size_and_sha256_of_every_file(tmp_path: Path) -> None:
    step, folder = Checkpoints(tmp_path).save(20, writer(20))
    assert (step, folder) == (20, tmp_path / "checkpoints" / "step-000020")
    listed = json.loads((folder / "checkpoint.json").read_bytes())
    assert listed["step"] == 20
    assert listed["files"] == {
        name: {
            "size": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in ("model.safetensors", "trainer/state.json")
    }
    assert find_fault(folder) is None


def test_a_save_that_fails_leaves_nothing_and_the_earlier_ones(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save(1, writer(1))

    def fail(folder: Path) -> None:
        writer(2)(folder)
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        store.save(2, fail)
    assert names(tmp_path / "checkpoints") == ["step-000001"]
    assert store.latest_whole().checkpoint == (1, store.path(1))


def test_a_full_disk_is_a_sentence_and_the_last_whole_checkpoint_stays(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save(1, writer(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(BadFile, match=r"step-000002 could not be written .*check free space"):
            store.save(2, writer(2, num_bytes=5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path / "checkpoints") == ["step-000001"]
    assert store.latest_whole() == ((1, store.path(1)), ())


def test_a_step_is_not_saved_twice(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save(1, writer(1))
    with pytest.raises(BadRequest, match="exists already"):
        store.save(1, writer(2))
    assert store.latest_whole().checkpoint is not None


def truncate(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 999)


def flip_one_bit(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(500)
        file.write(b"\0")


def remove(folder: Path) -> None:
    (folder / "trainer" / "state.json").unlink()


def remove_list(folder: Path) -> None:
    (folder / "checkpoint.json").unlink()


def break_list(folder: Path) -> None:
    os.truncate(folder / "checkpoint.json", 40)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "model.safetensors has 999 bytes, expected 1,000"),
        (flip_one_bit, "model.safetensors has another SHA-256"),
        (remove, "trainer/state.json is missing"),
        (remove_list, "checkpoint.json is missing"),
        (break_list, "checkpoint.json is not what it should be"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
    tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    store = Checkpoints(tmp_path)
    for step in (3, 4):
        store.save(step, writer(step))
    store.mark_best(4)
    damage(store.path(4))
    checkpoint, (warning,) = store.latest_whole()
    assert checkpoint == (3, store.path(3))
    assert said in warning
    assert "was set aside as step-000004.damaged; it was the best one" in warning
    assert (store.path(4).with_name("step-000004.damaged")).is_dir()
    assert store.best() is None
    assert not (tmp_path / "best").is_symlink()
    store.save(4, writer(4))  # it is made again
    damage(store.path(4))
    assert store.latest_whole().checkpoint == (3, store.path(3))
    assert names(tmp_path / "checkpoints") == ["step-000003", "step-000004.damaged", "step-000004.damaged-2"]


def test_without_a_whole_checkpoint_there_is_none_and_each_is_told(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    assert store.latest_whole() == (None, ())
    for step in (1, 2):
        store.save(step, writer(step))
        flip_one_bit(store.path(step))
    checkpoint, warnings = store.latest_whole()
    assert checkpoint is None
    assert [warning.split()[1] for warning in warnings] == ["step-000002", "step-000001"]


def test_a_checkpoint_under_another_name_is_found_out(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save(1, writer(1)).folder.rename(store.path(9))
    assert find_fault(store.path(9)) == "checkpoint.json is of step 1"


def test_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep_last=2)
    for step in range(1, 8):
        store.save(step, writer(step))
        if step == 3:
            store.mark_best(3)
    assert names(tmp_path / "checkpoints") == ["step-000003", "step-000006", "step-000007"]
    store.mark_best(7)
    store.save(8, writer(8))
    assert names(tmp_path / "checkpoints") == ["step-000007", "step-000008"]
    with pytest.raises(BadRequest, match="keep_last"):
        Checkpoints(tmp_path, keep_last=0)


def test_steps_are_ordered_as_numbers_also_beyond_six_digits(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    for step in (999_999, 1_000_000):
        store.save(step, writer(step))
    assert store.latest_whole().checkpoint == (1_000_000, store.path(1_000_000))


def test_best_is_a_relative_link_so_that_a_run_can_be_moved(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path / "run")
    store.save(1, writer(1))
    store.save(2, writer(2))
    assert store.best() is None
    store.mark_best(1)
    store.mark_best(2)
    assert (tmp_path / "run" / "best").readlink() == Path("checkpoints/step-000002")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "best" / "model.safetensors").read_bytes() == bytes([2]) * 1000
    assert Checkpoints(tmp_path / "moved").best() == (2, tmp_path / "moved" / "checkpoints" / "step-000002")


def test_only_a_saved_checkpoint_can_be_the_best(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="does not exist and cannot be the best"):
        Checkpoints(tmp_path).mark_best(3)


def test_cleaning_removes_what_is_half_done_and_nothing_else(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save(1, writer(1))
    store.mark_best(1)
    (tmp_path / "checkpoints" / ".step-000002.0a1b2c3d.partial" / "deep").mkdir(parents=True)
    (tmp_path / ".best.0a1b2c3d.partial").symlink_to("checkpoints/step-000001")
    (tmp_path / "checkpoints" / "step-000000.damaged").mkdir()
    (tmp_path / ".report.html.0a1b2c3d.partial").write_text("another process writes it")
    store.clean()
    assert names(tmp_path / "checkpoints") == ["step-000000.damaged", "step-000001"]
    assert names(tmp_path) == [".report.html.0a1b2c3d.partial", "best", "checkpoints"]
    assert find_fault(store.path(1)) is None


def test_a_removal_that_was_killed_leaves_no_half_checkpoint_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Checkpoints(tmp_path, keep_last=1)
    store.save(1, writer(1))

    def killed(path: Path, ignore_errors: bool = False) -> None:
        if ignore_errors:  # of a save that is over
            return
        (path / "model.safetensors").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(module.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        store.save(2, writer(2))
    monkeypatch.undo()
    assert [checkpoint.step for checkpoint in store.all()] == [2]
    store.clean()
    assert names(tmp_path / "checkpoints") == ["step-000002"]
