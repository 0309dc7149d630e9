"""Code that must pass tests. The program runs in one sandbox; what judges it never shares a process with it.

A problem's reference is one of two. {"cases": [[standard input, standard output], ...]}: outputs are compared
here, outside, so the program never meets them. {"tests": "assert add(1, 2) == 3"}, a text or a list of texts:
they run in a second sandbox, where the program's functions are distant names and what they return is plain
data. A program that prints success, ends its process, reads frames or returns objects that equal everything
gains nothing.

Limits of the second way: the tests may pass plain data only (no functions), objects of the program equal only
themselves, lists, dicts and sets that were passed are changed in place at the outermost level, and the names
of Python's builtins mean the builtins. Tests import what they use themselves.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType

from groschen import clock
from groschen.errors import BadRequest, GroschenError
from groschen.records import Problem, Verdict
from groschen.tasks.judging import texts_of
from groschen.tasks.lines import Closed, Lines, TimeUp, TooLong
from groschen.tasks.sandbox import MAX_CODE, Limits, Sandbox, find_sandbox
from groschen.tasks.slots import after_thinking, last_fence
from groschen.tasks.walls import Process

_PYTHON = frozenset(("python", "python3", "py"))
_ANY = _PYTHON | {""}
_MAX_LINE = 1 << 20  # bytes: of an output, and of what passes between tests and program at once
_MIB = 1 << 20
_START_SECONDS = 60.0  # of Python in the sandbox: a tenth of a second on a free core
_ENDS = (Closed, TimeUp, TooLong, ValueError, RecursionError)  # of a conversation with a program


class NotStarted(GroschenError):
    """The sandbox failed, not the program: an error of the verdict, never a zero."""


@dataclass(frozen=True, slots=True)
class _Tried:
    """What came of a program: why each test failed, or None; tests that were not reached are missing."""

    whys: tuple[str | None, ...]
    end: str | None  # why no more tests were reached
    error: str | None = None  # the tests themselves broke


@dataclass(frozen=True, kw_only=True)
class Code:
    """The code in the last ```python block passes all tests of the problem."""

    seconds: float = 10.0  # for all tests of one completion together
    memory_mib: int = 512
    partial: bool = False  # the reward is the share of tests passed; what counts as passed is still all
    format_reward: float = 0.0

    def __post_init__(self) -> None:
        """Raises BadRequest if a limit is out of its range."""
        self._limits()
        if not math.isfinite(self.format_reward):
            raise BadRequest(f"format_reward is {self.format_reward}; expected a finite number")

    def __call__(self, problem: Problem, text: str) -> Verdict:
        """The verdict: parts are format, lenient (code in another block, or the whole text), answer, share of
        tests passed, and why.
        """
        tests = _reference(problem)
        rest = after_thinking(text)
        code = None if rest is None else last_fence(rest, _PYTHON)
        elsewhere = _elsewhere(rest or text) if code is None else code
        try:
            tried = self._try(problem, elsewhere) if elsewhere is not None else _Tried((), "no code")
        except NotStarted as failed:
            return Verdict(reward=0.0, passed=False, error=str(failed))
        if tried.error is not None:
            return Verdict(reward=0.0, passed=False, error=tried.error)
        good = sum(why is None for why in tried.whys)
        passed = good == len(tests)
        strict = passed and code is not None
        earned = good / len(tests) if self.partial and code is not None else float(strict)
        why = next((why for why in tried.whys if why is not None), tried.end)
        return Verdict(
            reward=earned + self.format_reward * (code is not None),
            passed=strict,
            parts={
                "format": code is not None,
                "lenient": passed,
                "answer": code,
                "share": good / len(tests),
                "why": "no ```python block" if code is None else why,
            },
        )

    def check(self, problem: Problem) -> None:
        """Raises BadRequest if the tests are none, Unsupported if no sandbox holds on this machine."""
        _reference(problem)
        find_sandbox()

    def gold(self, problem: Problem) -> str | None:
        """The code under "solution" in the reference or "gold" in `meta`, in a block."""
        reference = problem.answer if isinstance(problem.answer, Mapping) else {}
        right = problem.meta.get("gold", reference.get("solution"))
        return _block(right) if isinstance(right, str) else None

    def wrong(self, problem: Problem) -> tuple[str, ...]:
        """No code, code that does nothing, and code that ends well before any test."""
        tricks = ("pass", "import os\nos._exit(0)", "raise SystemExit(0)", "print('passed')", "def broken(:")
        return ("", *map(_block, (*tricks, *texts_of(problem, "wrong"))))

    def _limits(self) -> Limits:
        return Limits(seconds=self.seconds, memory_bytes=self.memory_mib * _MIB, output_bytes=_MAX_LINE)

    def _try(self, problem: Problem, code: str) -> _Tried:
        if len(code.encode("utf-8", "replace")) > MAX_CODE:
            return _Tried((), f"more than {MAX_CODE} bytes of code")
        reference, sandbox, limits = _reference(problem), find_sandbox(), self._limits()
        if isinstance(reference[0], str):
            return _try_tests(sandbox, limits, code, [str(test) for test in reference])
        return _try_cases(sandbox, limits, code, [(case[0], case[1]) for case in reference])


