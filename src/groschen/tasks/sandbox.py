"""The sandbox for code that a model wrote: bubblewrap if it holds here, else sandlock, else it is refused.

A wall counts as held after a probe from inside has failed to read a planted secret, to reach a listening
socket, to start a process, to write a file and to take more memory than allowed, and has said so.

What it does not protect against:
- an error in the kernel, in bubblewrap or in sandlock: there is no second machine around the code;
- reading the system's libraries and the installation of this Python, which are visible inside;
- using the machine while it runs: a core, the memory and the time of its limits, any number of threads;
- signals through shared hardware, such as caches and clocks.
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
from groschen.tasks.walls import WALLS, Process, Wall, python

MAX_CODE = 100_000  # bytes of a program: it travels as one argument, and Linux allows 131,072 bytes
_KILLED_SECONDS = 5.0  # for the system to clear away a process that was killed
_INSIDE = Path(__file__).with_name("inside.py")
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
        command = [python(), *_FLAGS, "-c", _inside(), json.dumps(limits.of_process()), *arguments]
        process = self.wall.start(command, limits.memory_bytes)
        try:
            yield process
        finally:
            process.kill()
            process.wait(_KILLED_SECONDS)
            for stream in (process.stdin, process.stdout, process.stderr):
                if not stream.closed:
                    stream.close()


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
        f"({'; '.join(reasons)}); install bubblewrap, or sandlock on Linux 6.7 or newer"
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
        asked = {
            "secrets": [in_home.name, in_temporary.name],
            "port": server.getsockname()[1],
            "folders": ["/", "/tmp", "/dev/shm", str(Path.home()), str(Path.cwd()), tempfile.gettempdir()],
            "alive": alive,
            "parent": os.getpid(),
        }
        outcome = sandbox.run(_PROBE, json.dumps(asked).encode(), Limits(seconds=20))
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
import ctypes, json, os, signal, socket, sys
asked = json.load(sys.stdin)
found = []
def attempt(what, function, *arguments):
    try:
        result = function(*arguments)
    except (OSError, MemoryError):
        return
    if result != "nothing":
        found.append(what)
def read(path):
    with open(path) as file:
        print(file.read())
def write(folder):
    path = os.path.join(folder, "groschen-probe-%d" % os.getpid())
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL))
    os.unlink(path)
def fork():
    if os.fork() == 0:
        os._exit(0)
    os.wait()
for path in asked["secrets"]:
    attempt("read " + path, read, path)
attempt("connect", socket.create_connection, ("127.0.0.1", asked["port"]), 2)
attempt("listen", socket.create_server, ("127.0.0.1", 0))
attempt("start a process", fork)
attempt("signal its parent", os.kill, asked["parent"], 0)
for folder in asked["folders"]:
    attempt("write to " + folder, write, folder)
attempt("take 1 GB", bytearray, 1 << 30)
print(asked["alive"])
print(", ".join(found))
"""


@cache
def _inside() -> str:
    return _INSIDE.read_text(encoding="utf-8")


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
