"""A task whose own code runs in a process beside this one: a task.py, or a generator of reasoning-gym.

Python cannot end code that runs in its own process. A thread cannot be killed; an alarm reaches the main
thread alone, can be caught by the code, and waits as long as C code does not come back; `os._exit` and a
crash take everything along. So the code gets a process that is killed when a call takes longer than its
limit, with all that it started, and is begun anew at the next call. It has no torch unless the task imports
it.

What follows: a verdict costs some 60 µs more than a call; what a module keeps between calls stays until its
process is killed, and calls come one after the other, in an order that does not depend on the clock; `load`
runs again after a kill, and must give the same problems. A verifier with a model on a GPU has a CUDA context
of its own. Leaves out what the process does (task_worker.py).
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from groschen import clock, errors
from groschen.errors import BadFile, BadRequest, GroschenError
from groschen.progress import MINUTE_SECONDS, say
from groschen.ranges import Range
from groschen.records import Problem, Verdict
from groschen.tasks.foreign import ForeignFault
from groschen.tasks.lines import Closed, Lines, TimeUp
from groschen.tasks.splits import Shares
from groschen.tasks.task import Draft

DEFAULT_SECONDS = 60.0
VerdictSeconds = Annotated[float, Range(above=0, most=1_000_000)]  # that one verdict may take

_END_SECONDS = 2.0  # for what the task's code does at the end of its process
_MAX_LINE = 1 << 40  # bytes: a task's problems are one line
_NO_LIMIT_SECONDS = 1e6  # what poll(2) takes; load() may download for hours
_MODULE = "groschen.tasks.task_worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """What the process says of a task that it has loaded."""

    name: str
    digest: str
    problems_digest: str
    instructions: tuple[str, ...]
    shares: Shares
    notes: tuple[str, ...]
    verify: str  # file and line


@dataclass(slots=True)
class _Running:
    """The process that runs now, if one does; apart from TaskProcess so that it can be ended without it."""

    process: subprocess.Popen[bytes] | None = None
    owner: int = field(default_factory=os.getpid)

    def end(self, *, at_once: bool = True) -> None:
        """End it and whatever it started."""
        process, self.process = self.process, None
        if process is None or os.getpid() != self.owner:  # a copy of this process made by fork owns nothing
            return
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        if not at_once:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


class TaskProcess:
    """One task's code in its process. Safe to use from many threads; one call runs at a time."""

    def __init__(self, task: Mapping[str, object], name: str, seconds: float) -> None:
        """task: {"file": path} or {"generator": name, "settings": {...}}; name: for messages; seconds: that
        one call may take. Raises BadRequest if they are out of range.
        """
        if not (math.isfinite(seconds) and seconds > 0):
            raise BadRequest(f"the limit of one verdict is {seconds:g} s; expected a finite number above 0")
        self._task, self._name, self._seconds = dict(task), name, seconds
        self._lock = threading.Lock()
        self._running = _Running()
        self._end = weakref.finalize(self, self._running.end, at_once=False)
        self._lines: Lines | None = None
        self._described: _Described | None = None
        self._known: dict[str, Problem] = {}

    def load(self) -> Draft:
        """The task. Raises BadFile or BadRequest with one sentence that names the code's file and line."""
        with self._lock:
            described = self._start(wants_problems=True)
            problems = self._receive(math.inf, "load()")
            loaded = msgspec.json.decode(problems, type=tuple[Problem, ...])
            self._described, self._known = described, {problem.key: problem for problem in loaded}
        return Draft(
            name=described.name,
            digest=described.digest,
            problems=loaded,
            verify=self.verify,
            gold=self.gold,
            wrong=self.wrong,
            instructions=described.instructions,
            shares=described.shares,
            notes=described.notes,
            is_foreign=True,
        )

    def verify(self, problem: Problem, text: str) -> Verdict:
        """The verdict of the task's code. Raises ForeignFault if it took too long or ended its process."""
        said = self._ask({"call": "verify", "text": text}, problem)
        return msgspec.convert(said["verdict"], Verdict)

    def gold(self, problem: Problem) -> str | None:
        """The task's gold answer. Raises ForeignFault for whatever its code does instead."""
        return msgspec.convert(self._ask({"call": "gold"}, problem)["text"], str | None)

    def wrong(self, problem: Problem) -> tuple[str, ...]:
        """The task's wrong answers. Raises ForeignFault for whatever its code does instead."""
        return msgspec.convert(self._ask({"call": "wrong"}, problem)["texts"], tuple[str, ...])

    def close(self) -> None:
        """End the process; a later call starts it anew."""
        with self._lock:
            self._lines = None
            self._running.end(at_once=False)

    def _ask(self, job: dict[str, object], problem: Problem) -> dict[str, object]:
        job |= self._about(problem)
        what = f"{job['call']} of {self._name} on problem {problem.key!r}"
        with self._lock:
            try:
                lines = self._ready()
                deadline = clock.seconds() + self._seconds
                lines.send(job, deadline)
                said = json.loads(self._receive(deadline, what))
            except TimeUp as late:
                self._kill()
                fault = f"{what} took longer than {self._seconds:g} s{self._place()}: its process was ended"
                say(f"{fault}; this counts as an error")
                raise ForeignFault(f"{fault}; if it may take so long, raise the limit of a verdict") from late
            except Closed as gone:
                raise ForeignFault(f"{what} {self._epitaph()}{self._place()}") from gone
            except GroschenError as refused:  # it could not be started anew
                raise ForeignFault(str(refused)) from refused
            except BaseException:
                self._kill()  # Ctrl-C: it may still be at this job
                raise
        if "fault" in said:
            raise ForeignFault(str(said["fault"]))
        return dict(said)

    def _about(self, problem: Problem) -> dict[str, object]:
        """Which problem is meant, with what the process does not know of it."""
        known = self._known.get(problem.key)
        if known is None or not (_same(problem.answer, known.answer) and _same(problem.meta, known.meta)):
            return {"problem": msgspec.to_builtins(problem)}
        if _same(problem.messages, known.messages):
            return {"key": problem.key}
        return {"key": problem.key, "messages": msgspec.to_builtins(problem.messages)}

    def _ready(self) -> Lines:
        """The line to the process, which is started anew if it was ended or has died meanwhile."""
        process = self._running.process
        if self._lines is None or process is None or process.poll() is not None:
            described = self._start(wants_problems=False)
            if self._described and described.problems_digest != self._described.problems_digest:
                self._kill()
                raise BadFile(
                    f"load() of {self._name} gave other problems when its process was started anew; let it "
                    "give the same ones each time, for instance by a fixed seed"
                )
        assert self._lines is not None
        return self._lines

    def _start(self, *, wants_problems: bool) -> _Described:
        """A new process that has loaded the task. Raises what loading raises."""
        self._kill()
        # -P: else a file of the working folder could stand in for a library's module
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,  # Ctrl-C is for this process, which ends the other one itself
        )
        self._running.process = process
        assert process.stdin is not None and process.stdout is not None
        self._lines = Lines(process.stdin, process.stdout, _MAX_LINE)
        first = {
            "task": self._task, "wants_problems": wants_problems, "parent": os.getpid(),
            "pythonpath": os.environ.get("PYTHONPATH"),
        }  # fmt: skip
        try:
            self._lines.send(first, clock.seconds() + _NO_LIMIT_SECONDS)
            said = json.loads(self._receive(math.inf, f"load() of {self._name}"))
        except Closed as gone:
            raise BadFile(f"load() of {self._name} {self._epitaph()}") from gone
        except BaseException:
            self._kill()
            raise
        if "refused" in said:
            self._kill()
            kind = getattr(errors, str(said["kind"]), GroschenError)
            raise kind(said["refused"])
        return msgspec.convert(said, _Described)

    def _receive(self, deadline: float, what: str) -> bytes:
        """The next line; somebody who waits is told once a minute what for. Raises TimeUp or Closed."""
        assert self._lines is not None
        started = clock.seconds()
        while True:
            try:
                return self._lines.receive(min(deadline, clock.seconds() + MINUTE_SECONDS))
            except TimeUp:
                waited = clock.seconds() - started
                if clock.seconds() >= deadline:
                    raise
                say(f"{what} has not ended after {waited / 60:.0f} min")

    def _place(self) -> str:
        return f" ({self._described.verify})" if self._described and self._described.verify else ""

    def _epitaph(self) -> str:
        """How the process ended that has closed its line."""
        process = self._running.process
        assert process is not None
        try:
            status = process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        self._kill()
        if status is None:
            return "closed the descriptors of its process"
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        return f"ended its process {how}"

    def _kill(self) -> None:
        self._lines = None
        self._running.end()


def _same(one: object, other: object) -> bool:
    return one is other or one == other
