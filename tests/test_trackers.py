import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from groschen.errors import BadRequest, UsageError
from groschen.trackers import Tracked, check_tracker, numbers, open_tracker

STEP = {
    "kind": "step",
    "step": 3,
    "reward/mean": 0.25,
    "cost/currency": "EUR",
    "exact": True,
    "tokens/trained": 7,
}


def tracked(folder: Path, start_step: int = 0) -> Tracked:
    return Tracked(folder=folder, name="run-1", settings={"group_size": "8"}, start_step=start_step)


def test_only_numbers_are_told() -> None:
    assert numbers(STEP) == {"reward/mean": 0.25, "tokens/trained": 7.0}


def test_an_unknown_tracker_is_refused_with_its_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"no tracker 'tensorbord'; did you mean 'tensorboard'\?"):
        check_tracker("tensorbord")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadRequest, match=rf"the tracker '{name}' needs .*install groschen\[{name}\]"):
        check_tracker(name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own protocol buffers
def test_tensorboard_s_files_hold_the_numbers_and_a_resume_replaces_what_follows_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = open_tracker("tensorboard", tracked(tmp_path))
    for step in (1, 2, 3):
        first.log(step, {"reward/mean": float(step), "kind": "step"})
    first.close()
    second = open_tracker("tensorboard", tracked(tmp_path, start_step=2))
    second.log(3, {"reward/mean": 33.0})
    # No close: what was logged is there although the process may die now.
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    assert [(event.step, event.value) for event in reader.Scalars("reward/mean")] == [
        (1, 1.0),
        (2, 2.0),
        (3, 33.0),
    ]
    second.close()


def test_wandb_is_told_in_the_run_folder_and_goes_on_with_the_same_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    run = SimpleNamespace(
        log=lambda found, step: calls.append((step, found)), finish=lambda: calls.append("end")
    )

    def init(**settings: object) -> SimpleNamespace:
        calls.append(settings)
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    tracker = open_tracker("wandb", tracked(tmp_path))
    tracker.log(3, STEP)
    tracker.close()
    settings, logged, end = calls
    assert settings == {"project": "groschen", "id": "run-1", "name": "run-1", "dir": str(tmp_path),
                        "config": {"group_size": "8"}, "resume": "allow"}  # fmt: skip
    assert (logged, end) == ((3, {"reward/mean": 0.25, "tokens/trained": 7.0}), "end")


@pytest.mark.parametrize("has_address", [True, False])
def test_mlflow_is_told_where_the_user_says_else_in_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_address: bool
) -> None:
    calls: list[tuple[str, object]] = []

    def note(name: str) -> object:
        return lambda *values, **named: calls.append((name, values or named))

    names = ("set_tracking_uri", "set_experiment", "start_run", "log_params", "end_run")
    module = SimpleNamespace(
        tracking=SimpleNamespace(is_tracking_uri_set=lambda: has_address),
        log_metrics=lambda found, step: calls.append(("log_metrics", (step, found))),
        **{name: note(name) for name in names},
    )
    monkeypatch.setitem(sys.modules, "mlflow", module)
    tracker = open_tracker("mlflow", tracked(tmp_path))
    tracker.log(3, {**STEP, "update/loss": float("nan")})
    tracker.close()
    address = [] if has_address else [("set_tracking_uri", (f"sqlite:///{tmp_path}/mlflow.db",))]
    assert calls == [
        *address,
        ("set_experiment", ("groschen",)),
        ("start_run", {"run_name": "run-1"}),
        ("log_params", ({"group_size": "8"},)),
        ("log_metrics", (3, {"reward/mean": 0.25, "tokens/trained": 7.0})),
        ("end_run", {}),
    ]
