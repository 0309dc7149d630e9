"""A program against its tests or its cases: who talks with whom, for how long, and whose fault an end is.

What the program causes is its failure: its end, its silence, nonsense, a value that takes for ever. What the
sandbox or the tests cause by themselves is an error of the verdict. Where the process of the tests ends, the
tests are run once more without the program: only if they end it again were they to blame.
Leaves out where code and tests come from (unit_tests.py).
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from groschen import clock
from groschen.errors import GroschenError
from groschen.tasks.frames import Ended, Frames
from groschen.tasks.lines import TimeUp, TooLong
from groschen.tasks.sandbox import Limits, Sandbox

_MIB = 1 << 20
_MAX_WORDS = 1 << 16  # bytes of what a process says about a test
_START_SECONDS = 60.0  # of Python in the sandbox: a tenth of a second on a free core
_TESTS_EXTRA = 256 * _MIB  # of memory: the tests hold what the program held, while they read it


class NotStarted(GroschenError):
    """The sandbox failed, not the program: an error of the verdict, never a zero."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a program: why each test failed, or None; tests that were not reached are missing."""

    whys: tuple[str | None, ...]
    end: str | None  # why no more tests were reached
    error: str | None = None  # the tests themselves broke


def try_cases(sandbox: Sandbox, limits: Limits, code: str, cases: Sequence[tuple[str, str]]) -> Tried:
    """Run the program for each standard input, and compare its standard output. Raises NotStarted.

    The limit on output grows with the largest output that is expected.
    """
    largest = max(len(text.encode()) for case in cases for text in case)
    limits = replace(limits, output_bytes=max(limits.output_bytes, 2 * largest + _MAX_WORDS))
    whys: list[str | None] = []
    with sandbox.start(["cases"], limits) as process:
        program = _ready(Frames(process.stdin, process.stdout))
        deadline = clock.seconds() + limits.seconds
        try:
            program.send(code.encode("utf-8", "surrogatepass"), deadline)
            for given, expected in cases:
                program.send(given.encode(), deadline)
                if program.letter(deadline) != b"O":
                    raise ValueError("no output")
                why, output = _case(program.content(limits.output_bytes + _MAX_WORDS, deadline))
                same = why is None and _plain(output) == _plain(expected)
                whys.append(why if why is not None else None if same else "another output")
        except (Ended, TimeUp, TooLong, ValueError) as error:
            return Tried(tuple(whys), _fault(error, limits))
    return Tried(tuple(whys), None)


def try_tests(sandbox: Sandbox, limits: Limits, code: str, tests: Sequence[str]) -> Tried:
    """Run the tests in a sandbox of their own, with the program in another one. Raises NotStarted."""
    tried = _converse(sandbox, limits, code, tests)
    if not isinstance(tried, _TestsEnded):
        return tried
    if isinstance(_converse(sandbox, limits, "", tests), _TestsEnded):
        return Tried(
            (), None, error="the process of the tests ended before the last test, without the program too"
        )
    return Tried(tried.whys, "with this program the process of the tests ends before the last test")


@dataclass(frozen=True, slots=True)
class _TestsEnded:
    whys: tuple[str | None, ...]


def _converse(sandbox: Sandbox, limits: Limits, code: str, tests: Sequence[str]) -> Tried | _TestsEnded:
    whys: list[str | None] = []
    of_tests = replace(limits, memory_bytes=2 * limits.memory_bytes + _TESTS_EXTRA)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(sandbox.start([role], limit))
            for role, limit in (("functions", limits), ("tests", of_tests))
        ]
        program, author = (_ready(Frames(process.stdin, process.stdout)) for process in processes)
        deadline = clock.seconds() + limits.seconds
        try:
            program.send(code.encode("utf-8", "surrogatepass"), deadline)
            if program.letter(deadline) != b"P":
                raise ValueError("no word of its start")
            why = json.loads(program.content(_MAX_WORDS, deadline))
            if why is not None:
                return Tried((), str(why))
            author.send(json.dumps(list(tests)).encode(), deadline)
            while (letter := author.letter(deadline)) != b"D":
                if letter == b"T":
                    said = json.loads(author.content(_MAX_WORDS, deadline))
                    if said["error"] is not None:
                        return Tried(tuple(whys), None, error=f"{said['error']} ({said['why']})")
                    whys.append(said["why"])
                else:
                    author.relay(program, deadline)
                    program.pass_on(author, deadline)
        except Ended as error:
            if error.frames is author:
                return _TestsEnded(tuple(whys))
            return Tried(tuple(whys), _fault(error, limits))
        except (TimeUp, TooLong, ValueError, RecursionError) as error:
            return Tried(tuple(whys), _fault(error, limits))
    return Tried(tuple(whys), None)


def _case(content: bytes) -> tuple[str | None, str]:
    """Why a run did not end well, and its output. Raises ValueError if it is neither."""
    head, _, output = content.partition(b"\n")
    why: object = json.loads(head)
    if why is not None and not isinstance(why, str):
        raise ValueError("not what was asked for")
    return why, output.decode("utf-8", "replace")


def _ready(frames: Frames) -> Frames:
    """The pipes to a process that has started and met no foreign code yet. Raises NotStarted."""
    try:
        deadline = clock.seconds() + _START_SECONDS
        frames.letter(deadline)
        frames.content(0, deadline)
    except (Ended, TimeUp, TooLong) as error:
        raise NotStarted("a process in the sandbox did not start") from error
    return frames


def _fault(error: Exception, limits: Limits) -> str:
    """What the end of a conversation says about the program."""
    if isinstance(error, TimeUp):
        return f"longer than {limits.seconds:g} s"
    if isinstance(error, Ended):
        return "the program ended before the last test"
    return (
        "the program wrote more than it may"
        if isinstance(error, TooLong)
        else f"the program said nonsense: {error}"
    )


def _plain(output: str) -> str:
    """An output without white space at the ends of lines and without empty lines at its end."""
    return "\n".join(line.rstrip() for line in output.rstrip().split("\n"))
