"""What the process of a program and the process of its tests have in common: a conversation about values.

Each side keeps what the other knows by number. A question is answered before the next one is asked; meanwhile
the other side may ask back, when the program calls a function of the tests.

Inside the sandbox, by the standard library alone: this text is given to a process that sees nothing of
groschen (sandbox.py). `Any` stands for values of foreign code, which may raise anything: it goes back as
data.
"""

import builtins
import json
import threading
from collections.abc import Sequence
from typing import Any

from groschen.tasks.inside_values import RELAYED, Gone, Pipes, decode, encode


class Raised(Exception):
    """An exception of the other side whose class is not known here."""


class NotHanded(BaseException):
    """A test passes what can't travel: an error of the verdict, which no `except Exception` may hide."""


class Side:
    """What both sides have: things of their own that the other knows by number, and a conversation."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes
        self._kept: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._turn = threading.RLock()  # a program's threads may call functions of the tests

    def keep(self, value: Any) -> int:
        """The number by which the other side knows a value."""
        if id(value) not in self._numbers:  # what is kept keeps its id
            self._numbers[id(value)] = len(self._kept)
            self._kept.append(value)
        return self._numbers[id(value)]

    def ask(self, head: dict[str, Any], values: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
        """What the other side says to a question; questions that it has meanwhile are answered first."""
        with self._turn:
            self._send(head, values)
            while True:
                said, values = self._receive()
                if "do" not in said:
                    return said, list(values)
                self.answer(said, values)

    def answer(self, asked: dict[str, Any], values: list[Any]) -> None:
        """Do what was asked, and say what came of it."""
        try:
            said, results = self.done(asked, values)
        except Gone:
            raise
        except BaseException as error:  # noqa: BLE001
            said, results = self.told(error), []
        with self._turn:
            try:
                self._send(said, results)
            except Gone:
                raise
            except BaseException as error:  # noqa: BLE001 - of a value whose own methods raise when it is read
                self._send(self.told(error), [])

    def told(self, error: BaseException) -> dict[str, Any]:
        """An exception as data: its class by number, and Python's own class that it comes from by name."""
        plain = all(type(part) in (str, int, float, bool, type(None)) for part in error.args)
        return {
            "raised": python_class(type(error)),
            "kinds": [
                [self.keep(kind), kind.__name__] for kind in type(error).__mro__ if not is_builtin(kind)
            ],
            "arguments": list(error.args) if plain else [str(error)],
            "text": str(error),
            "number": self.keep(error),
            "yours": getattr(error, "_number_over_there", None),
        }

    def done(self, asked: dict[str, Any], values: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        """The answer to a question, and the values that it has."""
        raise NotImplementedError

    def written(self, value: Any) -> Sequence[Any]:
        """What stands for a value that is not plain."""
        raise NotImplementedError

    def read(self, head: Sequence[Any]) -> Any:
        """What `written` of the other side stands for."""
        raise NotImplementedError

    def _send(self, head: dict[str, Any], values: Sequence[Any]) -> None:
        # First in whole, so that a value that can't be written leaves no half of a message behind.
        pieces = [piece for value in values for piece in encode(value, self.written)]
        first = json.dumps({**head, "values": len(values)}).encode() + b"\n"
        self._pipes.send(RELAYED, (first, *pieces))

    def _receive(self) -> tuple[dict[str, Any], list[Any]]:
        lines = self._pipes.lines()
        try:
            head = json.loads(next(lines, b""))
            values = [decode(lines, self.read) for _ in range(head.pop("values"))]
        finally:
            for _ in lines:
                pass  # the next message starts where this one ends, also if it was nonsense
        return head, values


def is_builtin(kind: type) -> bool:
    """Whether a class is one of Python's own, by its name."""
    return getattr(builtins, kind.__name__, None) is kind


def python_class(kind: type) -> str:
    """The name of the first of Python's own classes that a class comes from."""
    return next((base.__name__ for base in kind.__mro__ if is_builtin(base)), "Exception")


def exception_of(said: dict[str, Any], kind: type[Exception] | None = None) -> Exception:
    """An exception of the other side, of this class or of Python's own."""
    known = kind or getattr(builtins, str(said["raised"]), None)
    if not isinstance(known, type) or not issubclass(known, Exception):
        known = Raised
    try:
        error = known.__new__(known, *said["arguments"])
        Exception.__init__(error, *said["arguments"])
    except TypeError:  # of a class that wants other arguments
        error = Raised(f"{said['raised']}: {said['text']}")
    error.__dict__.update(_number_over_there=said["number"], _text_over_there=str(said["text"]))
    return error
