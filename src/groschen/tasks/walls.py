"""The two walls behind which a model's code may run: bubblewrap and sandlock. Each starts one process.

Behind both: no network, no process besides the one that is started, nothing writable, and of the file
system only the system's libraries and the installation of this Python, to be read. No environment variable
passes. Limits on memory, time and open files are set by the process itself before it touches foreign code
(inside.py).
What the walls do not protect against: sandbox.py.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from groschen.errors import Unsupported
from groschen.tasks import seccomp

_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin", "HOME": "/", "LANG": "C.UTF-8"}
_NOBODY = "65534"


class Process(Protocol):
    """A process behind a wall, and the pipes to it."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def kill(self) -> None:
        """End it and everything that it started, at once."""

    def wait(self, seconds: float) -> int:
        """Its exit status, or the negative number of its signal; after these seconds it is killed."""


class Wall(Protocol):
    """A way to start a process that can do nothing but compute."""

    name: str

    def start(self, argv: Sequence[str], memory_bytes: int) -> Process:
        """Start a program by its absolute path. Raises Unsupported if this machine can't."""


def python() -> str:
    """The interpreter as a file, not as a link in a virtual environment that is invisible behind a wall."""
    return os.path.realpath(sys.executable)


def readable() -> tuple[str, ...]:
    """What a process may read: system libraries and the installation of Python, wherever it lies.

    Raises Unsupported if that installation is a folder that also holds what is private.
    """
    installation = os.path.realpath(sys.base_prefix)
    home = os.path.realpath(Path.home())
    if installation == "/" or os.path.commonpath([installation, home]) == installation:
        raise Unsupported(f"Python is installed in {installation}, which would show {home} to the sandbox")
    inside_system = any(os.path.commonpath([installation, folder]) == folder for folder in ("/usr",))
    folders = _SYSTEM if inside_system else (*_SYSTEM, installation)
    return tuple(folder for folder in folders if os.path.exists(folder))


class Bubblewrap:
    """Namespaces of its own for everything, an empty root, no capabilities, and a filter of system calls."""

    name = "bubblewrap"

    def start(self, argv: Sequence[str], memory_bytes: int) -> Process:  # noqa: ARG002 - the process limits itself
        """As of every wall."""
        found = shutil.which("bwrap")
        if found is None:
            raise Unsupported("there is no program bwrap; install the package bubblewrap")
        command = [
            found,
            "--unshare-all",
            "--unshare-user",
            "--uid",
            _NOBODY,
            "--gid",
            _NOBODY,
            "--cap-drop",
            "ALL",
        ]
        command += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"]
        for name, value in _ENVIRONMENT.items():
            command += ["--setenv", name, value]
        for folder in readable():
            linked = os.path.islink(folder)
            command += ["--symlink", os.readlink(folder), folder] if linked else ["--ro-bind", folder, folder]
        for device in _DEVICES:
            command += ["--dev-bind", device, device]
        filter_file = os.memfd_create("filter")
        try:
            os.write(filter_file, seccomp.program())
            os.lseek(filter_file, 0, os.SEEK_SET)
            command += ["--remount-ro", "/", "--chdir", "/", "--seccomp", str(filter_file), "--", *argv]
            return _Piped(command, filter_file)
        finally:
            os.close(filter_file)


class _Piped:
    """A process started by subprocess."""

    def __init__(self, command: Sequence[str], kept_open: int) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, pass_fds=(kept_open,), env={}, cwd="/"
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self.stdin, self.stdout, self.stderr = self._process.stdin, self._process.stdout, self._process.stderr

    def kill(self) -> None:
        self._process.kill()  # with --die-with-parent and a PID namespace this ends all of it

    def wait(self, seconds: float) -> int:
        try:
            return self._process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Sandlock:
    """Landlock and a supervised filter of system calls. Needs no namespaces, but Linux 6.7."""

    name = "sandlock"

    def start(self, argv: Sequence[str], memory_bytes: int) -> Process:
        """As of every wall."""
        try:
            import sandlock
        except ImportError as missing:
            raise Unsupported("there is no package sandlock; pip install 'groschen[sandbox]'") from missing
        settings = sandlock.Sandbox(
            fs_readable=[*readable(), *_DEVICES],
            fs_writable=["/dev/null"],
            max_memory=8 * memory_bytes,  # counts attempts and kills; for root, who could lift the own limit
            max_processes=1,
            no_coredump=True,
            clean_env=True,
            env=_ENVIRONMENT,
            cwd="/",
        )
        piped = sandlock.StdioMode.PIPED
        try:
            return _Confined(settings, settings.popen(list(argv), stdin=piped, stdout=piped, stderr=piped))
        except (RuntimeError, OSError) as error:
            raise Unsupported(f"sandlock can't start a process here: {error}") from error


class _Confined:
    """A process started by sandlock."""

    def __init__(self, settings: Any, process: Any) -> None:  # classes of an extra without types
        self._settings, self._process = settings, process  # the settings must outlive the process
        self.stdin, self.stdout, self.stderr = self._process.stdin, self._process.stdout, self._process.stderr

    def kill(self) -> None:
        self._process.kill()

    def wait(self, seconds: float) -> int:
        ended = self._process.wait(timeout=max(seconds, 0.01))
        if ended.reason == 0:  # it ended by itself
            return int(ended.exit_code)
        return -int(ended.signal) if ended.signal > 0 else -int(signal.SIGKILL)


WALLS: tuple[Wall, ...] = (Bubblewrap(), Sandlock())
