"""The process of a program that tests ask: it holds the program's names and does what is asked with them.

Inside the sandbox, by the standard library alone: this text is given to a process that sees nothing of
groschen (sandbox.py). `Any` stands for values of foreign code, which may raise anything: it goes back as
data.
"""

import importlib
import json
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from groschen.tasks.inside_run import last_line, run
from groschen.tasks.inside_sides import Side, exception_of, is_builtin, python_class
from groschen.tasks.inside_values import Pipes, encode

_CHANGING = (list, dict, set, bytearray)


class Program(Side):
    """The side that holds the program's names."""

    def __init__(self, pipes: Pipes, names: dict[str, Any]) -> None:
        super().__init__(pipes)
        self._names = names
        self._is_asked = False

    def serve(self) -> None:
        """Answer until the tests are done."""
        while True:
            self.answer(*self._receive())

    def done(self, asked: dict[str, Any], values: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        """As of every side."""
        if asked["do"] == "name":
            if asked["name"] not in self._names:
                return {"unknown": True}, []
            return {}, [self._names[asked["name"]]]
        before = [_content(value, self.written) for value in values]
        plain = len(values) - len(asked["named"])
        named = dict(zip(asked["named"], values[plain:], strict=True))
        self._is_asked = True
        result = _perform(asked["do"], self._kept[asked["of"]], values[:plain], named)
        self._is_asked = False
        after = [_content(value, self.written) for value in values]
        changed = [index for index, content in enumerate(after) if content != before[index]]
        return {"changed": changed}, [result, *(values[index] for index in changed)]

    def written(self, value: Any) -> Sequence[Any]:
        """As of every side."""
        if type(value) is FunctionType and "_number_over_there" in value.__dict__:
            return ("yours", value.__dict__["_number_over_there"])
        if isinstance(value, type) and issubclass(value, BaseException):
            kinds = [[self.keep(kind), kind.__name__] for kind in value.__mro__ if not is_builtin(kind)]
            return ("error", kinds, python_class(value))
        return ("handle", self.keep(value))

    def read(self, head: Sequence[Any]) -> Any:
        """As of every side."""
        kind, *rest = head
        if kind == "handle":
            return self._kept[rest[0]]
        if kind == "library":
            return _named(*rest)
        number = rest[0]

        def function(*arguments: Any, **named: Any) -> Any:
            if not self._is_asked:  # nobody would listen, or the main thread to the wrong answer
                raise RuntimeError("a function of the tests was called while no test waits for the program")
            asked = {"do": "call", "of": number, "named": list(named)}
            said, values = self.ask(asked, [*arguments, *named.values()])
            if "raised" in said:
                raise exception_of(said)
            return values[0]

        function.__dict__["_number_over_there"] = number
        return function


def functions(pipes: Pipes) -> None:
    """Run the program, then do what the tests ask with its names, until they ask no more."""
    source = b"".join(pipes.chunks()).decode("utf-8", "surrogatepass")
    why = None
    try:
        names = run(source, "solution")
    except BaseException as error:  # noqa: BLE001
        why, names = last_line(error), {}
    pipes.send(b"P", [json.dumps(why).encode()])
    if why is None:
        Program(pipes, names).serve()


def _perform(what: str, value: Any, arguments: Sequence[Any], named: dict[str, Any]) -> Any:
    """What a test does with a value of the program that is not plain data."""
    if what == "call":
        return value(*arguments, **named)
    if what == "next":
        return _next_items(value, arguments[0])
    return _DEEDS[what](value, *arguments)


# Only questions that do not tell a program what a test compares it with: there is no comparing, no arithmetic
# and no `in` among them.
_DEEDS: dict[str, Callable[..., Any]] = {
    "attribute": getattr,
    "set_attribute": setattr,
    "item": lambda value, key: value[key],
    "set_item": lambda value, key, item: value.__setitem__(key, item),
    "delete_item": lambda value, key: value.__delitem__(key),
    "length": len,
    "text": str,
    "shown": repr,
    "truth": bool,
    "whole": int,
    "float": float,
    "iterator": iter,
    "instance": lambda value, item: isinstance(item, value),
    "subclass": lambda value, kind: issubclass(kind, value),
    "enter": lambda value: value.__enter__(),
    "exit": lambda value: value.__exit__(None, None, None),
}


def _next_items(iterator: Any, most: int) -> list[Any]:
    items: list[Any] = []
    for item in iterator:
        items.append(item)
        if len(items) == most:
            break
    return items


def _content(value: Any, other: Callable[[Any], Sequence[Any]]) -> bytes | None:
    """The lines of what can change in place; None for the rest."""
    return b"".join(encode(value, other)) if isinstance(value, _CHANGING) else None


def _named(module: str, name: str) -> Any:
    known: Any = importlib.import_module(module)
    for part in name.split("."):
        known = getattr(known, part)
    return known
