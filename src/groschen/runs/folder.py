"""The run folder: made whole or not at all, open in one process, and where everything in it lies.

    manifest.json  config.toml  lock  best -> checkpoints/step-000040  report.html
    metrics.jsonl  ledger.jsonl  rollouts/step-000012.jsonl  evaluations/NAME.jsonl  checkpoints/step-000040/

`create_run` and `open_run` take the lock; `RunPaths` alone serves those who only read. Leaves out what the
files say.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from groschen.commands import command
from groschen.config import build, digest, flatten, read_toml, to_toml
from groschen.errors import BadFile, BadRequest
from groschen.model.atomic import new_folder, write_synced
from groschen.own_files import refuse_link
from groschen.runs import checkpoints as store
from groschen.runs.checkpoints import Checkpoints
from groschen.runs.journal import Journal
from groschen.runs.lock import FolderLock
from groschen.runs.manifest import NAME as MANIFEST
from groschen.runs.manifest import Manifest, read_manifest, write_manifest

T = TypeVar("T")
CONFIG, ROLLOUTS, EVALUATIONS = "config.toml", "rollouts", "evaluations"
# What a resumed run may set anew: none of these changes a bit of what is computed. Model and task may lie
# elsewhere, their digests must be the same (`check_inputs`); the limit of a verdict is a matter of the clock.
MAY_CHANGE = frozenset({"budget", "keep_last", "trackers", "verdict_seconds", "model", "task"})


class RunPaths(NamedTuple):
    """Where the files of the run in `folder` lie, whether they are there or not."""

    folder: Path

    @property
    def config(self) -> Path:
        """All settings, as they were at the beginning."""
        return self.folder / CONFIG

    @property
    def metrics(self) -> Path:
        """One line for each step, evaluation and event."""
        return self.folder / "metrics.jsonl"

    @property
    def ledger(self) -> Path:
        """What each span took; never cut, because it was spent."""
        return self.folder / "ledger.jsonl"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.folder / "report.html"

    @property
    def checkpoints(self) -> Path:
        """The folder of all checkpoints."""
        return self.folder / store.FOLDER

    @property
    def best(self) -> Path:
        """The link to the best checkpoint."""
        return self.folder / store.BEST

    def rollouts(self, step: int) -> Path:
        """The groups of one step, with their verdicts."""
        return self.folder / ROLLOUTS / f"step-{step:06d}.jsonl"

    def evaluation(self, name: str) -> Path:
        """The graded completions of the evaluation `name`, such as "base-test" or "step-000020-dev"."""
        return self.folder / EVALUATIONS / f"{name}.jsonl"


class Run:
    """A run folder that this process holds; `close` or the end of the process lets it go."""

    def __init__(self, folder: Path, manifest: Manifest, lock: FolderLock) -> None:
        """The folder with its manifest, under a lock that was taken before."""
        self.paths, self.manifest = RunPaths(folder), manifest
        self._lock = lock

    def checkpoints(self, *, keep_last: int = 2) -> Checkpoints:
        """The checkpoints, of which the newest `keep_last` and the best stay."""
        return Checkpoints(self.paths.folder, keep_last=keep_last)

    def journal(self, path: Path) -> Journal:
        """One of the .jsonl files, open for appending."""
        return Journal(path)

    def config(self, cls: type[T], overrides: Sequence[str] = ()) -> T:
        """The settings that the run began with, after `--set` flags changed some of MAY_CHANGE.

        Raises BadRequest if a flag changes another one, BadFile if config.toml was altered.
        """
        begun = build(cls, read_toml(self.paths.config), source=str(self.paths.config))
        if digest(begun) != self.manifest.config_digest:
            raise BadFile(
                f"{self.paths.config} was changed after the run began, or another version of groschen wrote "
                "it; restore it, or begin a new run with it"
            )
        now = build(cls, read_toml(self.paths.config), overrides, source=str(self.paths.config))
        check_settings(begun, now)
        return now

    def close(self) -> None:
        """Let other processes open the run; a second call does nothing."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run."""
    return (folder / MANIFEST).is_file()


def create_run(folder: Path, manifest: Manifest, config: object) -> Run:
    """A new run in `folder`, which must not exist or be empty; held by this process.

    manifest: its config_digest must be that of `config`, the dataclass of all settings.
    Raises BadRequest if the folder is in use, BadFile if the disk refuses; then nothing is left behind.
    """
    if manifest.config_digest != digest(config):
        raise BadRequest(
            "the manifest's config_digest is not that of the config; take groschen.config.digest"
        )
    refuse_used_folder(folder)
    lock: FolderLock | None = None
    try:
        with new_folder(folder) as place:
            # Taken before the folder has its name: nobody can come in between.
            lock = FolderLock(place)
            with write_synced(place / CONFIG) as file:
                file.write(to_toml(config).encode())
            for name in (ROLLOUTS, EVALUATIONS, store.FOLDER):
                (place / name).mkdir()
            write_manifest(place, manifest)
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    return Run(folder, manifest, lock)


def refuse_used_folder(folder: Path) -> None:
    """Raises BadRequest if a new run cannot be made there."""
    if is_run(folder):
        raise BadRequest(
            f"{folder} holds a run already; go on with it ({command('train', '--resume', folder)}) or choose "
            "another folder"
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise BadRequest(f"{folder} is not empty and not a run; choose another folder")


def open_run(folder: Path) -> Run:
    """The run in `folder`, to go on with; what killed processes left half done is removed.

    Compare its manifest with `check_inputs` and its settings with `Run.config` before going on.
    Raises BadFile if it is no run folder, cannot be written or has links where we write, BadRequest if
    another process holds it.
    """
    manifest = read_manifest(folder)
    refuse_links(folder)
    lock = FolderLock(folder)
    try:
        run = Run(folder, manifest, lock)
        run.checkpoints().clean()
    except BaseException:
        lock.release()
        raise
    return run


def refuse_links(folder: Path) -> None:
    """Raises BadFile if a folder of the run, in which we write, is a link to a folder elsewhere."""
    for name in (ROLLOUTS, EVALUATIONS, store.FOLDER):
        refuse_link(folder / name)


def check_settings(begun: object, now: object, may_change: frozenset[str] = MAY_CHANGE) -> None:
    """Refuse settings that differ from those that the run began with, each by its name.

    may_change: top-level names that may differ. Raises BadRequest.
    """
    before, after = flatten(begun), flatten(now)
    changed = [
        f"{name} ({before.get(name, 'not set')} then, {after.get(name, 'not set')} now)"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name.split(".")[0] not in may_change
    ]
    if changed:
        raise BadRequest(
            f"a run that goes on keeps its settings; changed: {', '.join(changed)}. Leave "
            f"{'it' if len(changed) == 1 else 'them'} as before, or begin a new run"
        )
