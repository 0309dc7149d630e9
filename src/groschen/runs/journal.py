"""Append-only files of JSON lines that survive a kill at any moment.

A line is whole or not there: `append` hands it to the system at once, so nothing waits in this process, and a
line that a kill or a full disk tore is cut off before the next one is written. Leaves out what the lines
mean. A number that is not finite becomes null, because JSON has none.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from groschen.errors import BadFile
from groschen.files import decode, is_there, open_regular
from groschen.own_files import open_own
from groschen.runs.disk import not_written, sync_folder

T = TypeVar("T")
_CHUNK_BYTES = 1 << 16
_MOST_BYTES_OF_LINE = 1 << 28  # a completion of 10 million tokens has less


class Journal:
    """One file, open for appending by one thread of this process (the run folder's lock keeps others out)."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; a torn last line is cut off. Raises BadFile for a link, or if the disk
        refuses.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = open_own(path, appends=True)
        except OSError as error:
            raise not_written(path, error) from error
        self._is_torn = False
        try:
            self._cut_torn_line()
        except BadFile:
            os.close(self._descriptor)
            raise

    def append(self, record: object) -> None:
        """Add one line: a mapping or a dataclass. It outlives this process at once, the machine after `sync`.

        Raises BadFile if the disk refuses; the file then ends with the last whole line.
        """
        left = memoryview(msgspec.json.encode(record) + b"\n")
        if self._is_torn:
            self._cut_torn_line()
        self._is_torn = True  # until the whole line is out: Ctrl-C may come between two writes
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            with suppress(BadFile):  # the reason is on its way already
                self._cut_torn_line()
            raise not_written(self.path, error) from error
        self._is_torn = False

    def sync(self) -> None:
        """Let all lines reach the disk. Raises BadFile if it refuses."""
        try:
            os.fsync(self._descriptor)
            sync_folder(self.path.parent)
        except OSError as error:
            raise not_written(self.path, error) from error

    def read(self) -> list[dict[str, object]]:
        """All lines. Raises BadFile if one is not a JSON object."""
        return read_journal(self.path)

    def truncate_after(self, is_beyond: Callable[[Mapping[str, object]], bool]) -> int:
        """Cut the first line that is beyond, and all that were written after it; returns how many.

        The cut is one call to the system: a kill leaves the file as it was or as it shall be.
        """
        num_cut, place = 0, 0
        for line, end in whole_lines(self.path):
            if num_cut or is_beyond(_decode(line, self.path, dict)):
                num_cut += 1
            else:
                place = end
        if num_cut:
            self._cut(place)
            self.sync()
        return num_cut

    def close(self) -> None:
        """Give the file back; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _cut(self, num_bytes: int) -> None:
        try:
            if num_bytes < os.fstat(self._descriptor).st_size:
                os.ftruncate(self._descriptor, num_bytes)
        except OSError as error:
            raise not_written(self.path, error) from error

    def _cut_torn_line(self) -> None:
        self._cut(_whole_bytes(self._descriptor))
        self._is_torn = False


def read_journal(path: Path, kind: type[T] = dict) -> list[T]:  # type: ignore[assignment]
    """All whole lines, each as a `kind` (a dataclass or dict); none if the file does not exist.

    A torn last line, of a process that writes now or was killed, is left out. Raises BadFile if the file
    cannot be read or a whole line is not a `kind`.
    """
    return [_decode(line, path, kind, number) for number, (line, _) in enumerate(whole_lines(path), 1)]


def whole_lines(path: Path) -> Iterator[tuple[bytes, int]]:
    """Each whole line with the position after it; none if the file does not exist.

    Raises BadFile if the file is no regular one, cannot be read or has a line that no process of ours writes.
    """
    position = 0
    if not is_there(path):
        return
    with open_regular(path, "restore it from a copy of the run") as file:
        try:
            while line := file.readline(_MOST_BYTES_OF_LINE):
                position += len(line)
                if line.endswith(b"\n"):
                    yield line, position
                elif len(line) == _MOST_BYTES_OF_LINE:
                    raise BadFile(
                        f"{path} has a line of more than {_MOST_BYTES_OF_LINE:,} bytes, which no run writes; "
                        "restore it from a copy of the run"
                    )
        except OSError as error:
            raise BadFile(f"{path} cannot be read ({error.strerror or error}); check the disk") from error


def _decode(line: bytes, path: Path, kind: type[T], number: int = 0) -> T:
    where = f"line {number} of {path}" if number else f"a line of {path}"
    return decode(
        line, kind, where, "it was changed after it was written: restore the file or remove that line"
    )


def _whole_bytes(descriptor: int) -> int:
    """How many bytes of the file are whole lines."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - _CHUNK_BYTES)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
