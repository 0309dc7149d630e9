"""The process in which a task's own code runs: it loads the task, then answers one call after the other.

The code runs in the main thread, so a verifier may set alarms and start processes; `multiprocessing` finds
the task's functions in its children too, because these import this module again (`spawn` and `forkserver` do
so with every main module) and with it the finder of user_file.py. The conversation with the parent has
descriptors of its own: what the code prints goes to standard error, and its standard input is empty. Leaves
out the clock, which the parent holds (task_process.py).
"""

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from groschen.errors import GroschenError
from groschen.records import Problem
from groschen.tasks.foreign import Unsound, told, verdict_of, where, whole
from groschen.tasks.gate import sound
from groschen.tasks.reasoning_gym import load_reasoning_gym
from groschen.tasks.task import Draft
from groschen.tasks.user_file import load_user_file, make_importable
from groschen.tasks.worker_loop import end_with

Job = Mapping[str, Any]
_FILE = "GROSCHEN_TASK_FILE"  # in the environment: what children of the task's code must be able to import


def main() -> None:
    """Load the task that the first line names, say what it holds, and answer until the input ends."""
    jobs, answers = os.fdopen(os.dup(0), "rb"), Answers(os.fdopen(os.dup(1), "wb", buffering=0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    first = json.loads(jobs.readline())
    _restore_path(first["pythonpath"])
    threading.Thread(target=end_with, args=(first["parent"],), daemon=True).start()
    try:
        draft = _load(first["task"])
        problems = msgspec.json.encode([_sendable(problem) for problem in draft.problems])
    except GroschenError as refused:
        answers.send({"refused": str(refused), "kind": type(refused).__name__})
        return
    answers.send(_described(draft, hashlib.sha256(problems).hexdigest()))
    if first["wants_problems"]:
        answers.write(problems)
    known = {problem.key: problem for problem in draft.problems}
    for line in jobs:
        answers.send(_answer(draft, known, json.loads(line)))


class Answers:
    """Lines to the parent, written by this process alone."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._process = file, os.getpid()

    def send(self, value: object) -> None:
        """One value as a line of JSON."""
        self.write(json.dumps(value).encode())

    def write(self, line: bytes) -> None:
        """A line as it is. A copy of this process that the task's code made by `os.fork` ends here: it came
        back into this loop by an exception or by falling off its end.
        """
        if os.getpid() != self._process:
            os._exit(1)
        rest = memoryview(line + b"\n")
        while rest:
            rest = rest[self._file.write(rest) :]


def _restore_path(path: str | None) -> None:
    """PYTHONPATH as the parent has it, for programs that the task's code starts."""
    if path is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = path


def _load(task: Job) -> Draft:
    if "file" in task:
        os.environ[_FILE] = task["file"]
        draft = load_user_file(Path(task["file"]))
    else:
        draft = load_reasoning_gym(task["generator"], task["settings"])
    return replace(draft, problems=tuple(sound(problem, draft.name) for problem in draft.problems))


def _described(draft: Draft, problems_digest: str) -> dict[str, object]:
    return {
        "name": draft.name,
        "digest": draft.digest,
        "problems_digest": problems_digest,
        "instructions": draft.instructions,
        "shares": asdict(draft.shares),
        "notes": draft.notes,
        "verify": where(draft.verify),
    }


def _sendable(problem: Problem) -> Problem:
    return replace(problem, answer=_listed(problem.answer), meta=_listed(problem.meta))


def _listed(value: Any) -> Any:
    """The value with sets as sorted lists: their own order is another one in each process."""
    if isinstance(value, set | frozenset):
        return sorted((_listed(item) for item in value), key=repr)
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _answer(draft: Draft, known: Mapping[str, Problem], job: Job) -> dict[str, object]:
    problem = msgspec.convert(job["problem"], Problem) if "problem" in job else known[job["key"]]
    if "messages" in job:
        problem = replace(problem, messages=tuple(job["messages"]))
    function: Callable[..., object] = getattr(draft, job["call"])
    try:
        if job["call"] == "verify":
            return {"verdict": asdict(verdict_of(draft.verify, problem, job["text"]))}
        if job["call"] == "gold":
            return {"text": _gold(draft.gold(problem))}
        return {"texts": _wrong(draft.wrong(problem))}
    except BaseException as broken:  # noqa: BLE001 - whatever a task's author wrote may raise: kept as data
        return {"fault": whole(told(broken, function))}


def _gold(text: object) -> str | None:
    if text is not None and not isinstance(text, str):
        raise Unsound(f"gold returned {text!r:.200}, expected a text or None")
    return text


def _wrong(texts: object) -> list[str]:
    listed = list(texts) if isinstance(texts, Iterable) and not isinstance(texts, str) else None
    if listed is None or not all(isinstance(text, str) for text in listed):
        raise Unsound(f"wrong returned {texts!r:.200}, expected a tuple of texts")
    return listed


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__" and _FILE in os.environ:
    make_importable(Path(os.environ[_FILE]))
