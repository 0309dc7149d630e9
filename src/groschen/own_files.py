"""Open the files of a run folder for writing, never through a link.

A run folder may come from elsewhere: through a link in it we would empty or cut a file outside. Leaves out
reading (files.py) and files that are replaced as a whole (model/atomic.py), which replace a link too.
"""

import errno
import os
import stat
from pathlib import Path

from groschen.errors import BadFile

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_own(path: Path, *, appends: bool) -> int:
    """A descriptor of the regular file `path`, made if it is not there, for reading and writing.

    appends: every write goes to the file's end. Raises BadFile for a link or anything else that is no regular
    file, OSError if the system refuses.
    """
    try:
        descriptor = os.open(path, _FLAGS | (os.O_APPEND if appends else 0), 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _not_ours(path, "a link") from error
        if error.errno in (errno.ENXIO, errno.EISDIR):  # a socket or a folder
            raise _not_ours(path, "no regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_ours(path, "no regular file")
    return descriptor


def refuse_link(path: Path) -> None:
    """Raises BadFile if `path` is a link, to a folder in which we would write elsewhere."""
    if path.is_symlink():
        raise _not_ours(path, "a link")


def _not_ours(path: Path, what: str) -> BadFile:
    return BadFile(
        f"{path} is {what}, and a run writes only into files of its own folder; if you trust the folder, put "
        "a copy of the file in its place"
    )
