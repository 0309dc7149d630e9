"""What came of a call into a task's own code: a sound value, or one sentence with file and line.

Whatever the code raises is data here, `exit()` and classes derived from BaseException included; only Ctrl-C
of the person at the keyboard goes on its way. Scalars of numpy and torch count as the numbers in them. Leaves
out code that never returns, ends its process or prints (task_process.py).
"""

import functools
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import CodeType

from groschen.errors import GroschenError
from groschen.records import Problem, Verdict

_SHOWN = 500  # characters of an exception's text


class ForeignFault(GroschenError):
    """A call into a task's code failed; the message says how and where."""


def verdict_of(verify: Callable[[Problem, str], object], problem: Problem, text: str) -> Verdict:
    """The verdict on a completion as a file would give it back; one with an error for whatever goes wrong.

    Raises KeyboardInterrupt and nothing else.
    """
    try:
        return well_formed(verify(problem, text))
    except KeyboardInterrupt:
        raise
    except BaseException as broken:  # noqa: BLE001 - whatever a task's author wrote may raise: kept as data
        return Verdict(reward=0.0, passed=False, error=told(broken, verify))


def told(broken: BaseException, function: Callable[..., object]) -> str:
    """What a function of a task raised: "KeyError: 'x' (task.py:12)".

    The line is the innermost in the folder of the function's file, since what a library raised was called
    from there; where there is none, that of the function itself.
    """
    if isinstance(broken, ForeignFault):
        return str(broken)
    try:
        text = whole(str(broken))
    except Exception:  # noqa: BLE001 - __str__ of somebody's exception is somebody's code too
        text = "its text can't be made"
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    what = shown if isinstance(broken, Unsound) else f"{type(broken).__name__}: {shown}"
    return what + _place(broken, code_of(function))


def where(function: Callable[..., object]) -> str:
    """The file and the first line of a function: "task.py:12"; "" if it has none."""
    code = code_of(function)
    return "" if code is None else f"{Path(code.co_filename).name}:{code.co_firstlineno}"


def code_of(function: Callable[..., object]) -> CodeType | None:
    """The code of a function, a method, a partial or an object that can be called; None for built-in ones."""
    while isinstance(function, functools.partial):
        function = function.func
    for candidate in (function, type(function).__call__):
        code = getattr(candidate, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None


class Unsound(Exception):
    """A function of a task returned something else than it must; the message says what."""


def well_formed(verdict: object) -> Verdict:
    """The verdict as it would be read again from a file. Raises Unsound for what is not as it should be."""
    if not isinstance(verdict, Verdict):
        raise Unsound(f"verify returned {verdict!r:.200}, expected a Verdict")
    passed, reward = scalar(verdict.passed), scalar(verdict.reward)
    if not isinstance(passed, bool):
        raise Unsound(f"verify returned passed={passed!r:.200}, expected True or False")
    if isinstance(reward, bool) or not isinstance(reward, int | float) or not abs(reward) < float("inf"):
        raise Unsound(f"verify returned reward={reward!r:.200}, expected a finite number")
    error: object = verdict.error
    if error is not None and not isinstance(error, str):
        raise Unsound(f"verify returned error={error!r:.200}, expected a text or None")
    parts: object = verdict.parts
    if not isinstance(parts, Mapping):
        raise Unsound(f"verify returned parts={parts!r:.200}, expected a mapping")
    return replace(
        verdict,
        reward=float(reward),
        passed=passed,
        parts={name: _part(name, value) for name, value in parts.items()},
        error=None if error is None else whole(error),
    )


def scalar(value: object) -> object:
    """The Python value in a scalar of numpy, torch or the like, which have a method `item`; others as is."""
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    item = getattr(value, "item", None)
    if not callable(item):
        return value
    try:
        return item()
    except (TypeError, ValueError, RuntimeError):  # an array or a tensor of several numbers
        return value


def whole(text: str) -> str:
    """The text without half characters, which JSON escapes in a completion can make and no file takes."""
    return text.encode("utf-8", "replace").decode()


def _part(name: object, value: object) -> float | bool | str | None:
    """A part in a type that a file keeps: a number as a float, None for one that is not finite."""
    value = scalar(value)
    if isinstance(name, str) and (value is None or isinstance(value, bool)):
        return value
    if isinstance(name, str) and isinstance(value, int | float):
        return float(value) if abs(value) <= sys.float_info.max else None
    if isinstance(name, str) and isinstance(value, str):
        return whole(value)
    raise Unsound(
        f"verify returned parts[{name!r}]={value!r:.200}, expected a number, a text, True, False or None"
    )


def _place(broken: BaseException, code: CodeType | None) -> str:
    """Where an exception was raised: " (task.py:12)", or "" if that is unknown."""
    frames = traceback.extract_tb(broken.__traceback__)
    if code is not None:
        home = Path(code.co_filename).parent
        own = [frame for frame in frames if Path(frame.filename).parent == home]
        if own and not isinstance(broken, Unsound):
            return f" ({Path(own[-1].filename).name}:{own[-1].lineno})"
        return f" ({Path(code.co_filename).name}:{code.co_firstlineno})"
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
