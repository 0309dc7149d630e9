"""Code that must pass tests. The program runs in one sandbox; what judges it never shares a process with it.

A problem's reference is one of two. {"cases": [[standard input, standard output], ...]}: outputs are compared
here, outside, so the program never meets them. {"tests": "assert add(1, 2) == 3"}, a text or a list of texts:
they run in a second sandbox, where the program's functions are distant names and what they return is plain
data. A program that prints success, ends its process, reads frames or returns objects that equal everything
gains nothing.

Limits of the second way: tests may pass plain data and functions, objects of the program equal only
themselves and can be neither compared nor calculated with (that would tell the program what is expected),
and the names of Python's builtins mean the builtins. Tests import what they use themselves. A test that
passes anything else is an error of the verdict, not a failure of the program.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from groschen.errors import BadRequest
from groschen.records import Problem, Verdict
from groschen.tasks.code_blocks import code_elsewhere, program_of
from groschen.tasks.code_runs import NotStarted, Tried, try_cases, try_tests
from groschen.tasks.judging import check_seconds, texts_of
from groschen.tasks.sandbox import Limits, find_sandbox

_MIB = 1 << 20
_MAX_CODE = _MIB  # bytes of a program
_MAX_INPUT = 64 * _MIB  # bytes of the inputs and outputs of one problem
_OUTPUT_BYTES = _MIB  # of a program whose expected outputs are short
_MAX_MEMORY_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Code:
    """The code in the last ```python block passes all tests of the problem."""

    seconds: float = 10.0  # for all tests of one completion together
    memory_mib: int = 512
    partial: bool = False  # the reward is the share of tests passed; what counts as passed is still all
    format_reward: float = 0.0

    def __post_init__(self) -> None:
        """Raises BadRequest if a limit is out of its range."""
        check_seconds(self.seconds, least=0.1)
        if self.memory_mib > _MAX_MEMORY_MIB:
            raise BadRequest(f"memory_mib is {self.memory_mib}; expected 64 to {_MAX_MEMORY_MIB}")
        self._limits()
        if not math.isfinite(self.format_reward):
            raise BadRequest(f"format_reward is {self.format_reward}; expected a finite number")

    def __call__(self, problem: Problem, text: str) -> Verdict:
        """The verdict: parts are format, lenient (code in another block, or the whole text), answer, share of
        tests passed, and why.
        """
        tests = _reference(problem)
        code = program_of(text, [test for test in tests if isinstance(test, str)])
        elsewhere = code_elsewhere(text) if code is None else code
        try:
            tried = self._try(problem, elsewhere) if elsewhere is not None else Tried((), "no code")
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
        return Limits(seconds=self.seconds, memory_bytes=self.memory_mib * _MIB, output_bytes=_OUTPUT_BYTES)

    def _try(self, problem: Problem, code: str) -> Tried:
        if len(code.encode("utf-8", "replace")) > _MAX_CODE:
            return Tried((), f"more than {_MAX_CODE} bytes of code")
        reference, sandbox, limits = _reference(problem), find_sandbox(), self._limits()
        if isinstance(reference[0], str):
            return try_tests(sandbox, limits, code, [str(test) for test in reference])
        return try_cases(sandbox, limits, code, [(case[0], case[1]) for case in reference])


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
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            what = str(error) or "too many signs or brackets inside each other"
            raise BadRequest(f"{where} has a test that is no Python: {what}") from error
    return tests


def _cases(cases: object, where: str) -> list[tuple[str, str]]:
    if not isinstance(cases, list) or not cases:
        raise BadRequest(f"{where} has as cases {cases!r:.200}; expected a list of [input, output]")
    for case in cases:
        if not isinstance(case, list | tuple) or [type(part) for part in case] != [str, str]:
            raise BadRequest(f"{where} has the case {case!r:.200}; expected two texts, [input, output]")
    try:
        size = sum(len(text.encode()) for case in cases for text in case)
    except UnicodeEncodeError as error:
        raise BadRequest(
            f"{where} has a case that is no text of Unicode: {error}; correct or remove it"
        ) from error
    if size > _MAX_INPUT:
        raise BadRequest(f"{where} has cases with {size} bytes; expected {_MAX_INPUT} or less")
    return [(given, expected) for given, expected in cases]


def _block(code: str) -> str:
    return f"```python\n{code}\n```"
