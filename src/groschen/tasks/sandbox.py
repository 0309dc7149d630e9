"""The sandbox for code that a model wrote: bubblewrap if it holds here, else sandlock, else it is refused.

A wall counts as held after a probe from inside has tried, failed, and said so: to read a planted secret, to
open a socket of any kind, to send a descriptor, to start a process or reach its parent, to write a file or to
change its mode, owner, times or attributes, to watch files, to shed its death signal, its limits or its
namespaces, to use a right of root, and to take more memory than allowed.

What no wall protects against:
- an error in the kernel, in bubblewrap or in sandlock: there is no second machine around the code;
- reading the system's libraries and the installation of this Python, which are visible inside;
- using the machine while it runs: its cores (threads are limited to 128 where they can be counted), the
  memory and the time of its limits;
- memory that the kernel holds for a process beside its address space, because no cgroup is used: page
  tables (with a limit of 128 MiB a program came to 344 MiB in all, `scripts/attack_sandbox.py`; the kernel's
  limit on mappings ends this at 512 MiB more), files in memory, pipes and threads;
- signals through shared hardware, such as caches and clocks.
What one wall leaves open beyond that: `leaves_open` in walls.py, and `groschen doctor`.
For code of people who mean harm, use a machine that holds nothing.
"""

import json
import math
import os
import secrets
import selectors
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from groschen import clock
from groschen.errors import BadRequest, Unsupported
from groschen.tasks import seccomp
from groschen.tasks.walls import WALLS, Process, Wall, python

