"""Worker processes for what may hang, crash or eat memory: started when needed, kept, killed when late.

Safe to ask from many threads. A worker serves one job at a time, so at most as many jobs run as there are
workers. Leaves out what the jobs are (mathematics_worker.py, pattern_worker.py).
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from functools import cache

from groschen import clock
from groschen.errors import GroschenError
from groschen.tasks.lines import Closed, Lines, TimeUp, TooLong

_START_SECONDS = 120.0  # SymPy's import takes 4 s on a free core
_MAX_LINE = 1 << 20  # bytes of an answer


class TookTooLong(Exception):
    """The job was not done in its time; its worker was killed."""


class Refused(Exception):
    """The job went beyond a limit of memory or depth that the worker keeps by itself."""


class Broke(GroschenError):
    """The worker ended or raised for no reason that the job's size explains."""


class Workers:
    """A pool of processes that run one module of this package."""

    def __init__(self, module: str, most: int) -> None:
        self._module = module
        self._free = threading.BoundedSemaphore(most)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, job: object, seconds: float) -> object:
        """What the worker says to a job. Raises TookTooLong, Refused, or Broke after a second try."""
        with self._free:
            try:
                return self._ask_once(job, seconds)
            except Closed:
                try:  # once more with a new one: something outside may have killed the worker
                    return self._ask_once(job, seconds)
                except Closed as ended:
                    raise Broke(f"the process of {self._module} ended twice at the same job") from ended

    def judge(self, job: object, control: object, seconds: float) -> object:
        """As `ask`, but what breaks at this job and not at the control is the job's fault: raises Refused.

        So an answer that breaks its own check is wrong. Broke is left for a worker that can't do the control.
        """
        try:
            return self.ask(job, seconds)
        except Broke as broken:
            try:
                self.ask(control, seconds)
            except (TookTooLong, Refused):
                raise broken from None
            raise Refused(f"the check of it breaks: {broken}") from broken

    def close(self) -> None:
        """End all idle workers; a later job starts new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()

    def _ask_once(self, job: object, seconds: float) -> object:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        worker = worker or _Worker(self._module)
        try:
            said = worker.ask(job, seconds)
        except BaseException:
            worker.kill()  # it may still be at this job
            raise
        with self._lock:
            self._idle.append(worker)
        if "value" in said:
            return said["value"]
        if "refused" in said:
            raise Refused(str(said["refused"]))
        raise Broke(str(said.get("broken")))


class _Worker:
    """One process and the pipes to it."""

    def __init__(self, module: str) -> None:
        # -P: else a file of the working folder could stand in for a library's module
        command = [sys.executable, "-P", "-m", module]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which saves; it ends its workers itself
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._lines = Lines(self._process.stdin, self._process.stdout, _MAX_LINE)
        try:
            self._lines.receive(clock.seconds() + _START_SECONDS)  # ready: imports do not count as the job's
        except (Closed, TimeUp) as failed:
            self.kill()
            raise Broke(f"{' '.join(command)} did not start") from failed

    def ask(self, job: object, seconds: float) -> dict[str, object]:
        deadline = clock.seconds() + seconds
        try:
            self._lines.send(job, deadline)
            said = json.loads(self._lines.receive(deadline))
        except TimeUp as late:
            raise TookTooLong(f"it takes longer than {seconds:g} s") from late
        except TooLong as much:
            raise Broke(str(much)) from much
        assert isinstance(said, dict)
        return said

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@cache
def workers_of(module: str) -> Workers:
    """The one pool of this process for a module: one worker for each usable core, at most four."""
    return Workers(module, min(4, clock.usable_cores()))
