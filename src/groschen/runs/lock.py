"""One process per run folder: a lock that dies with its holder, however it dies.

Leaves out waiting: the second process is refused with the holder's process id and host. Children that this
process forks do not hold the lock, so an orphan cannot keep a dead run occupied.
"""

import fcntl
import os
import socket
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from groschen.errors import BadRequest
from groschen.own_files import open_own
from groschen.runs.disk import not_written

_NAME = "lock"
_MOST_BYTES = 4096  # of the lock file that are read to name the holder


class FolderLock:
    """The lock on one folder, held from its making until `release` or the end of the process."""

    def __init__(self, folder: Path) -> None:
        """Take the lock on `folder`, which must exist.

        Raises BadRequest if another process holds it, BadFile if its file is a link or cannot be written.
        """
        path = folder / _NAME
        try:
            self._descriptor = open_own(path, appends=False)
        except OSError as error:
            raise not_written(path, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_holder(self._descriptor)
        except BlockingIOError as error:
            holder = _holder(self._descriptor)
            os.close(self._descriptor)
            raise BadRequest(
                f"{folder} is in use by {holder}; wait until it ends, or choose another folder"
            ) from error
        except OSError as error:
            os.close(self._descriptor)
            raise not_written(path, error) from error
        _HELD.add(self)

    def release(self) -> None:
        """Let others in. A second call does nothing."""
        if self in _HELD:
            _HELD.discard(self)
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


# A forked child shares the open file, and with it the lock: it closes its copy at once.
_HELD: "weakref.WeakSet[FolderLock]" = weakref.WeakSet()


def _forget_in_child() -> None:
    for lock in list(_HELD):
        lock.release()


os.register_at_fork(after_in_child=_forget_in_child)


def _write_holder(descriptor: int) -> None:
    content = msgspec.json.encode({"pid": os.getpid(), "host": socket.gethostname()}) + b"\n"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content, 0)


def _holder(descriptor: int) -> str:
    """The holder in words; it may not have written its name yet."""
    try:
        found = msgspec.json.decode(os.pread(descriptor, _MOST_BYTES, 0), type=dict[str, int | str])
        return f"process {found['pid']} on {found['host']}"
    except (msgspec.DecodeError, RecursionError, KeyError):
        return "another process"
