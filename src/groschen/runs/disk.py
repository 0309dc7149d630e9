"""What the files of a run folder share: names that reach the disk, one sentence for a disk that refuses."""

import os
from pathlib import Path

from groschen.errors import BadFile


def sync_folder(folder: Path) -> None:
    """Let the names in `folder` reach the disk (fsync). Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def not_written(path: Path, error: OSError) -> BadFile:
    """The error to raise when the system refused to write `path`."""
    return BadFile(
        f"{path} could not be written ({error.strerror or error}); check free space and permissions"
    )
