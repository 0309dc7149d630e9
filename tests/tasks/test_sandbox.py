import contextlib
import json
import os
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from groschen.errors import BadRequest, Unsupported
from groschen.tasks import seccomp
from groschen.tasks.sandbox import Limits, Outcome, Sandbox, find_sandbox, first_that_holds, hole
from groschen.tasks.walls import WALLS, Piped, Process, Wall, readable


@pytest.fixture(params=WALLS, ids=lambda wall: wall.name, scope="module")
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """Each wall that can be built on this machine; one that stands and has a hole is a failure."""
    found = Sandbox(request.param)
    try:
        why = hole(found)
    except Unsupported as unsupported:
        pytest.skip(str(unsupported))
    if why is not None and "did not run" in why:
        pytest.skip(f"{request.param.name}: {why}")
    assert why is None
    return found


class NoWall:
    """Runs a program like any other: what the probe must notice."""

    name = "no wall"

    def leaves_open(self) -> tuple[str, ...]:
        return ("everything",)

    def user(self) -> int | None:
        return None

    def counts_alone(self) -> bool:
        return False

    def start(self, argv: Sequence[str], memory_bytes: int) -> Process:
        return Piped(argv)


class Silent(NoWall):
    """Its programs never run."""

    def start(self, argv: Sequence[str], memory_bytes: int) -> Process:
        return super().start(["/bin/true"], memory_bytes)


class Missing(NoWall):
    """A wall that is not installed."""

    name = "a missing wall"

    def start(self, argv: Sequence[str], memory_bytes: int) -> NoReturn:
        raise Unsupported("it is not here")


def test_without_a_wall_that_holds_code_is_refused() -> None:
    with pytest.raises(
        Unsupported, match=r"a missing wall: it is not here; no wall: it read a planted secret"
    ):
        first_that_holds([Missing(), NoWall()])
    with pytest.raises(Unsupported, match="none holds"):
        first_that_holds([])


def test_a_probe_leaves_no_files_where_a_wall_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert hole(Sandbox(NoWall())) is not None
    assert list(tmp_path.iterdir()) == []


def test_a_probe_that_did_not_run_proves_nothing() -> None:
    assert "did not run" in str(hole(Sandbox(Silent())))


