"""Write a file or a folder so that it is either wholly there or not at all.

Leaves out what is written. The new thing grows under a temporary name beside its place, reaches the disk
(fsync) and is then renamed, so a crash or a full disk never leaves half a checkpoint under its real name.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from groschen.errors import BadFile, BadRequest


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write; it appears at `path` when the block ends without an exception.

    Raises BadRequest if `path` exists already, BadFile if the disk refuses.
    """
    _refuse_existing(path, path.exists())
    with replaced_file(path) as file:
        yield file


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """As `new_file`, in place of an older file: whoever reads that one meanwhile sees the whole of it."""
    temporary = _temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            _flush(file)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        with suppress(OSError):  # the reason is on its way already
            temporary.unlink()


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill; it appears at `folder` when the block ends without an exception.

    Write its files with `write_synced`. Raises BadRequest if `folder` exists and is not an empty folder,
    BadFile if the disk refuses.
    """
    _refuse_existing(folder, folder.exists() and (not folder.is_dir() or any(folder.iterdir())))
    temporary = _temporary_name(folder)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _sync_folder(temporary)
        temporary.replace(folder)
        _sync_folder(folder.parent)
    except OSError as error:
        raise _not_written(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def write_synced(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write that has reached the disk when the block ends."""
    with path.open("wb") as file:
        yield file
        _flush(file)


def _temporary_name(path: Path) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"


def _refuse_existing(path: Path, occupied: bool) -> None:
    if occupied:
        raise BadRequest(
            f"{path} exists already and is not overwritten; choose another name or remove it first"
        )


def _not_written(path: Path, error: OSError) -> BadFile:
    return BadFile(
        f"{path} could not be written ({error.strerror or error}); check free space and permissions"
    )


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
