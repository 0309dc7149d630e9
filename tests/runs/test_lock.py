import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groschen.errors import BadFile, BadRequest
from groschen.runs.lock import FolderLock

HOLDER = """
import os, sys, time
from pathlib import Path
from groschen.runs.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
child = {child}
if child != 0:
    print(child, flush=True)
time.sleep(60)
"""


def start_holder(folder: Path, *, forks: bool = False) -> "subprocess.Popen[str]":
    """A process that takes the lock and prints a number: its child's id if it forks, else -1."""
    program = HOLDER.format(child="os.fork()" if forks else "-1")
    return subprocess.Popen([sys.executable, "-c", program, folder], stdout=subprocess.PIPE, text=True)


def test_the_second_process_is_refused_with_the_holder_s_id_until_the_first_is_killed(tmp_path: Path) -> None:
    with start_holder(tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "-1\n"
        with pytest.raises(BadRequest, match=rf"in use by process {holder.pid} on {os.uname().nodename}"):
            FolderLock(tmp_path)
        holder.kill()
    with FolderLock(tmp_path):
        pass


def test_a_child_that_outlives_the_killed_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    with start_holder(tmp_path, forks=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        holder.kill()
        holder.wait()
        try:
            time.sleep(0.3)  # the child gives its copy back right after the fork
            FolderLock(tmp_path).release()
        finally:
            os.kill(child, signal.SIGKILL)


def test_one_process_cannot_hold_a_folder_twice(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(BadRequest, match=rf"process {os.getpid()} on"):
        FolderLock(tmp_path)


def test_a_released_lock_can_be_taken_again_and_released_twice(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    lock.release()
    with FolderLock(tmp_path) as second:
        lock.release()
        with pytest.raises(BadRequest):
            FolderLock(tmp_path)
        second.release()


def test_a_holder_that_has_not_written_its_name_is_another_process(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        (tmp_path / "lock").write_bytes(b"")
        with pytest.raises(BadRequest, match="in use by another process"):
            FolderLock(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="lock could not be written"):
        FolderLock(tmp_path / "absent")
