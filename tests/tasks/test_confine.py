import contextlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from groschen.errors import Unsupported
from groschen.tasks import seccomp, walls
from groschen.tasks.sandbox import Limits, Sandbox, hole
from groschen.tasks.walls import WALLS, Bubblewrap, Piped, Process, Sandlock, Wall


def samples(text: str) -> dict[str, str]:
    """Names and programs."""
    return dict(part.split("\n", 1) for part in text.split("\n#= ")[1:])


# A line `#= name` begins a program.
ORDINARY = samples(r"""
#= threads
from concurrent.futures import ThreadPoolExecutor as P
print(sum(P(8).map(abs, range(-9, 9))))
#= asyncio
import asyncio
async def f(x):
    await asyncio.sleep(0.001)
    return x
async def g():
    return sum(await asyncio.gather(*[f(x) for x in range(10)]))
print(asyncio.run(g()))
#= much memory
x = bytearray(300 << 20)
x[-1] = 1
print(sum(x[-5:]))
#= numbers
import decimal, fractions, math, statistics, random, cmath
random.seed(1)
print(decimal.Decimal(2).sqrt(), fractions.Fraction(1, 3), math.gcd(4, 6), random.random() < 2)
#= texts
import json, re, csv, io, string, textwrap, unicodedata, difflib, html, base64, struct
print(json.dumps(re.findall('a+', 'aabaa')), unicodedata.name('é'), list(csv.reader(io.StringIO('a,b'))))
#= digests
import hashlib, hmac, zlib, bz2, lzma, secrets, uuid
print(hashlib.sha256(b'').hexdigest(), uuid.uuid4().version)
#= time
import time, datetime, calendar
time.sleep(0.01)
print(time.time() > 0, time.monotonic() > 0, time.process_time() >= 0, time.localtime().tm_year > 2000)
print(datetime.datetime.now().year > 2000)
#= structures
import collections, heapq, bisect, itertools, functools, array, queue, copy, pickle, dataclasses, enum
@functools.lru_cache(None)
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
print(fib(90), pickle.loads(pickle.dumps({1: [2]})))
#= a signal of its own
import signal, os
signal.signal(signal.SIGALRM, lambda *a: print('rang'))
signal.setitimer(signal.ITIMER_REAL, 0.01)
signal.pause()
signal.signal(signal.SIGUSR1, lambda *a: print('sent'))
os.kill(os.getpid(), signal.SIGUSR1)
#= a mapping
import mmap
m = mmap.mmap(-1, 8192)
m.write(b'x')
print(m[:1])
#= a database in memory
import sqlite3
print(sqlite3.connect(':memory:').execute('select 1 + 1').fetchone())
#= deep recursion
import sys
sys.setrecursionlimit(9000)
def f(n): return n and 1 + f(n - 1)
print(f(8000))
#= a deep stack in a thread
import sys, threading
sys.setrecursionlimit(10**6)
threading.stack_size(64 << 20)
def f(n): return n and 1 + f(n - 1)
t = threading.Thread(target=lambda: print(f(20000)))
t.start()
t.join()
#= what it is
import os, sys, platform, resource, locale, shutil, sysconfig, getpass, ctypes
print(os.cpu_count() > 0, platform.system(), resource.getrusage(0).ru_maxrss > 0)
print(shutil.get_terminal_size().columns)
#= lower limits
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
print(resource.getrlimit(resource.RLIMIT_NOFILE))
#= its own limits and cores
import os
os.sched_setaffinity(0, os.sched_getaffinity(0))
print(os.nice(0), len(os.sched_getaffinity(os.getpid())) > 0)
#= errors
import traceback, logging, warnings, faulthandler, gc, inspect, ast
faulthandler.enable()
logging.warning('w')
print(gc.collect() >= 0)
#= files that it may read
import json
print(len(open(json.__file__).read()) > 100)
#= select
import selectors, socket
a, b = socket.socketpair()
s = selectors.DefaultSelector()
s.register(b, 1)
a.send(b'x')
print(len(s.select(1)), b.recv(9))
""")
REFUSED = samples(r"""
#= multiprocessing
import multiprocessing
multiprocessing.get_context('fork').Process(target=print).start()
#= subprocess
import subprocess
subprocess.run(['/bin/true'])
#= os.system
import os
assert os.system('true') == 0, 'PermissionError'
#= tempfile
import tempfile
tempfile.TemporaryFile()
#= urllib
import urllib.request
urllib.request.urlopen('http://192.0.2.1/', timeout=1)
""")


@pytest.fixture(params=WALLS, ids=lambda wall: wall.name, scope="module")
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    try:
        why = hole(Sandbox(request.param))
    except Unsupported as unsupported:
        pytest.skip(str(unsupported))
    if why is not None:
        pytest.skip(f"{request.param.name}: {why}")  # test_sandbox.py says whether that is a failure
    return Sandbox(request.param)


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_program_does_what_it_does_without_a_sandbox(sandbox: Sandbox, name: str) -> None:
    inside = sandbox.run(ORDINARY[name], limits=Limits(seconds=30.0))
    alone = subprocess.run([sys.executable, "-c", ORDINARY[name]], capture_output=True)
    assert (inside.status, inside.stdout) == (alone.returncode, alone.stdout), inside.stderr.decode()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_ends_with_an_error_of_python(sandbox: Sandbox, name: str) -> None:
    outcome = sandbox.run(REFUSED[name], limits=Limits(seconds=30.0))
    assert outcome.status == 1 and not outcome.timed_out
    assert any(word in outcome.stderr for word in (b"PermissionError", b"FileNotFoundError", b"URLError"))


