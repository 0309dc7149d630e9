"""Values on their way between a program and its tests, and the pipes that they travel in.

A message is a letter, then chunks (four bytes of length, that many bytes), then a chunk of no bytes. Its
content is lines of JSON, each a value or the start of one, so that neither size nor depth of a value is
limited. A letter that is not RELAYED goes to the grader outside (code_runs.py), which looks into no other
message.

Inside the sandbox, by the standard library alone: this text is given to a process that sees nothing of
groschen (sandbox.py).
"""

import importlib
import json
import os
import sys
from collections import deque, namedtuple
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

RELAYED = b"V"
_BLOCK = 2048  # plain values in one line
_CHUNK = 1 << 16
_SMALL = (
    1 << 63
)  # whole numbers below travel in decimal; Python refuses to write 4,301 digits of a larger one
_GATHER: dict[str, Callable[[Iterable[Any]], Any]] = {
    "list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque,
}  # fmt: skip
_CONTAINERS: tuple[Any, ...] = (list, tuple, set, frozenset, deque)
_PLAIN = {type(None), bool, float, str}


class Gone(BaseException):
    """The other side has ended: no `except Exception` of a test may go on after it."""


class Pipes:
    """Messages on descriptors of their own; 0, 1 and 2 lead nowhere, and nobody waits for them."""

    def __init__(self) -> None:
        self._input, self._output = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        self._nowhere = os.open("/dev/null", os.O_RDWR)
        self.silence()
        self.send(b"R", [])  # ready; foreign code comes later: what fails until here is not its fault

    def silence(self) -> None:
        """Let 0, 1 and 2 lead nowhere, also if the program has closed them."""
        for descriptor in (0, 1, 2):
            os.dup2(self._nowhere, descriptor)

    def send(self, letter: bytes, pieces: Iterable[bytes]) -> None:
        """Write one message. What a piece's making raises comes out after the message was ended."""
        self._output.write(letter)
        kept = bytearray()
        try:
            for piece in pieces:
                kept += piece
                if len(kept) >= _CHUNK:
                    self._output.write(len(kept).to_bytes(4, "big") + kept)
                    kept.clear()
        finally:
            if kept:
                self._output.write(len(kept).to_bytes(4, "big") + kept)
            self._output.write(bytes(4))
            self._output.flush()

    def chunks(self) -> Iterator[bytes]:
        """The content of the next message. Raises Gone if there is none or it breaks off."""
        while size := int.from_bytes(self._exactly(4), "big"):
            yield self._exactly(size)

    def lines(self) -> Iterator[bytes]:
        """The lines of the next message."""
        start: list[bytes] = []
        for chunk in self.chunks():
            *whole, rest = chunk.split(b"\n")
            for line in whole:
                yield b"".join([*start, line])
                start = []
            start.append(rest)

    def _exactly(self, size: int) -> bytes:
        read = self._input.read(size)
        if len(read) < size:
            raise Gone
        return read


def encode(value: Any, other: Callable[[Any], Sequence[Any]]) -> Iterator[bytes]:
    """A value as lines. Instances of subclasses lose their class. `other` says what stands for what is
    not plain data.

    A list or the like that is inside of itself is not plain where it comes again.
    """
    # Each level: the items that are left, those that wait for a line of their own, and what the level is in.
    levels: list[tuple[Iterator[Any], int]] = [(iter((value,)), 0)]
    open_ids: set[int] = set()
    block: list[Any] = []
    while levels:
        items, owner = levels[-1]
        for item in items:
            kind = type(item)
            if kind in _PLAIN or (kind is int and -_SMALL < item < _SMALL):
                block.append(item)
                if len(block) == _BLOCK:
                    yield _line(["block", block])
                    block = []
                continue
            name, content = _parts(item)
            if content is None or id(item) in open_ids:
                head = other(item) if name is None or content is not None else name
                content = None
            else:
                fields = getattr(type(item), "_fields", None) if name == "tuple" else None
                head = (
                    (name, len(content)) if fields is None else ("named", type(item).__name__, list(fields))
                )
            if block:
                yield _line(["block", block])
                block = []
            yield _line(list(head))
            if content is not None:
                open_ids.add(id(item))
                levels.append((_flat(content), id(item)))
                break
        else:
            levels.pop()
            open_ids.discard(owner)
    if block:
        yield _line(["block", block])


