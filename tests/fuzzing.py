"""Watch what a reader does with many damaged inputs, each within limits.

`run` tries numbered inputs in forked processes: a reader that dies, hangs or eats memory takes only its own
process along, and the next input goes on in a fresh one. The same seed and number give the same input, so a
fault can be repeated alone: `--first 1234 --count 1`. The mutators are those of `damage.py`.

Leaves out which files there are and what reading means: that is `prepare` and `judge` of the caller. Run it
from a program of its own (`python tests/fuzz_models.py`): a process that has started threads must not fork.
"""

import argparse
import json
import os
import random
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from groschen.errors import GroschenError

REFUSED, LOADED = "refused", "loaded"  # the two good ends
_LONGEST_SENTENCE = 1500  # characters of a refusal; paths and lists of known names make some long
# Files in memory where there is such a place: whoever writes them waits for the disk otherwise.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_PER_PROCESS = 100  # inputs, so that what leaks is seen no further


@dataclass(frozen=True, slots=True)
class Limits:
    """What one input may take."""

    cpu_s: float = 10.0
    wall_s: float = 60.0  # of a process that waits: for a pipe that nobody writes to, for example
    memory_bytes: int = 600_000_000  # resident, beyond what the process has before the input


@dataclass(frozen=True, slots=True)
class Fault:
    """An input that was neither loaded nor refused in one sentence."""

    number: int
    damage: str
    kind: str  # "traceback", "no sentence", "signal", "hang", "memory"
    detail: str


@dataclass(slots=True)
class Report:
    """Ends by their number, and everything that is wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)

    def text(self) -> str:
        """For people: the counts, then one paragraph for each fault."""
        lines = [", ".join(f"{count:,} {kind}" for kind, count in sorted(self.counts.items()))]
        lines += [f"#{f.number} {f.kind}: {f.damage}\n    {f.detail.strip()}" for f in self.faults]
        return "\n".join(lines)


Prepare = Callable[[random.Random, Path], str]  # makes the input in an empty folder, says what is damaged
Judge = Callable[[Path], str | None]  # reads it; raises GroschenError to refuse it


def run(
    prepare: Prepare, judge: Judge, numbers: Sequence[int], *, seed: int = 1, limits: Limits | None = None
) -> Report:
    """Try the inputs with these numbers. `judge` returns what to count beside "loaded", or None."""
    limits, report, left = limits or Limits(), Report(), list(numbers)
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=MEMORY) as top:
        while left:
            done = _one_process(prepare, judge, left[:_PER_PROCESS], seed, limits, report, Path(top))
            left = left[done:]
    return report


def _one_process(
    prepare: Prepare, judge: Judge, numbers: list[int], seed: int, limits: Limits, report: Report, top: Path
) -> int:
    """Inputs that a new process has come through, the one that ended it included."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            _child(prepare, judge, numbers, seed, writing, top)
        except BaseException:  # noqa: BLE001  what is wrong with the caller's own functions is told, not cleaned up
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writing)
    watch = _Watch(pid, limits)
    done, damage, buffer = 0, "before the first input", b""
    while True:
        ready, _, _ = select.select([reading], [], [], 0.05)
        if ready:
            data = os.read(reading, 1 << 16)
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for message in map(json.loads, lines):
                if "damage" in message:
                    damage = message["damage"]
                    watch.begin()
                    continue
                done += 1
                kind, detail = message["end"], message["detail"]
                if kind in (LOADED, REFUSED) and message["grown"] > limits.memory_bytes:
                    kind, detail = "memory", f"{message['grown'] / 1e6:,.0f} MB; {kind} {detail}"
                report.counts[kind] += 1
                if kind == LOADED and detail:
                    report.counts[detail] += 1
                elif kind not in (LOADED, REFUSED):
                    report.faults.append(Fault(numbers[done - 1], damage, kind, detail))
        elif watch.exceeded():
            os.kill(pid, signal.SIGKILL)
    os.close(reading)
    status = os.waitpid(pid, 0)[1]
    if os.waitstatus_to_exitcode(status) == 1:
        raise RuntimeError(f"`prepare` failed: {(top / 'stderr').read_text()}")
    if status != 0:
        kind = watch.reason or "signal"
        report.counts[kind] += 1
        detail = (top / "stderr").read_text(errors="replace")[-2000:]
        report.faults.append(Fault(numbers[done], damage, kind, f"wait status {status}\n{detail}"))
        done += 1
    return done


class _Watch:
    """What the child has taken since its input began."""

    def __init__(self, pid: int, limits: Limits) -> None:
        self.pid, self.limits, self.reason = pid, limits, ""
        self.begin()

    def begin(self) -> None:
        self.wall, self.cpu, self.memory = time.monotonic(), *self._used()

    def exceeded(self) -> bool:
        cpu, memory = self._used()
        if cpu - self.cpu > self.limits.cpu_s or time.monotonic() - self.wall > self.limits.wall_s:
            self.reason = "hang"
        elif memory - self.memory > 2 * self.limits.memory_bytes:
            self.reason = "memory"
        return bool(self.reason)

    def _used(self) -> tuple[float, int]:
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0, 0
        ticks = int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * resource.getpagesize()


def _child(
    prepare: Prepare, judge: Judge, numbers: list[int], seed: int, writing: int, top: Path
) -> None:  # ends the process
    errors = os.open(top / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 2)

    def tell(**message: object) -> None:
        os.write(writing, json.dumps(message).encode() + b"\n")

    for number in numbers:
        place = top / f"input-{number}"
        place.mkdir()
        damage = prepare(random.Random(f"{seed} {number}"), place)
        tell(damage=damage)
        _reset_peak()
        before = _status_bytes("VmRSS")
        end, detail = _judged(judge, place)
        tell(end=end, detail=detail, grown=_status_bytes("VmHWM") - before)
        shutil.rmtree(place, ignore_errors=True)
    os._exit(0)


def _judged(judge: Judge, place: Path) -> tuple[str, str]:
    try:
        return LOADED, judge(place) or ""
    except GroschenError as error:
        sentence = str(error)
        is_one = sentence and "\n" not in sentence and len(sentence) <= _LONGEST_SENTENCE
        return (REFUSED, sentence) if is_one else ("no sentence", sentence[:3000])
    except BaseException:  # noqa: BLE001  a panic of a Rust library is no Exception
        return "traceback", traceback.format_exc()[-3000:]


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key + ":")) * 1024


def main(prepare: Prepare, judge: Judge, description: str) -> int:
    """The command line of a program that fuzzes: exit status 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=2500, help="inputs to try (2500)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (0)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    numbers = range(arguments.first, arguments.first + arguments.count)
    report = run(prepare, judge, numbers, seed=arguments.seed)
    print(report.text())  # noqa: T201
    return 1 if report.faults else 0