def _try_cases(sandbox: Sandbox, limits: Limits, code: str, cases: Sequence[tuple[str, str]]) -> _Tried:
    whys: list[str | None] = []
    with sandbox.start(["cases"], limits) as process:
        lines = _ready(process)
        deadline = clock.seconds() + limits.seconds
        try:
            lines.send({"source": code, "inputs": [given for given, _ in cases]}, deadline)
            for _, expected in cases:
                said = _read(lines.receive(deadline), {"output": str, "why": str | None})
                same = _plain(str(said["output"])) == _plain(expected)
                whys.append(str(said["why"]) if said["why"] else None if same else "another output")
        except _ENDS as error:
            return _Tried(tuple(whys), _fault(error, "the program", limits))
    return _Tried(tuple(whys), None)


def _try_tests(sandbox: Sandbox, limits: Limits, code: str, tests: Sequence[str]) -> _Tried:
    whys: list[str | None] = []
    with sandbox.start(["functions"], limits) as process, sandbox.start(["tests"], limits) as judge:
        program, author = _ready(process), _ready(judge)
        deadline = clock.seconds() + limits.seconds
        try:
            program.send({"source": code}, deadline)
            known = _read(program.receive(deadline), {"names": dict}, {"raised": str, "text": str})
            if "raised" in known:
                return _Tried((), str(known["text"]))
            job = json.dumps({"names": known["names"], "tests": tests}).encode()
        except _ENDS as error:
            return _Tried((), _fault(error, "the program", limits))
        try:
            author.send_line(job, deadline)
            while True:
                said = json.loads(author.receive(deadline))
                if "done" in said:
                    return _Tried(tuple(whys), None)
                if "test" in said:
                    whys.append(said["why"])
                    continue
                try:
                    answer = _answer(program, said["ask"], deadline)
                except (Closed, TooLong) as error:
                    return _Tried(tuple(whys), _fault(error, "the program", limits))
                author.send_line(answer, deadline)
        except (TimeUp, TooLong, RecursionError) as error:  # what tests hand on came from the program
            return _Tried(tuple(whys), _fault(error, "the program", limits))
        except (Closed, ValueError) as error:
            return _Tried(tuple(whys), None, error=_fault(error, "the process of the tests", limits))


def _answer(program: Lines, asked: object, deadline: float) -> bytes:
    """What the program answers to a test, as a line: nonsense breaks that test, where it is read."""
    program.send(asked, deadline)
    return program.receive(deadline)


def _ready(process: Process) -> Lines:
    """The pipes to a process that has started and met no foreign code yet. Raises NotStarted."""
    lines = Lines(process.stdin, process.stdout, _MAX_LINE)
    try:
        lines.receive(clock.seconds() + _START_SECONDS)
    except (Closed, TimeUp, TooLong) as error:
        raise NotStarted("a process in the sandbox did not start") from error
    return lines


def _read(line: bytes, *shapes: Mapping[str, type | UnionType]) -> Mapping[str, object]:
    """A line of JSON with the keys and kinds of one of these shapes. Raises ValueError if it is none."""
    said: object = json.loads(line)
    if not isinstance(said, dict):
        raise ValueError("not an object")
    for shape in shapes:
        if said.keys() == shape.keys() and all(isinstance(said[key], kind) for key, kind in shape.items()):
            return said
    raise ValueError("not what was asked for")


def _fault(error: Exception, who: str, limits: Limits) -> str:
    """What a conversation's end says about one side of it."""
    if isinstance(error, TimeUp):
        return f"longer than {limits.seconds:g} s"
    if isinstance(error, Closed):
        return f"{who} ended before the last test"
    return f"{who} said more than it may" if isinstance(error, TooLong) else f"{who} said nonsense: {error}"


def _reference(problem: Problem) -> list[str] | list[tuple[str, str]]:
    """The tests, or the cases, of a problem. Raises BadRequest if there are none."""
    answer = problem.answer
    found = answer if isinstance(answer, Mapping) else {}
    where = f"problem {problem.key!r}"
    if ("tests" in found) == ("cases" in found):
        raise BadRequest(
            f'{where} has the reference {answer!r:.200}; expected {{"tests": ...}} or {{"cases": ...}}'
        )
    if "cases" in found:
        return _cases(found["cases"], where)
    tests = [found["tests"]] if isinstance(found["tests"], str) else found["tests"]
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise BadRequest(f"{where} has as tests {tests!r:.200}; expected a text, or a list of texts")
    for test in tests:
        try:
            compile(test, "<tests>", "exec")
        except (SyntaxError, ValueError, RecursionError) as error:
            raise BadRequest(f"{where} has a test that is no Python: {error}") from error
    return tests


def _cases(cases: object, where: str) -> list[tuple[str, str]]:
    if not isinstance(cases, list) or not cases:
        raise BadRequest(f"{where} has as cases {cases!r:.200}; expected a list of [input, output]")
    for case in cases:
        if not isinstance(case, list | tuple) or [type(part) for part in case] != [str, str]:
            raise BadRequest(f"{where} has the case {case!r:.200}; expected two texts, [input, output]")
    if sum(len(given.encode()) for given, _ in cases) > _MAX_LINE // 2:
        raise BadRequest(f"{where} has cases with more than {_MAX_LINE // 2} bytes of input")
    return [(given, expected) for given, expected in cases]


def _elsewhere(text: str) -> str | None:
    """Code that stands elsewhere than asked for: in another block, or the whole text if it is Python."""
    found = last_fence(text, _ANY)
    if found is not None or not text.strip():
        return found
    try:
        compile(text, "<text>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return text


def _plain(output: str) -> str:
    """An output without white space at the ends of lines and without empty lines at its end."""
    return "\n".join(line.rstrip() for line in output.rstrip().split("\n"))


def _block(code: str) -> str:
    return f"```python\n{code}\n```"