def decode(lines: Iterator[bytes], other: Callable[[Sequence[Any]], Any]) -> Any:
    """The next value of the lines that `encode` wrote; `other` makes something of what is not plain."""
    # Each level: how many items it has, those that have come, and what is made of them.
    waiting: list[tuple[int, list[Any], Callable[[list[Any]], Any]]] = [(1, [], tuple)]
    while True:
        while len(waiting[-1][1]) >= waiting[-1][0]:
            _, items, gather = waiting.pop()
            if not waiting:
                return items[0]
            waiting[-1][1].append(gather(items))
        head = json.loads(next(lines, b"null") or b"null")
        if not isinstance(head, list) or not head:
            raise ValueError("a value breaks off")
        name, *rest = head
        if name == "block":
            waiting[-1][1].extend(rest[0])
        elif name == "dict":
            waiting.append((2 * int(rest[0]), [], _table))
        elif name == "named":
            make: Any = namedtuple  # which takes only names, never code
            waiting.append((len(rest[1]), [], make(rest[0], rest[1])._make))
        elif name in _GATHER:
            waiting.append((int(rest[0]), [], _GATHER[name]))
        else:
            waiting[-1][1].append(_SINGLE[name](*rest) if name in _SINGLE else other(head))


def _flat(content: Any) -> Iterator[Any]:
    return (
        (part for pair in content.items() for part in pair) if isinstance(content, _Pairs) else iter(content)
    )


class _Pairs:
    """The items of a dict, whatever its class says about them."""

    def __init__(self, table: dict[Any, Any]) -> None:
        self._table = table

    def __len__(self) -> int:
        return dict.__len__(self._table)

    def items(self) -> Iterable[tuple[Any, Any]]:
        return dict.items(self._table)


def _parts(value: Any) -> tuple[Any, Any]:
    """The kind of a container and its items; or the line that says all of a value, and None; or two None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return ("int", hex(int.__add__(value, 0))), None
    if isinstance(value, float):
        return ("block", [float.__mul__(value, 1.0)]), None
    if isinstance(value, str):
        return ("block", [str.__add__(value, "")]), None
    if isinstance(value, complex):
        return ("complex", value.real, value.imag), None
    if isinstance(value, bytes | bytearray):
        return ("bytearray" if isinstance(value, bytearray) else "bytes", bytes(value).hex()), None
    if type(value) is range:
        return ("range", hex(value.start), hex(value.stop), hex(value.step)), None
    for base in _CONTAINERS:
        if isinstance(value, base):
            # A copy by the base's own method: what the class says about its items does not count.
            return base.__name__, list(base.__iter__(value)) if type(value) is not base else value
    if isinstance(value, dict):
        return "dict", _Pairs(value)
    return _of_library(value), None


def _of_library(value: Any) -> Any:
    """The line of a fraction, a decimal, a date, a deque's; None for anything else."""
    kind, modules = type(value), sys.modules
    if "fractions" in modules and kind is modules["fractions"].Fraction:
        return ("fraction", hex(value.numerator), hex(value.denominator))
    if "decimal" in modules and kind is modules["decimal"].Decimal:
        return ("decimal", str(value))
    dates = modules.get("datetime")
    if dates is not None and kind in (dates.datetime, dates.date, dates.time):
        return (kind.__name__, value.isoformat())
    if dates is not None and kind is dates.timedelta:
        return ("timedelta", value.days, value.seconds, value.microseconds)
    return None


def _date(name: str) -> Callable[..., Any]:
    return lambda text: getattr(importlib.import_module("datetime"), name).fromisoformat(text)


def _whole(text: str) -> int:
    return int(text, 16)


_SINGLE: dict[str, Callable[..., Any]] = {
    "int": _whole,
    "complex": complex,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "range": lambda *ends: range(*map(_whole, ends)),
    "fraction": lambda above, below: importlib.import_module("fractions").Fraction(
        _whole(above), _whole(below)
    ),
    "decimal": lambda text: importlib.import_module("decimal").Decimal(text),
    "datetime": _date("datetime"),
    "date": _date("date"),
    "time": _date("time"),
    "timedelta": lambda *parts: importlib.import_module("datetime").timedelta(*parts),
}


def _table(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
