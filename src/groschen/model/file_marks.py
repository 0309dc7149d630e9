"""The files of a checkpoint known again by size and SHA-256, as its checkpoint.json lists them.

Every reader asks: a run that goes on, and whoever opens a checkpoint to serve, measure or export it. 1 GB
takes about a second; a file that has not changed since is not read twice in one process. Leaves out what the
files hold, and checkpoints without such a list, which others made.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from groschen.errors import BadFile
from groschen.files import decode, is_there, open_regular, read_bytes

LIST = "checkpoint.json"
_MOST_BYTES = 10_000_000  # of the list
_READ_AS_MODEL = {".safetensors", ".json", ".jinja", ".txt", ".model"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMark:
    """How a file is known again."""

    size: int  # bytes
    sha256: str  # hex


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointList:
    """The content of checkpoint.json; paths are relative to the checkpoint's folder."""

    step: int
    files: dict[str, FileMark]


def mark(path: Path, *, sync: bool = False) -> FileMark:
    """The mark of a file as it is. sync: let its content reach the disk first. Raises OSError."""
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        size = os.fstat(file.fileno()).st_size
        return FileMark(size=size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def read_list(folder: Path) -> CheckpointList:
    """The list of a checkpoint. Raises BadFile if it cannot be read or names a file outside of the folder."""
    path, remedy = folder / LIST, "use an older checkpoint"
    if not is_there(path):
        raise BadFile(f"{LIST} is missing; {remedy}")
    listed = decode(read_bytes(path, _MOST_BYTES, remedy), CheckpointList, LIST, remedy)
    for name in listed.files:
        place = PurePosixPath(name)
        if not place.parts or place.is_absolute() or ".." in place.parts or "\0" in name:
            raise BadFile(f"{LIST} names {name[:100]!r}, which lies outside of the checkpoint; {remedy}")
    return listed


def first_fault(
    folder: Path, listed: CheckpointList, is_wanted: Callable[[str], bool] = lambda _: True
) -> str | None:
    """The first wanted file that is not as it was written, in half a sentence; None: all are."""
    wanted = {name: known for name, known in listed.files.items() if is_wanted(name)}
    # Sizes first: a truncated file is found without reading the large ones.
    for compares_hashes in (False, True):
        for name, known in wanted.items():
            try:
                fault = _fault_of(folder / name, name, known, compares_hashes)
            except OSError as error:
                return f"{name} cannot be read: {error.strerror or error}"
            except BadFile as error:
                return str(error)
            if fault is not None:
                return fault
    return None


def refuse_changed_model(folder: Path) -> None:
    """Raises BadFile if the folder has a list of its files and one that a model is read from was changed,
    added or removed since. The trainer's state is not read and not looked at.
    """
    if not is_there(folder / LIST):
        return
    listed = read_list(folder)
    fault = first_fault(folder, listed, lambda name: not name.startswith("trainer."))
    if fault is None:
        there = {path.name for path in folder.iterdir() if path.suffix in _READ_AS_MODEL}
        added = sorted(there - set(listed.files) - {LIST})
        fault = f"{added[0]} was added after it was written" if added else None
    if fault is not None:
        raise BadFile(
            f"the checkpoint {folder} is not as it was written: {fault}; take another checkpoint or, if the "
            f"change is yours, remove {LIST} from a copy of it"
        )


def _fault_of(path: Path, name: str, known: FileMark, compares_hashes: bool) -> str | None:
    if not is_there(path):
        return f"{name} is missing"
    with open_regular(path, "use an older checkpoint") as file:
        status = os.fstat(file.fileno())
    if status.st_size != known.size:
        return f"{name} has {status.st_size:,} bytes, expected {known.size:,}"
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if compares_hashes and _sha256(path.absolute(), stamp) != known.sha256:
        return f"{name} has another SHA-256 than when it was written"
    return None


@lru_cache(maxsize=1024)
def _sha256(path: Path, _stamp: tuple[int, ...]) -> str:
    """Read once for each state of the file: a write changes its stamp."""
    return mark(path).sha256
