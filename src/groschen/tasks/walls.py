"""The walls behind which a model's code may run: bubblewrap and sandlock. Each starts one process.

Behind all: no network, no process besides the one that is started, nothing writable, and of the file system
only the system's libraries and the installation of this Python, to be read. No environment variable passes.
Limits on memory, time and open files, the loss of capabilities and the filter of system calls are set by the
process itself before it touches foreign code (confine.py).

bubblewrap gives namespaces of its own for processes, files, network, IPC and host name. Started by root it
needs no user namespace: the process becomes a user who owns nothing, where the system lets it; else, and for
everybody else, it stays the user who started it, inside a user namespace.
What each does not hold: `leaves_open`. What none protects against: sandbox.py.
"""

import os
import platform
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from groschen.errors import Unsupported

_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin", "HOME": "/", "LANG": "C.UTF-8"}
_NOBODY = 65534
_UNUSED_USERS = range(1 << 30, (1 << 30) + (1 << 24))  # ids that no distribution gives to anybody
_SET_USER_AND_GROUP = 1 << 6 | 1 << 7  # CAP_SETGID, CAP_SETUID
_TRACE = 1 << 19  # CAP_SYS_PTRACE
_THREADS = "it can start as many threads as its memory holds"
_STAYS_ROOT = "it stays the user root, without any of root's rights"


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

    def leaves_open(self) -> tuple[str, ...]:
        """What a process can still do behind this wall on this machine, besides what no wall prevents."""

    def user(self) -> int | None:
        """The user that a process of root has to become, by number; None: it stays who it is."""

    def counts_alone(self) -> bool:
        """Whether a limit on the user's threads counts those of this process only."""

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


def other_user() -> int | None:
    """The number of a user who owns nothing, another one each time; None if this process can't become one."""
    if os.geteuid() != 0 or not _has_rights(_SET_USER_AND_GROUP):
        return None
    drawn = secrets.choice(_UNUSED_USERS)
    return next((user for user in (drawn, _NOBODY) if _is_mapped(user)), None)


def _has_rights(capabilities: int) -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1]
    return int(effective, 16) & capabilities == capabilities


def _namespaces_count_threads() -> bool:
    """Whether a limit on a user's threads counts those of one user namespace: since Linux 5.14."""
    return [int(number) for number in re.findall(r"\d+", platform.release())[:2]] >= [5, 14]


def _is_mapped(user: int) -> bool:
    """Whether the user namespace of this process knows the user and the group of this number."""
    for path in (Path("/proc/self/uid_map"), Path("/proc/self/gid_map")):
        rows = [[int(word) for word in line.split()] for line in path.read_text().splitlines()]
        if not any(first <= user < first + count for first, _, count in rows):
            return False
    return Path("/proc/self/setgroups").read_text().strip() == "allow"


def _all_may_read(path: str) -> bool:
    """Whether every user may read a file or list a folder, and pass through the folders above it."""
    above = all(parent.stat().st_mode & stat.S_IXOTH for parent in Path(path).parents)
    return bool(above and Path(path).stat().st_mode & stat.S_IROTH)


class Bubblewrap:
    """Namespaces of its own, an empty root, no capabilities."""

    name = "bubblewrap"

    def leaves_open(self) -> tuple[str, ...]:
        """As of every wall."""
        return () if self.counts_alone() else (_THREADS,)

    def user(self) -> int | None:
        """As of every wall."""
        return None

    def counts_alone(self) -> bool:
        """As of every wall. The kernel never limits the threads of root, whatever its name in here."""
        return os.geteuid() != 0 and _namespaces_count_threads()

    def start(self, argv: Sequence[str], memory_bytes: int) -> Process:  # noqa: ARG002 - the process limits itself
        """As of every wall."""
        program = shutil.which("bwrap")
        if program is None:
            raise Unsupported("there is no program bwrap; install the package bubblewrap")
        command = [program, *self._identity(), "--die-with-parent", "--new-session", "--hostname", "sandbox"]
        command.append("--clearenv")
        for name, value in _ENVIRONMENT.items():
            command += ["--setenv", name, value]
        for folder in readable():
            if os.path.islink(folder):
                command += ["--symlink", os.readlink(folder), folder]
                continue
            # Folders that bubblewrap makes on the way have mode 0700, which would shut another user out.
            for parent in reversed(Path(folder).parents[:-1]):
                command += ["--perms", "0755", "--dir", str(parent)]
            command += ["--ro-bind", folder, folder]
        command += ["--perms", "0755", "--dir", "/dev"]
        for device in _DEVICES:
            command += ["--dev-bind", device, device]
        return Piped([*command, "--remount-ro", "/", "--chdir", "/", "--", *argv])

    def _identity(self) -> list[str]:
        nobody = str(_NOBODY)
        names = ["--unshare-all", "--unshare-user", "--uid", nobody, "--gid", nobody]
        return [*names, "--cap-drop", "ALL"]


class BubblewrapAsRoot(Bubblewrap):
    """bubblewrap without a user namespace, for root: the process becomes another user of the machine."""

    name = "bubblewrap as root"

    def leaves_open(self) -> tuple[str, ...]:
        """As of every wall."""
        return ()

    def user(self) -> int | None:
        """As of every wall."""
        return other_user()

    def counts_alone(self) -> bool:
        """As of every wall."""
        return True

    def start(self, argv: Sequence[str], memory_bytes: int) -> Process:
        """As of every wall."""
        if os.geteuid() != 0:
            raise Unsupported("this process is not root's")
        if other_user() is None:
            raise Unsupported("root can't become another user here")
        return super().start(argv, memory_bytes)

    def _identity(self) -> list[str]:
        names = [f"--unshare-{kind}" for kind in ("ipc", "pid", "net", "uts", "cgroup-try")]
        rights = [word for right in ("SETUID", "SETGID", "SETPCAP") for word in ("--cap-add", f"CAP_{right}")]
        return [*names, "--cap-drop", "ALL", *rights]  # what is left is for becoming the user (confine.py)


class Piped:
    """A process started by subprocess."""

    def __init__(self, command: Sequence[str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env={}, cwd="/")
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self.stdin, self.stdout, self.stderr = self._process.stdin, self._process.stdout, self._process.stderr

    def kill(self) -> None:
        """As of every process."""
        self._process.kill()  # with --die-with-parent and a PID namespace this ends all of it

    def wait(self, seconds: float) -> int:
        """As of every process."""
        try:
            return self._process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Sandlock:
    """Landlock and a supervised filter of system calls. Needs no namespaces, but Linux 6.12 (Landlock 6)."""

    name = "sandlock"

    def leaves_open(self) -> tuple[str, ...]:
        """As of every wall."""
        reads = (
            "it can ask of any path whether it exists, how large and how old it is, and where a link leads",
            "it sees the name of the machine, and its own and the grader's number",
        )
        if self.counts_alone():
            return reads
        return (*reads, _THREADS) if os.geteuid() != 0 else (*reads, _THREADS, _STAYS_ROOT)

    def user(self) -> int | None:
        """As of every wall. Only where that user can read Python and sandlock can look into its memory, as it
        must; else root without capabilities.
        """
        possible = _has_rights(_TRACE) and all(map(_all_may_read, (python(), *readable())))
        return other_user() if possible else None

    def counts_alone(self) -> bool:
        """As of every wall."""
        return self.user() is not None

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


WALLS: tuple[Wall, ...] = (BubblewrapAsRoot(), Bubblewrap(), Sandlock())
