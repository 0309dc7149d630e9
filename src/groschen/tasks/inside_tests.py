"""The process of the author's tests: of the program nothing exists in it but the plain values that come back,
and Remote for what is no plain value.

What a test asks for travels when it asks. A function that a test hands over stays here: the program may
call it and do nothing else. So a program has no handle on the result.

Inside the sandbox, by the standard library alone: this text is given to a process that sees nothing of
groschen (sandbox.py). `Any` stands for values of foreign code.
"""

import builtins
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from groschen.tasks.inside_run import last_line
from groschen.tasks.inside_sides import NotHanded, Raised, Side, exception_of
from groschen.tasks.inside_values import Gone, Pipes

_MAX_WORDS = 500  # characters of an error
_CHANGING = (list, dict, set, bytearray)
_OWN_NAMES = frozenset(("__name__", "__builtins__", "__annotations__", "__doc__", "__file__"))
_BATCH = 256  # items that are fetched at once of an iterator that has gone on for a while


class Remote:
    """In the tests: a function or an object of the program. Equal to itself only."""

    __slots__ = ("_number", "_tests")

    def __init__(self, tests: "Tests", number: int) -> None:
        object.__setattr__(self, "_tests", tests)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call it in the program's process."""
        return self._tests.do("call", self._number, arguments, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._tests.do("attribute", self._number, (name,))

    def __setattr__(self, name: str, value: Any) -> None:
        self._tests.do("set_attribute", self._number, (name, value))

    def __getitem__(self, key: Any) -> Any:
        return self._tests.do("item", self._number, (key,))

    def __setitem__(self, key: Any, item: Any) -> None:
        self._tests.do("set_item", self._number, (key, item))

    def __delitem__(self, key: Any) -> None:
        self._tests.do("delete_item", self._number, (key,))

    def __iter__(self) -> Any:
        iterator = self._tests.do("iterator", self._number)
        return iterator._items() if isinstance(iterator, Remote) else iter(iterator)

    def _items(self) -> Iterator[Any]:
        fetched, most = 0, 1
        while items := self._tests.do("next", self._number, (most,)):
            yield from items
            fetched += len(items)
            most = 1 if fetched < _BATCH else _BATCH  # one by one at first, as Python would

    def __next__(self) -> Any:
        for item in self._tests.do("next", self._number, (1,)):
            return item
        raise StopIteration

    def __len__(self) -> Any:
        return self._tests.do("length", self._number)

    def __bool__(self) -> bool:
        return bool(self._tests.do("truth", self._number) is True)

    def __int__(self) -> Any:
        return self._tests.do("whole", self._number)

    def __float__(self) -> Any:
        return self._tests.do("float", self._number)

    def __str__(self) -> str:
        return str(self._tests.do("text", self._number))

    def __repr__(self) -> str:
        return str(self._tests.do("shown", self._number))

    def __enter__(self) -> Any:
        return self._tests.do("enter", self._number)

    def __exit__(self, *_: object) -> None:
        self._tests.do("exit", self._number)

    def __instancecheck__(self, item: Any) -> bool:
        return isinstance(item, Remote) and self._tests.do("instance", self._number, (item,)) is True

    def __subclasscheck__(self, kind: Any) -> bool:
        return isinstance(kind, Remote) and self._tests.do("subclass", self._number, (kind,)) is True

    def __eq__(self, other: object) -> bool:
        return type(other) is Remote and other._number == self._number

    def __hash__(self) -> int:
        return hash(self._number)


class Tests(Side):
    """The side of the tests."""

    def __init__(self, pipes: Pipes) -> None:
        super().__init__(pipes)
        self._errors: dict[int, type[Exception]] = {}
        self._handed: dict[int, Any] = {}  # functions, by number: of what is kept, only these may be called
        self.names = Names(self)
        self.not_handed: str | None = None

    def do(
        self, what: str, number: int, arguments: Sequence[Any] = (), named: dict[str, Any] | None = None
    ) -> Any:
        """What comes of a deed with a value of the program."""
        named = named or {}
        passed = [*arguments, *named.values()]
        try:
            said, values = self.ask({"do": what, "of": number, "named": list(named)}, passed)
        except NotHanded as error:
            self.not_handed = str(error)
            raise
        if what != "attribute":
            self.names.forget()
        if "raised" in said:
            raise self._exception(said)
        for index, value in zip(said["changed"], values[1:], strict=True):
            _replace(passed[index], value)
        return values[0]

    def done(self, asked: dict[str, Any], values: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        """As of every side."""
        if asked["do"] != "call":
            raise TypeError("a program may only call what tests hand over")
        function = self._handed[asked["of"]]
        plain = len(values) - len(asked["named"])
        return {}, [function(*values[:plain], **dict(zip(asked["named"], values[plain:], strict=True)))]

    def written(self, value: Any) -> Sequence[Any]:
        """As of every side."""
        if type(value) is Remote:
            return ("handle", value._number)
        if isinstance(value, type) and "_number_over_there" in value.__dict__:
            return ("handle", value.__dict__["_number_over_there"])
        if isinstance(value, type | BuiltinFunctionType | FunctionType) and (name := _library_name(value)):
            return ("library", *name)
        if isinstance(value, FunctionType | MethodType) or (callable(value) and not isinstance(value, type)):
            self._handed[self.keep(value)] = value
            return ("function", self.keep(value))
        raise NotHanded(
            f"a test hands a {type(value).__name__} to the program; only plain data and functions can be"
        )

    def read(self, head: Sequence[Any]) -> Any:
        """As of every side."""
        kind, *rest = head
        if kind == "handle":
            return Remote(self, int(rest[0]))
        if kind == "error":
            return self._error_class(*rest)
        return self._handed[rest[0]]

    def _error_class(self, kinds: Sequence[tuple[int, str]], base: str) -> type[Exception]:
        known = getattr(builtins, base, None)
        made = known if isinstance(known, type) and issubclass(known, Exception) else Raised
        for number, name in reversed(kinds):
            if number not in self._errors:
                inside = {
                    "_number_over_there": number,
                    "__getattr__": self._of_error,
                    "__str__": _words_of_error,
                }
                self._errors[number] = type(name, (made,), inside)
            made = self._errors[number]
        return made

    @property
    def _of_error(self) -> Callable[[Exception, str], Any]:
        """What an attribute of the program's exception is, where its class here has none."""

        def attribute(error: Exception, name: str) -> Any:
            if name.startswith("__") or "_number_over_there" not in error.__dict__:
                raise AttributeError(name)
            return self.do("attribute", error.__dict__["_number_over_there"], (name,))

        return attribute

    def _exception(self, said: dict[str, Any]) -> Exception:
        """The program's exception as the tests see it: nothing that would end this process."""
        original = None if said["yours"] is None else self._kept[said["yours"]]
        if isinstance(original, Exception):  # of a function that the test handed over
            return original
        return exception_of(said, self._error_class(said["kinds"], said["raised"]))


class Names(dict[str, Any]):
    """The names of one test. What it does not define itself is asked of the program, when it is read."""

    def __init__(self, tests: Tests) -> None:
        super().__init__({"__name__": "__tests__", "__builtins__": builtins})
        self._tests = tests
        self._asked: set[str] = set()

    def __missing__(self, name: str) -> Any:
        # A program may not redefine what tests are written in: `len` is Python's.
        if name in _OWN_NAMES or hasattr(builtins, name):
            raise KeyError(name)
        _, values = self._tests.ask({"do": "name", "name": name}, ())
        if not values:
            raise KeyError(name)
        if isinstance(
            values[0], Remote | type | list | dict | set
        ):  # a scalar may have changed when next read
            self[name] = values[0]
            if not isinstance(values[0], Remote | type):
                self._asked.add(name)
        return values[0]

    def __contains__(self, name: object) -> bool:
        try:
            self[str(name)]
        except KeyError:
            return False
        return True

    def get(self, name: str, other: Any = None) -> Any:
        """As of a dict, for `globals().get("f")`."""
        try:
            return self[name]
        except KeyError:
            return other

    def forget(self) -> None:
        """Read lists and the like again: the program may have changed them."""
        for name in self._asked:
            self.pop(name, None)
        self._asked.clear()


def tests(pipes: Pipes) -> None:
    """Run each test with names of its own: a message for each, and one when all are done."""
    sources = json.loads(b"".join(pipes.chunks()))
    side = Tests(pipes)
    for source in sources:
        why = None
        side.names = Names(side)
        try:
            exec(compile(source, "<tests>", "exec"), side.names)  # noqa: S102 - the task's author wrote it
        except Gone:
            raise
        except BaseException as error:  # noqa: BLE001
            why = _place_and_words(error, source)
        pipes.send(b"T", [json.dumps({"why": why, "error": side.not_handed}).encode()])
    pipes.send(b"D", [])


def _library_name(value: Any) -> tuple[str, str] | None:
    """Module and name of what Python's library knows by them, so that the program has its own."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not isinstance(module, str) or module.partition(".")[0] not in sys.stdlib_module_names:
        return None
    known: Any = sys.modules.get(module)
    for part in name.split("."):
        known = getattr(known, part, None)
    return (module, name) if known is value else None


def _words_of_error(error: Exception) -> str:
    text = error.__dict__.get("_text_over_there")
    return Exception.__str__(error) if text is None else text


def _replace(argument: Any, changed: Any) -> None:
    """Give a list, dict, set or bytearray that a test passed the content that the program left in it.

    Lists and dicts inside of it that are still there stay the same objects.
    """
    if isinstance(argument, list) and isinstance(changed, list):
        for index, (old, new) in enumerate(zip(argument, changed, strict=False)):
            if type(old) is type(new) and isinstance(old, _CHANGING) and old != new:
                _replace(old, new)
            if isinstance(old, _CHANGING) and type(old) is type(new):
                changed[index] = old
        argument[:] = changed
    elif isinstance(argument, dict) and isinstance(changed, dict):
        for key, new in changed.items():
            old = argument.get(key)
            if isinstance(old, _CHANGING) and type(old) is type(new):
                _replace(old, new)
                changed[key] = old
        argument.clear()
        argument.update(changed)
    elif isinstance(argument, set):
        argument.clear()
        argument.update(changed)
    elif isinstance(argument, bytearray):
        argument[:] = changed


def _place_and_words(error: BaseException, source: str) -> str:
    numbers = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<tests>"
    ]
    rows = source.splitlines()
    at = numbers[-1] if numbers and numbers[-1] is not None else len(rows) + 1
    words = last_line(error)
    return f"{words} at {rows[at - 1].strip()}"[:_MAX_WORDS] if at <= len(rows) else words
