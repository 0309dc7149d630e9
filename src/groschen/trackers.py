"""Tell TensorBoard, W&B or MLflow about a run, for those who look at many runs there.

metrics.jsonl stays the truth: a tracker gets copies of its numbers and decides nothing. Each package is an
extra and imported only when asked for; its own switches for working offline hold (WANDB_MODE,
MLFLOW_TRACKING_URI).
"""

import importlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from groschen.config import nearest
from groschen.errors import BadRequest, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """What a tracker is told at the beginning."""

    folder: Path  # of the run; files go below it
    name: str  # of the run, for people
    settings: Mapping[str, str]  # from groschen.config.flatten
    start_step: int = 0  # steps done before, by a run that goes on


class Tracker(Protocol):
    """Who gets copies of the numbers."""

    def log(self, step: int, metrics: Mapping[str, object]) -> None:
        """The numbers of one line of metrics.jsonl; what isn't a number is left out."""

    def close(self) -> None:
        """Hand everything over."""


def check_tracker(name: str) -> None:
    """Refuse what `open_tracker` would refuse, before there is a run.

    Raises UsageError for a name that is not known, BadRequest if its package is not installed.
    """
    if name not in _TRACKERS:
        raise UsageError(f"there is no tracker '{name}'; {nearest(name, tuple(_TRACKERS))}")
    with _installed(name):
        importlib.import_module(name)


def open_tracker(name: str, tracked: Tracked) -> Tracker:
    """The tracker `name`: tensorboard, wandb or mlflow. Raises the errors of `check_tracker`."""
    check_tracker(name)
    with _installed(name):
        return _TRACKERS[name](tracked)


@contextmanager
def _installed(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise BadRequest(
            f"the tracker '{name}' needs a package that is not installed ({error}); install groschen[{name}]"
        ) from error


class _Callbacks:
    """A tracker made of two functions."""

    def __init__(self, log: Callable[[int, dict[str, float]], None], close: Callable[[], None]) -> None:
        self._log, self._close = log, close

    def log(self, step: int, metrics: Mapping[str, object]) -> None:
        self._log(step, numbers(metrics))

    def close(self) -> None:
        self._close()


def numbers(metrics: Mapping[str, object]) -> dict[str, float]:
    """What is a number, by name, without the step."""
    return {
        key: float(value)
        for key, value in metrics.items()
        if key != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _tensorboard(tracked: Tracked) -> Tracker:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(tracked.folder / "tensorboard"))
    if tracked.start_step:
        # TensorBoard drops what an earlier process of the run wrote from this step on: it is made again.
        begin = SessionLog(status=SessionLog.START)
        writer.add_event(Event(step=tracked.start_step + 1, session_log=begin, wall_time=time.time()))

    def log(step: int, found: dict[str, float]) -> None:
        values = [Summary.Value(tag=key, simple_value=value) for key, value in found.items()]
        writer.add_event(Event(step=step, summary=Summary(value=values), wall_time=time.time()))
        writer.flush()  # a kill may come at any time

    return _Callbacks(log, writer.close)


def _wandb(tracked: Tracked) -> Tracker:
    import wandb

    run = wandb.init(
        project="groschen",
        id=tracked.name,
        name=tracked.name,
        dir=str(tracked.folder),
        config=dict(tracked.settings),
        resume="allow",
    )

    def log(step: int, found: dict[str, float]) -> None:
        run.log(found, step=step)

    return _Callbacks(log, run.finish)


def _mlflow(tracked: Tracked) -> Tracker:
    import mlflow

    if not mlflow.tracking.is_tracking_uri_set():
        mlflow.set_tracking_uri(f"sqlite:///{tracked.folder.resolve() / 'mlflow.db'}")
    mlflow.set_experiment("groschen")
    mlflow.start_run(run_name=tracked.name)
    mlflow.log_params(dict(tracked.settings))

    def log(step: int, found: dict[str, float]) -> None:
        mlflow.log_metrics({key: value for key, value in found.items() if math.isfinite(value)}, step=step)

    return _Callbacks(log, mlflow.end_run)


_TRACKERS: Mapping[str, Callable[[Tracked], Tracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