MAX_CODE = 100_000  # bytes of a program: it travels as one argument, and Linux allows 131,072 bytes
_KILLED_SECONDS = 5.0  # for the system to clear away a process that was killed
# Family, type and protocol that the probe tries, besides a plain connection: TCP, MPTCP, UDP, IPv6, local
# (two), netlink, packets, the kernel's ciphers, vsock.
_SOCKETS = (
    *((2, 1, 6), (2, 1, 262), (2, 2, 17), (10, 1, 6), (1, 1, 0), (1, 2, 0)),
    *((16, 3, 0), (17, 3, 0), (38, 5, 0), (40, 1, 0)),
)
_MAX_THREADS = 128  # of a process whose threads can be counted: their memory in the kernel is nobody's
_CONFINE, _INSIDE = (Path(__file__).with_name(name) for name in ("confine.py", "inside.py"))
# What inside.py imports, in this order.
_MODULES = ("inside_values", "inside_run", "inside_sides", "inside_program", "inside_tests")
_IMPORT = """import sys, types
for name, text in %r.items():
    sys.modules[name] = module = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
"""
# No user's folder and no variable decides what Python does inside; -B: there is nothing to write to.
_FLAGS = ("-s", "-S", "-P", "-B", "-X", "utf8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one process may use."""

    seconds: float = 10.0  # from start to end
    memory_bytes: int = 512 << 20  # of address space
    open_files: int = 64
    output_bytes: int = 1 << 20  # of standard output and standard error together

    def __post_init__(self) -> None:
        """Raises BadRequest if a limit is too small for Python to start."""
        least = (("seconds", 0.1), ("memory_bytes", 64 << 20), ("open_files", 16), ("output_bytes", 1))
        for name, smallest in least:
            if not smallest <= getattr(self, name) < float("inf"):
                raise BadRequest(f"{name} is {getattr(self, name)}; expected {smallest} or more")

    def of_process(self) -> dict[str, int]:
        """The limits that a process sets for itself: see setrlimit(2)."""
        return {
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_CPU": math.ceil(self.seconds) + 1,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_FSIZE": self.output_bytes,  # only files in memory can be written at all
            "RLIMIT_CORE": 0,
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_RTPRIO": 0,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a program ended."""

    stdout: bytes
    stderr: bytes
    status: int  # its exit status; negative: the signal that ended it; after a limit it is not 0
    timed_out: bool
    memory_exceeded: bool  # as the program's own last words say
    output_exceeded: bool  # it was ended for this; stdout and stderr are cut
    seconds: float


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Starts processes behind one wall."""

    wall: Wall

    def run(self, program: str | Sequence[str], stdin: bytes = b"", limits: Limits | None = None) -> Outcome:
        """Run Python code (a text) or a command (a list with an absolute path) to its end or its limits."""
        limits = limits or Limits()
        is_code = isinstance(program, str)
        arguments = ["program", program] if isinstance(program, str) else ["command", *program]
        if is_code and len(str(program).encode("utf-8", "replace")) > MAX_CODE:
            raise BadRequest(f"the program has more than {MAX_CODE} bytes")
        with self.start(arguments, limits) as process:
            return _watch(process, stdin, limits)

    @contextmanager
    def start(self, arguments: Sequence[str], limits: Limits) -> Iterator[Process]:
        """A process with a role of inside.py; it is ended when the context is left."""
        confine, inside = _texts()
        settings = self._confinement(limits, may_replace_itself=arguments[0] == "command")
        command = [python(), *_FLAGS, "-c", confine, json.dumps(settings), inside, *arguments]
        process = self.wall.start(command, limits.memory_bytes)
        try:
            yield process
        finally:
            process.kill()
            process.wait(_KILLED_SECONDS)
            for stream in (process.stdin, process.stdout, process.stderr):
                if not stream.closed:
                    stream.close()

    def _confinement(self, limits: Limits, *, may_replace_itself: bool) -> dict[str, object]:
        """What confine.py has to do in the process."""
        of_process = limits.of_process()
        if self.wall.counts_alone():
            of_process["RLIMIT_NPROC"] = _MAX_THREADS
        return {
            "limits": of_process,
            "user": self.wall.user(),
            "filter": seccomp.program(may_replace_itself=may_replace_itself).hex(),
            "self": seccomp.SELF,
        }


@cache
def find_sandbox() -> Sandbox:
    """The first wall that holds on this machine. Raises Unsupported with the reason of each if none does."""
    return first_that_holds(WALLS)


def first_that_holds(walls: Sequence[Wall]) -> Sandbox:
    """As `find_sandbox`, among these walls."""
    reasons = []
    for wall in walls:
        try:
            why = hole(Sandbox(wall))
        except Unsupported as unsupported:
            why = str(unsupported)
        if why is None:
            return Sandbox(wall)
        reasons.append(f"{wall.name}: {why}")
    raise Unsupported(
        "code of a model runs in a sandbox only, and none holds on this machine "
        f"({'; '.join(reasons)}); install bubblewrap, or sandlock on Linux 6.12 or newer"
    )


def hole(sandbox: Sandbox) -> str | None:
    """What code in this sandbox can do that it must not; None if the probe found nothing."""
    secret, alive = secrets.token_hex(16), secrets.token_hex(16)
    with (
        tempfile.NamedTemporaryFile(dir=Path.home(), prefix=".groschen-probe-") as in_home,
        tempfile.NamedTemporaryFile(prefix="groschen-probe-") as in_temporary,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        for planted in (in_home, in_temporary):
            planted.write(secret.encode())
            planted.flush()
        name = f"groschen-probe-{alive}"
        folders = ["/", "/tmp", "/dev/shm", str(Path.home()), str(Path.cwd()), tempfile.gettempdir()]
        asked = {
            "secrets": [in_home.name, in_temporary.name],
            "port": server.getsockname()[1],
            "sockets": _SOCKETS,
            "folders": folders,
            "name": name,
            "alive": alive,
            "parent": os.getpid(),
        }
        try:
            outcome = sandbox.run(_PROBE, json.dumps(asked).encode(), Limits(seconds=20))
        finally:
            for (
                folder
            ) in folders:  # a wall that does not hold lets it make files; the filter, not remove them
                if os.path.lexists(path := os.path.join(folder, name)):
                    os.unlink(path)
        server.settimeout(0)
        try:
            server.accept()[0].close()
        except BlockingIOError:
            reached = False
        else:
            reached = True
    if secret.encode() in outcome.stdout + outcome.stderr:
        return "it read a planted secret"
    if reached:
        return "it reached a socket"
    said = outcome.stdout.decode("utf-8", "replace").split("\n")
    if said[0] != alive or outcome.status != 0:
        words = outcome.stderr.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
        return f"the probe did not run (status {outcome.status}: {words[:300]})"
    return f"it could {said[1]}" if said[1] else None


_PROBE = """
import ctypes, fcntl, json, os, resource, signal, socket, sys
asked = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)
found = []
def attempt(what, function, *arguments):
    try:
        result = function(*arguments)
    except (OSError, ValueError, MemoryError):
        return
    if result != "nothing":
        found.append(what)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
def read(path):
    with open(path) as file:
        print(file.read())
def write(folder):
    os.close(os.open(os.path.join(folder, asked["name"]), os.O_CREAT | os.O_WRONLY | os.O_EXCL))
def fork():
    if os.fork() == 0:
        os._exit(0)
    os.wait()
def put_in_flight():
    ends = socket.socketpair()
    socket.send_fds(ends[0], [b"x"], [1])
def lock():
    with open(sys.executable) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
for path in asked["secrets"]:
    attempt("read " + path, read, path)
attempt("connect", socket.create_connection, ("127.0.0.1", asked["port"]), 2)
attempt("listen", socket.create_server, ("127.0.0.1", 0))
for family, kind, protocol in asked["sockets"]:
    attempt("open a socket (%d, %d, %d)" % (family, kind, protocol), socket.socket, family, kind, protocol)
attempt("send a descriptor", put_in_flight)
attempt("start a process", fork)
parent, unlimited = asked["parent"], (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
attempt("signal its parent", os.kill, parent, 0)
attempt("reach its parent's limits", resource.prlimit, parent, resource.RLIMIT_CORE)
attempt("reach its parent's priority", os.getpriority, os.PRIO_PROCESS, parent)
attempt("reach its parent's cores", os.sched_getaffinity, parent)
attempt("open its parent", call, "syscall", 434, parent, 0)
for folder in asked["folders"]:
    attempt("write to " + folder, write, folder)
for path in (asked["secrets"][1], "/dev/null"):
    attempt("change the mode of " + path, os.chmod, path, 0o600 if path != "/dev/null" else 0o666)
    attempt("change the owner of " + path, os.chown, path, -1, -1)
    attempt("change the times of " + path, os.utime, path)
    attempt("mark " + path, os.setxattr, path, "user.groschen", b"x")
attempt("lock a file", lock)
attempt("watch files", call, "inotify_init1", 0)
attempt("watch all files", call, "fanotify_init", 0, 0)
attempt("outlive its parent", call, "prctl", 1, 0, 0, 0, 0)
attempt("leave its session", os.setsid)
attempt("leave its namespaces", call, "unshare", 0x10000000)
attempt("be traced", call, "ptrace", 0, 0, 0, 0)
attempt("queue calls", call, "syscall", 425, 1, 0)
attempt("change its root", os.chroot, "/")
attempt("change its groups", os.setgroups, [])
attempt("run before all others", os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))
attempt("lift its limits", resource.setrlimit, resource.RLIMIT_AS, unlimited)
attempt("take 1 GB", bytearray, 1 << 30)
print(asked["alive"])
print(", ".join(found))
"""


@cache
def _texts() -> tuple[str, str]:
    """The text of confine.py, and that of inside.py with its modules, of which the process sees no file."""
    modules = {
        f"groschen.tasks.{name}": _INSIDE.with_name(f"{name}.py").read_text(encoding="utf-8")
        for name in _MODULES
    }
    return _CONFINE.read_text(encoding="utf-8"), _IMPORT % modules + _INSIDE.read_text(encoding="utf-8")


def _watch(process: Process, stdin: bytes, limits: Limits) -> Outcome:
    """Feed and read a process until it closes its output, is late or says too much."""
    started = clock.seconds()
    deadline = started + limits.seconds
    outputs = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    out, err = outputs.values()
    rest = memoryview(stdin)
    timed_out = output_exceeded = False
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdin, process.stdout, process.stderr):
            os.set_blocking(stream.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        open_outputs = 2
        while open_outputs and not timed_out and not output_exceeded:
            left = deadline - clock.seconds()
            ready = selector.select(left) if left > 0 else []
            timed_out = not ready and deadline <= clock.seconds()
            for key, event in ready:
                if event & selectors.EVENT_WRITE:
                    rest = _fed(key.fd, rest)
                    if not rest:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                piece = os.read(key.fd, 1 << 16)
                outputs[key.fd] += piece
                if not piece:
                    selector.unregister(key.fileobj)
                    open_outputs -= 1
            output_exceeded = len(out) + len(err) > limits.output_bytes
    if timed_out or output_exceeded:
        process.kill()
    status = process.wait(_KILLED_SECONDS if timed_out or output_exceeded else deadline - clock.seconds())
    timed_out = timed_out or clock.seconds() >= deadline
    return Outcome(
        stdout=bytes(out[: limits.output_bytes]),
        stderr=bytes(err[: limits.output_bytes]),
        status=status if status or not (timed_out or output_exceeded) else -9,
        timed_out=timed_out,
        memory_exceeded=status != 0 and err.rstrip().rsplit(b"\n", 1)[-1].startswith(b"MemoryError"),
        output_exceeded=output_exceeded,
        seconds=clock.seconds() - started,
    )


def _fed(descriptor: int, rest: memoryview) -> memoryview:
    """What is left after writing what the pipe takes; nothing if nobody reads it any more."""
    try:
        return rest[os.write(descriptor, rest) :] if rest else rest
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return rest[:0]
