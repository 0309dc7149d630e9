"""The checkpoints of a run: each whole or not there, its files known by size and SHA-256.

A damaged checkpoint is set aside under another name, never deleted. The newest ones and the best one stay.
Leaves out what a checkpoint holds: a writer that is passed in fills its folder.
"""

import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from groschen.errors import BadFile, BadRequest
from groschen.model.atomic import new_folder, write_synced
from groschen.model.file_marks import LIST, CheckpointList, first_fault, mark, read_list
from groschen.runs.disk import not_written, sync_folder

FOLDER, BEST = "checkpoints", "best"
_NAME = re.compile(r"step-(\d{6,})")
_PARTIAL = re.compile(r"\..*\.partial")  # as model/atomic.py names what is not finished
_PARTIAL_LINK = re.compile(rf"\.{BEST}\..*\.partial")


class Checkpoint(NamedTuple):
    """One checkpoint: the number of updates behind it and its folder."""

    step: int
    folder: Path


class LatestWhole(NamedTuple):
    """The newest checkpoint that is as it was written, and a sentence for each that is not."""

    checkpoint: Checkpoint | None
    warnings: tuple[str, ...]


class Checkpoints:
    """All checkpoints of the run in the folder `run`; only the holder of its lock may change them."""

    def __init__(self, run: Path, *, keep_last: int = 2) -> None:
        """keep_last: how many of the newest stay besides the best; one more than one, lest it be damaged."""
        if keep_last < 1:
            raise BadRequest(f"keep_last must be at least 1, found {keep_last}")
        self._run, self._keep_last = run, keep_last
        self._folder = run / FOLDER

    def path(self, step: int) -> Path:
        """Where the checkpoint of `step` lies or would lie."""
        return self._folder / f"step-{step:06d}"

    def all(self) -> list[Checkpoint]:
        """Those that are there, the oldest first; damaged ones that were not found out yet included."""
        names = [entry.name for entry in self._folder.iterdir()] if self._folder.is_dir() else []
        found = [(int(match[1]), name) for name in names if (match := _NAME.fullmatch(name))]
        return [Checkpoint(step, self._folder / name) for step, name in sorted(found)]

    def save(self, step: int, write: Callable[[Path], None]) -> Checkpoint:
        """Let `write` fill an empty folder and make it the checkpoint of `step`; old ones are removed after.

        A kill or a full disk at any moment leaves all earlier checkpoints as they are. `write` may make
        subfolders; a Hugging Face folder must be its first work (`write_folder` wants an empty one).
        Raises BadRequest if `step` has a checkpoint, BadFile if the disk refuses.
        """
        with new_folder(self.path(step)) as place:
            write(place)
            marks = {str(path.relative_to(place)): mark(path, sync=True) for path in _files(place)}
            content = msgspec.json.encode(CheckpointList(step=step, files=marks))
            with write_synced(place / LIST) as file:
                file.write(msgspec.json.format(content, indent=2) + b"\n")
            for folder in (path for path in place.rglob("*") if path.is_dir()):
                sync_folder(folder)
        self._remove_old()
        return Checkpoint(step, self.path(step))

    def latest_whole(self) -> LatestWhole:
        """The newest checkpoint whose files all have their size and SHA-256; damaged ones are set aside."""
        warnings: list[str] = []
        for checkpoint in reversed(self.all()):
            fault = find_fault(checkpoint.folder)
            if fault is None:
                return LatestWhole(checkpoint, tuple(warnings))
            warnings.append(self._set_aside(checkpoint, fault))
        return LatestWhole(None, tuple(warnings))

    def mark_best(self, step: int) -> None:
        """Let `best` in the run folder name the checkpoint of `step`, in one step.

        Raises BadRequest if there is no such checkpoint, BadFile if the disk refuses.
        """
        if not self.path(step).is_dir():
            raise BadRequest(
                f"{self.path(step)} does not exist and cannot be the best checkpoint; save it first"
            )
        temporary = self._run / f".{BEST}.{secrets.token_hex(4)}.partial"
        try:
            temporary.symlink_to(Path(FOLDER) / self.path(step).name)
            temporary.replace(self._run / BEST)
            sync_folder(self._run)
        except OSError as error:
            raise not_written(self._run / BEST, error) from error
        finally:
            with suppress(OSError):  # the reason is on its way already
                temporary.unlink(missing_ok=True)

    def best(self) -> Checkpoint | None:
        """The one that `best` names; None if it names none that is there."""
        return next((found for found in self.all() if found.step == self._best_step()), None)

    def clean(self) -> None:
        """Remove what killed processes left half done. Raises BadFile if the disk refuses."""
        for folder, form in ((self._folder, _PARTIAL), (self._run, _PARTIAL_LINK)):
            for path in list(folder.iterdir()) if folder.is_dir() else []:
                if form.fullmatch(path.name):
                    _remove(path)

    def _best_step(self) -> int | None:
        """The step in the name that the link holds, whether the checkpoint is there or not."""
        link = self._run / BEST
        name = _NAME.fullmatch(link.readlink().name) if link.is_symlink() else None
        return int(name[1]) if name else None

    def _remove_old(self) -> None:
        best = self._best_step()
        for checkpoint in self.all()[: -self._keep_last]:
            if checkpoint.step != best:
                _remove(checkpoint.folder)

    def _set_aside(self, checkpoint: Checkpoint, fault: str) -> str:
        name, number = f"{checkpoint.folder.name}.damaged", 1
        while (self._folder / name).exists():
            number += 1
            name = f"{checkpoint.folder.name}.damaged-{number}"
        was_best = checkpoint.step == self._best_step()
        try:
            checkpoint.folder.rename(self._folder / name)
            if was_best:
                (self._run / BEST).unlink()
            sync_folder(self._folder)
        except OSError as error:
            raise not_written(self._folder / name, error) from error
        return (
            f"checkpoint {checkpoint.folder.name} is damaged ({fault}) and was set aside as {name}"
            f"{'; it was the best one' if was_best else ''}"
        )


def find_fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files in half a sentence; None if each is as it was written."""
    try:
        listed = read_list(folder)
    except BadFile as error:
        return str(error)
    name = _NAME.fullmatch(folder.name)
    if name and int(name[1]) != listed.step:
        return f"{LIST} is of step {listed.step}"
    return first_fault(folder, listed)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _remove(path: Path) -> None:
    """Remove a file, link or folder; a kill in between leaves nothing half under its real name."""
    try:
        if path.is_dir() and not path.is_symlink():
            doomed = path
            if not _PARTIAL.fullmatch(path.name):
                doomed = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
                path.rename(doomed)
            shutil.rmtree(doomed)
        else:
            path.unlink()
    except OSError as error:
        raise BadFile(
            f"{path} could not be removed ({error.strerror or error}); remove it by hand"
        ) from error