@pytest.fixture
def no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every system call is allowed: what remains is what the wall holds."""
    monkeypatch.setattr(seccomp, "program", lambda **_: struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000))


@pytest.mark.usefixtures("no_filter")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            'for path in asked["secrets"]:\n    attempt("read " + path, read, path)\n',
            "it read a planted secret",
        ),
        ('attempt("connect"', "it reached a socket"),
    ],
)
def test_the_probe_finds_each_hole_by_itself(line: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from groschen.tasks import sandbox as module

    head, _, rest = module._PROBE.partition("for path")
    assert line in module._PROBE
    only = line if "\n" in line else rest[rest.index(line) :].split("\n")[0]
    monkeypatch.setattr(module, "_PROBE", f"{head}{only}\nprint(asked['alive'])\nprint('')\n")
    assert hole(Sandbox(NoWall())) == found


HOLES = [
    "listen", "open a socket (2, 2, 17)", "open a socket (1, 2, 0)", "open a socket (16, 3, 0)",
    "send a descriptor", "start a process", "signal its parent", "reach its parent's limits",
    "reach its parent's priority", "reach its parent's cores", "open its parent", "write to /tmp",
    "change the mode of /tmp/", "change the owner of /tmp/", "change the times of /tmp/", "lock a file",
    "watch files", "outlive its parent",
]  # fmt: skip


@pytest.fixture(scope="module")
def holes_without_protection() -> str:
    """What the probe says of a process without a wall and a filter; it may read and connect, too."""
    from groschen.tasks import sandbox as module

    with pytest.MonkeyPatch.context() as patch:
        no_filter.__wrapped__(patch)  # type: ignore[attr-defined]
        quiet = module._PROBE.replace("print(file.read())", "pass").split("\n")
        patch.setattr(module, "_PROBE", "\n".join(line for line in quiet if '"connect"' not in line))
        patch.setattr(tempfile, "tempdir", "/tmp")
        return str(hole(Sandbox(NoWall())))


@pytest.mark.parametrize("name", HOLES)
def test_the_probe_names_each_hole(holes_without_protection: str, name: str) -> None:
    assert name in holes_without_protection


def test_the_first_wall_that_holds_is_taken(sandbox: Sandbox) -> None:
    chosen = first_that_holds([Missing(), NoWall(), sandbox.wall])
    assert chosen.wall is sandbox.wall
    assert find_sandbox() in [Sandbox(wall) for wall in WALLS]


def run(sandbox: Sandbox, code: str, stdin: bytes = b"", **limits: float) -> Outcome:
    return sandbox.run(code, stdin, Limits(**limits))  # type: ignore[arg-type]


def test_a_program_gets_its_input_and_its_output_and_status_come_back(sandbox: Sandbox) -> None:
    code = "import sys; print(sys.stdin.read().upper()); print('e', file=sys.stderr); sys.exit(3)"
    outcome = run(sandbox, code, b"abc")
    assert (outcome.stdout, outcome.stderr, outcome.status) == (b"ABC\n", b"e\n", 3)
    assert not (outcome.timed_out or outcome.memory_exceeded or outcome.output_exceeded)


def test_a_command_is_run_with_its_arguments(sandbox: Sandbox) -> None:
    assert sandbox.run(["/usr/bin/printf", "%s-%s", "a b", "c"]).stdout == b"a b-c"


@pytest.mark.parametrize("size", [1_000_000])
def test_input_and_output_larger_than_a_pipe_pass(sandbox: Sandbox, size: int) -> None:
    outcome = run(sandbox, "import sys; sys.stdout.write(sys.stdin.read())", b"x" * size)
    assert outcome.stdout == b"x" * size


def test_a_program_that_reads_nothing_gets_no_error(sandbox: Sandbox) -> None:
    assert run(sandbox, "print(1)", b"x" * 1_000_000).stdout == b"1\n"


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import os, time; os.close(1); os.close(2); time.sleep(60)",
        "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; time.sleep(60)",
    ],
)
def test_a_program_that_does_not_end_is_ended(sandbox: Sandbox, code: str) -> None:
    start = time.perf_counter()
    outcome = run(sandbox, code, seconds=1.0)
    assert outcome.timed_out and outcome.status != 0
    assert time.perf_counter() - start < 30


def test_a_program_may_not_take_more_memory_than_its_limit(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "x = bytearray(300 << 20)", memory_bytes=200 << 20)
    assert outcome.memory_exceeded and outcome.status != 0
    assert run(sandbox, "x = bytearray(300 << 20); print(len(x))", memory_bytes=600 << 20).status == 0


def test_a_program_may_not_lift_its_limits(sandbox: Sandbox) -> None:
    code = (
        "import resource\ntry: resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))\n"
        "except (ValueError, OSError): pass\nx = bytearray(5 << 30)\nprint('taken')"
    )
    assert b"taken" not in run(sandbox, code).stdout


def test_a_program_that_writes_without_end_is_ended(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "while True: print('x' * 1000)", output_bytes=100_000)
    assert outcome.output_exceeded and outcome.status != 0 and len(outcome.stdout) <= 100_000


REFUSED = {
    "fork": "os.fork()",
    "a subprocess": "subprocess.run(['/bin/true'])",
    "multiprocessing": "multiprocessing.get_context('spawn').Process(target=print).start()",
    "an internet socket": "socket.create_connection(('192.0.2.1', 53), 1)",
    "a local server": "socket.create_server(('127.0.0.1', 0))",
    "a datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "a file in /tmp": "open('/tmp/groschen-test', 'w')",
    "a file in the system": "open('/usr/groschen-test', 'w')",
    "a file in shared memory": "open('/dev/shm/groschen-test', 'w')",
    "a file where it starts": "open('groschen-test', 'w')",
    "passwords": "open('/etc/shadow').read()",
    "the parent's environment": "open('/proc/%d/environ' % os.getppid()).read()",
    "this file": "open(given['here']).read()",
    "a file of the home folder": "open(given['home']).read()",
    "many open files": "[os.dup(1) for _ in range(2000)]",
    "a large file in memory": "os.truncate(os.memfd_create('x'), 20 << 20)",
}


def test_a_program_may_not_reach_beyond_its_wall(sandbox: Sandbox) -> None:
    with tempfile.NamedTemporaryFile(dir=Path.home(), prefix=".groschen-test-") as in_home:
        given = {"here": __file__, "home": in_home.name, "attempts": REFUSED}
        code = (
            "import json, multiprocessing, os, socket, subprocess, sys\ngiven = json.load(sys.stdin)\n"
            "for name, attempt in given['attempts'].items():\n"
            "    try: exec(attempt)\n    except Exception: pass\n    else: print(name)\nprint('all tried')"
        )
        outcome = run(sandbox, code, json.dumps(given).encode(), seconds=30)
    assert outcome.stdout.decode().splitlines() == ["all tried"], outcome


def test_a_program_sees_no_variable_of_the_parent(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROSCHEN_TEST_SECRET", "planted")
    outcome = run(sandbox, "import os; print(sorted(os.environ))")
    assert b"SECRET" not in outcome.stdout and b"PYTHONHASHSEED" in outcome.stdout


def test_sets_have_the_same_order_in_every_run(sandbox: Sandbox) -> None:
    outputs = {run(sandbox, "print(set('abcdefgh'))").stdout for _ in range(3)}
    assert len(outputs) == 1


def test_threads_work_inside(sandbox: Sandbox) -> None:
    code = "import threading; t = threading.Thread(target=print, args=('t',)); t.start(); t.join()"
    assert run(sandbox, code).stdout == b"t\n"


def test_many_threads_may_use_the_sandbox_at_once(sandbox: Sandbox) -> None:
    found: dict[int, bytes] = {}

    def one(number: int) -> None:
        found[number] = run(sandbox, f"print({number})", seconds=30).stdout

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: b"%d\n" % number for number in range(6)}


def command_lines() -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            found.append(path.read_bytes())
    return found


def test_nothing_is_left_running_when_the_context_is_left(sandbox: Sandbox) -> None:
    mark = f"time.sleep(3600.{os.getpid()})"
    with sandbox.start(["program", f"import time; print(1, flush=True); {mark}"], Limits()) as process:
        assert process.stdout.read(1) == b"1"
        assert any(mark.encode() in words for words in command_lines())
    start = time.perf_counter()
    while any(mark.encode() in words for words in command_lines()):
        assert time.perf_counter() - start < 30, "it outlives its context"
        time.sleep(0.02)


def test_a_program_that_is_too_long_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="100000 bytes"):
        Sandbox(NoWall()).run("#" * 100_001)


@pytest.mark.parametrize(
    "limits",
    [
        {"seconds": 0.0},
        {"memory_bytes": 1},
        {"open_files": 1},
        {"output_bytes": 0},
        {"seconds": float("inf")},
    ],
)
def test_limits_that_no_program_could_keep_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(BadRequest, match=next(iter(limits))):
        Limits(**limits)  # type: ignore[arg-type]


def test_an_installation_that_would_show_the_home_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", str(Path.home()))
    with pytest.raises(Unsupported, match="would show"):
        readable()


def test_walls_have_one_shape() -> None:
    walls: list[Wall] = [*WALLS, NoWall(), Missing()]
    assert len({wall.name for wall in walls}) == len(walls)