def test_a_confined_process_holds_no_right_and_a_filter(sandbox: Sandbox) -> None:
    mark = f"time.sleep(3600.{os.getpid()})"
    code = f"import time; print(1, flush=True); {mark}"
    with sandbox.start(["program", code], Limits()) as process:
        assert process.stdout.read(1) == b"1"
        statuses = [status for status in statuses_of(mark) if status["Name"] != "bwrap"]
    assert len(statuses) == 1
    (status,) = statuses
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    if sandbox.wall.user() is not None:
        assert len({*status["Uid"].split(), *status["Gid"].split()}) == 1
        assert int(status["Uid"].split()[0]) >= 65_534 and status["Groups"] == ""


# What a container's root has by default (Docker), and one from which all was taken.
RIGHTS = {
    "container": (
        "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod"
        ",audit_write,setfcap"
    ),
    "none": "",
}


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
@pytest.mark.parametrize("rights", RIGHTS)
def test_a_wall_that_holds_for_root_holds_for_root_with_fewer_rights(sandbox: Sandbox, rights: str) -> None:
    kept = ["-all", *(f"+{name}" for name in RIGHTS[rights].split(",") if name)]
    code = """
import sys
from groschen.errors import Unsupported
from groschen.tasks.sandbox import Sandbox, hole
from groschen.tasks.walls import WALLS
try:
    print(hole(Sandbox(next(wall for wall in WALLS if wall.name == sys.argv[1]))))
except Unsupported as unsupported:
    print(unsupported)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = ["setpriv", "--bounding-set", ",".join(kept), sys.executable, "-c", code, sandbox.wall.name]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    if isinstance(sandbox.wall, Sandlock):
        assert ended.stdout == "None\n", ended.stderr
    else:  # it needs rights or namespaces, and says so; it never holds less
        assert ended.stdout == "None\n" or "bwrap: " in ended.stdout or "can't become" in ended.stdout, ended


def test_sandlock_changes_the_user_only_where_it_can_still_look_after_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace = 1 << 19
    monkeypatch.setattr(walls, "_all_may_read", lambda _: True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(walls, "_is_mapped", lambda _: True)
    monkeypatch.setattr(walls, "_has_rights", lambda _: True)
    assert Sandlock().user() is not None and Sandlock().counts_alone()
    monkeypatch.setattr(walls, "_has_rights", lambda rights: rights != trace)
    assert Sandlock().user() is None and not Sandlock().counts_alone()
    assert any("root" in words for words in Sandlock().leaves_open())


@pytest.mark.parametrize(
    ("release", "counts"), [("5.10.0-28-amd64", False), ("5.14.0", True), ("6.1-rc3", True)]
)
def test_threads_are_counted_by_namespace_since_linux_5_14(
    release: str, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(platform, "release", lambda: release)
    assert Bubblewrap().counts_alone() is counts
    assert any("threads" in words for words in Bubblewrap().leaves_open()) is not counts


def statuses_of(mark: str) -> list[dict[str, str]]:
    """/proc/PID/status of the processes that have this in their command line."""
    statuses = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if mark.encode() in (path / "cmdline").read_bytes():
                rows = (line.split(":", 1) for line in (path / "status").read_text().splitlines())
                statuses.append({name: value.strip() for name, value in rows})
    return statuses


class Bare(Bubblewrap):
    """No wall: the process confines itself and that is all."""

    def start(self, argv: Sequence[str], memory_bytes: int) -> Process:
        return Piped(argv)


def test_a_process_whose_grader_is_gone_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[Sequence[str]] = []
    monkeypatch.setattr(Bare, "start", lambda _, argv, __: commands.append(argv) or Piped(argv))
    Sandbox(Bare()).run("")
    read, written = os.pipe()
    os.close(read)
    try:
        ended = subprocess.run([*commands[0][:-1], "import os; os._exit(7)"], stdout=written)
    finally:
        os.close(written)
    assert ended.returncode == 1
    with_reader = subprocess.run([*commands[0][:-1], "import os; os._exit(7)"], stdout=subprocess.PIPE)
    assert with_reader.returncode == 7


@pytest.mark.parametrize("filter_", ["", "ffff000000000000"])
def test_a_process_that_gets_no_filter_runs_nothing(filter_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "program", lambda **_: bytes.fromhex(filter_))
    outcome = Sandbox(Bare()).run("print('ran')")
    assert outcome.status == 1 and outcome.stdout == b"" and b"the filter of system calls" in outcome.stderr


def test_numpy_works_under_the_filter() -> None:
    """Behind a wall it is not visible, so without one."""
    folder = str(Path(np.__file__).parents[1])
    code = f"""
import sys
sys.path.append({folder!r})
import numpy as np
rows = np.random.default_rng(0).normal(size=(300, 300))
product = rows @ np.linalg.inv(rows)
print(np.allclose(product, np.eye(300)), np.fft.fft(rows).shape, np.sort(rows, axis=None)[0] < 0)
"""
    outcome = Sandbox(Bare()).run(code, limits=Limits(seconds=60.0, memory_bytes=4 << 30))
    assert outcome.stdout == b"True (300, 300) True\n", outcome.stderr.decode()


def test_a_limit_on_threads_counts_those_of_one_process() -> None:
    wall = next((wall for wall in WALLS if _holds(wall) and wall.counts_alone()), None)
    if wall is None:
        pytest.skip("no wall here can count the threads of one process")
    code = """
import threading
threading.stack_size(65536)
gate = threading.Event()
count = 0
try:
    while count < 300:
        threading.Thread(target=gate.wait, daemon=True).start()
        count += 1
except RuntimeError:
    pass
print(count)
gate.set()
"""
    assert 64 <= int(Sandbox(wall).run(code, limits=Limits(seconds=30.0)).stdout) <= 128


def _holds(wall: Wall) -> bool:
    try:
        return hole(Sandbox(wall)) is None
    except Unsupported:
        return False
