"""One measured program as a child process: started once, then asked for one repeat at a time.

Also sees how busy the machine was with other things meanwhile, because a figure taken on a busy machine is no
figure. Linux only (/proc).
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Program:
    """What to start: a name for the tables, the command, variables added to the environment."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


class Failed(Exception):
    """A program ended or said nothing in time; the message is the end of what it wrote."""


class Running:
    """A started program, in a session of its own, so that all its processes can be counted and ended."""

    def __init__(self, program: Program, log: Path, limit_seconds: float) -> None:
        self.program, self._log, self._limit = program, log, limit_seconds
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [*program.command, "--wait"],
                cwd=HERE, env={**os.environ, **program.environment}, text=True, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        try:
            self._answer()
        except BaseException:  # Ctrl-C too: nobody else knows of it yet
            self.end()
            raise

    def repeat(self) -> dict[str, object]:
        """One repeat, with `elsewhere_share`: the part of the cores' time that other programs took."""
        busy, own, start = machine_seconds(), session_seconds(self._process.pid), time.perf_counter()
        stream = _open(self._process.stdin)
        try:
            stream.write("go\n")
            stream.flush()
        except BrokenPipeError:
            raise Failed(self._last_words()) from None
        answer = self._answer()
        wall = time.perf_counter() - start
        elsewhere = (machine_seconds() - busy) - (session_seconds(self._process.pid) - own)
        cores = len(os.sched_getaffinity(0))
        return {**answer, "elsewhere_share": round(max(0.0, elsewhere) / (wall * cores), 3)}

    def _answer(self) -> dict[str, object]:
        """The next line of the program that is a JSON object; other lines are its chatter."""
        timer = threading.Timer(self._limit, self._kill)
        timer.start()
        try:
            for line in _open(self._process.stdout):
                if line.startswith("{"):
                    answer = json.loads(line)
                    assert isinstance(answer, dict)
                    return answer
        finally:
            timer.cancel()
        raise Failed(self._last_words())

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)  # its output has ended, it may not have
        status = self._process.returncode
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        words = lines[-1][:300] if lines else "it wrote nothing"
        return f"exit status {status}: {words} (limit {self._limit:.0f} s)"

    def _kill(self) -> None:
        kill_session(self._process.pid)

    def end(self) -> None:
        """Closes its input, gives it ten seconds, then ends its whole session."""
        with contextlib.suppress(BrokenPipeError):
            _open(self._process.stdin).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self._kill()
        self._process.wait()


def _open(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def machine_seconds() -> float:
    """CPU seconds that all cores spent busy since boot: neither idle nor waiting for a disk."""
    fields = [int(number) for number in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]]
    user, nice, system, _idle, _iowait, irq, softirq = fields
    return (user + nice + system + irq + softirq) / _TICKS


def session_seconds(session: int) -> float:
    """CPU seconds of the live processes of a session and of their children that have ended."""
    return sum(sum(map(int, fields[11:15])) for _, fields in session_stats(session)) / _TICKS


def session_stats(session: int) -> Iterator[tuple[int, list[str]]]:
    """Each process of a session, and what /proc says of it from its state on."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended since
        if int(fields[3]) == session:
            yield int(entry.name), fields


def kill_session(session: int) -> None:
    """SIGKILL to each of its processes: some programs put their workers into groups of their own."""
    for pid, _ in session_stats(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end_as_interrupted() -> None:
    """SIGTERM then ends this program as Ctrl-C does, and what it has started is ended with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def wait_until_quiet(limit_seconds: float, share: float = 0.1) -> bool:
    """Waits until the cores are less than `share` busy over two seconds. False when the limit came first."""
    cores = len(os.sched_getaffinity(0))
    deadline = time.monotonic() + limit_seconds
    while True:
        before = machine_seconds()
        time.sleep(2)
        if (machine_seconds() - before) / (2 * cores) < share:
            return True
        if time.monotonic() > deadline:
            print("the machine is busy with other things; measuring all the same", file=sys.stderr)
            return False
