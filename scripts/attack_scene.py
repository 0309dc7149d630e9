"""What the attacks aim at, and what is seen of it from outside: files, servers, a process, memory.

Everything is planted for this purpose in a folder of its own. Leaves out the programs (attacks.py) and how
they are run (attack_sandbox.py).
"""

import contextlib
import ctypes
import os
import resource
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from attacks import numbers

DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_THREAD_BYTES = 24 << 10  # of the kernel, for one thread: a stack of 16 KiB, and what describes it
_SET_REAPER = 36  # PR_SET_CHILD_SUBREAPER
_LIMITS = [value for name, value in vars(resource).items() if name.startswith("RLIMIT_")]


@dataclass(frozen=True, slots=True)
class Scene:
    """The planted targets of one run."""

    folder: Path
    secret: str
    victim: subprocess.Popen[bytes]
    servers: Mapping[str, socket.socket]

    def given(self) -> dict[str, object]:
        """What an attack is told."""
        return {
            "folder": str(self.folder / "planted"),
            "file": str(self.folder / "planted" / "file"),
            "link": str(self.folder / "planted" / "link"),
            "stream": str(self.folder / "stream"),
            "datagram": str(self.folder / "datagram"),
            "abstract": self.servers["abstract"].getsockname()[1:].decode(),
            "port": self.servers["tcp"].getsockname()[1],
            "udp": self.servers["udp"].getsockname()[1],
            "victim": self.victim.pid,
            "address": _stack_of(self.victim.pid),
            "grader": os.getpid(),
            "token": self.secret[:8],
            "numbers": numbers(),
        }

    def look(self) -> dict[str, object]:
        """All that an attack must not change."""
        planted = self.folder / "planted"
        paths = (planted, planted / "file", planted / "link", self.folder, *map(Path, DEVICES))
        seen: dict[str, object] = {str(path): _state_of(path) for path in paths}
        for name, pid in (("victim", self.victim.pid), ("grader", os.getpid())):
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            seen[f"{name}: stopped"] = words[0] in "TtZX"
            seen[f"{name}: priority"] = os.getpriority(os.PRIO_PROCESS, pid)
            seen[f"{name}: cores"] = os.sched_getaffinity(pid)
            seen[f"{name}: class"] = os.sched_getscheduler(pid)
            seen[f"{name}: limits"] = [resource.prlimit(pid, limit) for limit in _LIMITS]
        seen["host"] = os.uname().nodename
        return seen

    def reached(self) -> str | None:
        """The server that somebody has reached since the last look."""
        for name, server in self.servers.items():
            with contextlib.suppress(BlockingIOError):
                if server.type == socket.SOCK_STREAM:
                    server.accept()[0].close()
                else:
                    server.recv(100)
                return name
        return None


@contextmanager
def planted() -> Iterator[Scene]:
    """The targets, in a temporary folder that is removed in the end."""
    ctypes.CDLL(None).prctl(
        _SET_REAPER, 1, 0, 0, 0
    )  # whoever outlives its parent becomes a child of this process
    os.environ["GROSCHEN_ATTACK_SECRET"] = secrets.token_hex(8)
    folder = Path(tempfile.mkdtemp(prefix="groschen-attack-"))
    folder.chmod(0o755)  # the wall has to hold, not the mode of a folder above
    secret = secrets.token_hex(16)
    (folder / "planted").mkdir()
    (folder / "planted" / "file").write_text(secret)
    (folder / "planted" / "link").symlink_to("/planted/target")
    with contextlib.suppress(OSError):  # not every file system keeps them
        os.setxattr(folder / "planted" / "file", "user.planted", b"x")
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    servers = _servers(folder, secret)
    try:
        yield Scene(folder, secret, victim, servers)
    finally:
        victim.kill()
        victim.wait()
        for server in servers.values():
            server.close()
        shutil.rmtree(folder, ignore_errors=True)


def left_behind() -> list[int]:
    """Children of this process besides those that it knows: what outlived its parent. The dead are buried."""
    left = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = path.read_text().split(" (", 1)
        except OSError:  # it has just ended
            continue
        state, parent = rest.rpartition(")")[2].split()[:2]
        if int(parent) == os.getpid() and state == "Z" and not _known(int(number)):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(int(number), os.WNOHANG)
        elif int(parent) == os.getpid() and not _known(int(number)):
            left.append(int(number))
    return left


def _known(pid: int) -> bool:
    """Whether this is a process that the scene or the runner has started itself."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
    return b"time.sleep(3600)" in words and b"-c" in words


class Memory:
    """Samples what descendants of this process hold, the kernel's part included, in a thread."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._base = _shared_bytes()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ends.wait(0.02):
            held = sum(map(_held_bytes, _descendants(os.getpid())))
            self.peak_bytes = max(self.peak_bytes, held + max(0, _shared_bytes() - self._base))


def _servers(folder: Path, secret: str) -> dict[str, socket.socket]:
    servers = {
        "tcp": socket.create_server(("127.0.0.1", 0)),
        "udp": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "stream": socket.socket(socket.AF_UNIX),
        "abstract": socket.socket(socket.AF_UNIX),
        "datagram": socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    }
    servers["udp"].bind(("127.0.0.1", 0))
    servers["abstract"].bind("\0groschen-" + secret[:8])
    for name in ("stream", "datagram"):
        servers[name].bind(str(folder / name))
        (folder / name).chmod(0o777)
    for server in servers.values():
        if server.type == socket.SOCK_STREAM:
            server.listen()
        server.setblocking(False)
    return servers


def _stack_of(pid: int) -> int:
    """The lowest address of a process's stack."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return next((int(line.split("-")[0], 16) for line in maps if line.endswith("[stack]")), 0)


def _state_of(path: Path) -> object:
    """Mode, owner, times, attributes and content of a file; of a device only what nobody changes by use."""
    try:
        status = path.lstat()
        seen = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink)
        if path.parent == Path("/dev"):
            return seen
        inner = sorted(os.listdir(path)) if path.is_dir() else path.is_symlink() or path.read_text()
        return (*seen, status.st_ctime_ns, status.st_mtime_ns, _attributes(path), inner)
    except OSError as error:  # an attack took it away
        return repr(error)


def _attributes(path: Path) -> list[tuple[str, bytes]]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:  # a file system without them
        return []
    return [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]


def _descendants(root: int) -> list[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    below, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in below} | below
        grown, below = more != below, more
    return sorted(below - {root})


def _held_bytes(pid: int) -> int:
    """Anonymous memory, page tables and threads of a process."""
    try:
        rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except OSError:
        return 0
    pages = sum(int(rows.get(name, "0 kB").split()[0]) << 10 for name in ("RssAnon", "VmPTE"))
    return pages + int(rows["Threads"]) * _THREAD_BYTES


def _shared_bytes() -> int:
    """Files in memory of the whole machine."""
    rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(rows["Shmem"].split()[0]) << 10


def settle(seconds: float) -> list[int]:
    """Wait until nothing is left behind, at most so long; what is."""
    deadline = time.monotonic() + seconds
    while (left := left_behind()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left
