"""What runs inside of the sandbox, by Python's standard library alone: confine.py gets this text and runs it.

argv: a role and what it needs. `command` replaces the process by argv[2:]. `program` runs argv[2]. `cases`
runs a program once for each standard input. `functions` holds a program's names and does what `tests` asks of
them; `tests` runs the author's tests in another sandbox, where of the program nothing exists but the plain
values that come back. So a program may do what it likes to its own process: it has no handle on the result.

Leaves out every protection: the process has been confined before (confine.py), behind a wall (walls.py).
`Any` stands for values of foreign code. Foreign code may raise anything, and all of it goes back as data.
"""

import builtins
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

MAX_ITEMS = 100_000  # of an iterator that tests go through
_MAX_WORDS = 500  # characters of an error
_PLAIN = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class Gone(BaseException):
    """The other side has ended: no `except Exception` of a test may go on after it."""


class Raised(Exception):
    """An exception of the program whose class the tests do not know."""


class Lines:
    """Lines of JSON on descriptors of their own; 0, 1 and 2 lead nowhere, and nobody waits for them."""

    def __init__(self) -> None:
        self._input, self._output = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        self._nowhere = os.open("/dev/null", os.O_RDWR)
        self.silence()
        self.send({"ready": True})  # foreign code comes later: what fails until here is not its fault

    def silence(self) -> None:
        """Let 0, 1 and 2 lead nowhere, also if the program has closed them."""
        for descriptor in (0, 1, 2):
            os.dup2(self._nowhere, descriptor)

    def send(self, value: object) -> None:
        """Write one value."""
        self._output.write(json.dumps(value).encode() + b"\n")
        self._output.flush()

    def receive(self) -> Any:
        """Read one value. Raises Gone at the end."""
        line = self._input.readline()
        if not line:
            raise Gone
        return json.loads(line)


def encode(value: Any, handle: Callable[[Any], int]) -> object:
    """A value as JSON. Instances of subclasses lose their class; what is not plain data becomes a number."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int.__add__(value, 0)
    if isinstance(value, float):
        return float.__mul__(value, 1.0)
    if isinstance(value, str):
        return str.__add__(value, "")
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, bytes | bytearray):
        return ["bytes", bytes(value).hex()]
    for name, base in _PLAIN.items():
        if isinstance(value, base):
            return [name, [encode(item, handle) for item in base.__iter__(value)]]
    if isinstance(value, dict):
        return ["dict", [[encode(key, handle), encode(item, handle)] for key, item in dict.items(value)]]
    return ["handle", handle(value)]


def decode(value: Any, handle: Callable[[int], Any]) -> Any:
    """What `encode` was given; `handle` makes something of the number of what is not plain."""
    if not isinstance(value, list):
        return value
    kind, *rest = value
    if kind == "complex":
        return complex(*rest)
    if kind == "bytes":
        return bytes.fromhex(rest[0])
    if kind == "handle":
        return handle(rest[0])
    if kind == "dict":
        return {decode(key, handle): decode(item, handle) for key, item in rest[0]}
    return _PLAIN[kind](decode(item, handle) for item in rest[0])


def run(source: str) -> dict[str, Any]:
    """Run a program; the names that it leaves behind."""
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    exec(compile(source, "<program>", "exec"), names)  # noqa: S102 - this is what the sandbox is for
    return names


def cases() -> None:
    """Run the program for each input: a line with its output, and why it ended if it did not end well."""
    lines = Lines()
    job = lines.receive()
    for given in job["inputs"]:
        lines.silence()  # else a new file could get the number of one that the last case closed
        read, written = os.memfd_create("input"), os.memfd_create("output")
        os.write(read, given.encode())
        os.lseek(read, 0, os.SEEK_SET)
        os.dup2(read, 0)
        os.dup2(written, 1)
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "r", closefd=False)), "utf-8")
        output = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), "utf-8")
        sys.stdout = output
        why = _run_case(job["source"], output)
        said = os.pread(written, os.fstat(written).st_size, 0).decode("utf-8", "replace")
        os.close(read)
        os.close(written)
        lines.send({"output": said, "why": why})


def _run_case(source: str, output: io.TextIOWrapper) -> str | None:
    """Why the program did not end well; None if it did."""
    why = None
    try:
        run(source)
    except SystemExit as ended:
        why = None if ended.code in (None, 0) else f"exit status {str(ended.code)[:100]}"
    except BaseException as error:  # noqa: BLE001
        why = last_line(error)
    try:
        output.flush()
    except BaseException as error:  # noqa: BLE001
        return why or last_line(error)
    return why


def functions() -> None:
    """Run the program, then do what the tests ask with its names, until they ask no more."""
    lines = Lines()
    source = lines.receive()["source"]
    kept: list[Any] = []
    numbers: dict[int, int] = {}

    def keep(value: Any) -> int:
        if id(value) not in numbers:  # what is kept keeps its id
            numbers[id(value)] = len(kept)
            kept.append(value)
        return numbers[id(value)]

    try:
        lines.send({"names": {name: encode(value, keep) for name, value in run(source).items()}})
    except BaseException as error:  # noqa: BLE001
        lines.send({"raised": type(error).__name__, "text": last_line(error)})
        return
    while True:
        asked = lines.receive()
        try:
            lines.send(_done(asked, kept, keep))
        except BaseException as error:  # noqa: BLE001
            lines.send({"raised": type(error).__name__, "text": str(error)[:_MAX_WORDS]})


def _done(asked: Mapping[str, Any], kept: list[Any], keep: Callable[[Any], int]) -> object:
    """The value that was asked for, and the arguments that the program has changed in place."""
    arguments = decode(asked["arguments"], kept.__getitem__)
    named = decode(asked["named"], kept.__getitem__)
    before = [encode(item, keep) for item in arguments]
    value = encode(_perform(asked["do"], kept[asked["of"]], arguments, named), keep)
    changed = []
    for index, item in enumerate(arguments):
        after = encode(item, keep)
        if isinstance(item, list | dict | set) and after != before[index]:
            changed.append([index, after])
    return {"value": value, "changed": changed}


def _perform(what: str, value: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """What a test does with a value of the program that is not plain data."""
    if what == "call":
        return value(*arguments, **named)
    if what == "attribute":
        return getattr(value, arguments[0])
    if what == "item":
        return value[arguments[0]]
    if what == "length":
        return len(value)
    if what == "text":
        return str(value)
    found: list[Any] = []
    for item in value:
        if len(found) == MAX_ITEMS:
            raise OverflowError(f"more than {MAX_ITEMS} items")
        found.append(item)
    return found


class Remote:
    """In the tests: a function or an object of the program. Equal to itself only."""

    __slots__ = ("_ask", "_number")

    def __init__(self, ask: Callable[..., Any], number: int) -> None:
        self._ask, self._number = ask, number

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call it in the program's process."""
        return self._ask("call", self._number, arguments, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._ask("attribute", self._number, (name,), {})

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", self._number, (key,), {})

    def __iter__(self) -> Any:
        return iter(self._ask("items", self._number, (), {}))

    def __len__(self) -> Any:
        return self._ask("length", self._number, (), {})

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return str(self._ask("text", self._number, (), {}))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and other._number == self._number

    def __hash__(self) -> int:
        return hash(self._number)


def tests() -> None:
    """Run each test with a fresh copy of the program's names: a line for each, and one when all are done."""
    lines = Lines()
    job = lines.receive()

    def remote(number: int) -> Remote:
        return Remote(ask, number)

    def ask(what: str, number: int, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        sent = encode(list(arguments), _number_of), encode(dict(named), _number_of)
        lines.send({"ask": {"do": what, "of": number, "arguments": sent[0], "named": sent[1]}})
        said = lines.receive()
        if "raised" in said:
            raise _exception_of(said)
        for index, item in said["changed"]:
            _replace(arguments[index], decode(item, remote))
        return decode(said["value"], remote)

    # A program may not redefine what tests are written in: `len` is Python's, whatever the program calls so.
    known = {name: value for name, value in job["names"].items() if not hasattr(builtins, name)}
    for index, source in enumerate(job["tests"]):
        why = None
        try:
            names = {name: decode(value, remote) for name, value in known.items()}
            names.update({"__name__": "__tests__", "__builtins__": builtins})
            exec(compile(source, "<tests>", "exec"), names)  # noqa: S102 - the task's author wrote it
        except Gone:
            raise
        except BaseException as error:  # noqa: BLE001
            why = _place_and_words(error, source)
        lines.send({"test": index, "why": why})
    lines.send({"done": True})


def _number_of(value: Any) -> int:
    if isinstance(value, Remote):
        return value._number
    raise TypeError(f"tests may pass plain data to the program, not a {type(value).__name__}")


def _exception_of(said: Mapping[str, object]) -> Exception:
    """The program's exception as the tests see it: nothing that would end this process."""
    known = getattr(builtins, str(said["raised"]), None)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            return known(str(said["text"]))
        except TypeError:  # some take more than a text
            pass
    return Raised(f"{said['raised']}: {said['text']}")


def _replace(argument: Any, changed: Any) -> None:
    """Give a list, dict or set that a test passed the content that the program left in it."""
    if isinstance(argument, list):
        argument[:] = changed
    elif isinstance(argument, dict | set):
        argument.clear()
        argument.update(changed)


def last_line(error: BaseException) -> str:
    """The class of an exception and its words."""
    return "".join(traceback.format_exception_only(error)).strip()[-_MAX_WORDS:]


def _place_and_words(error: BaseException, source: str) -> str:
    numbers = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<tests>"
    ]
    rows = source.splitlines()
    at = numbers[-1] if numbers and numbers[-1] is not None else len(rows) + 1
    words = last_line(error)
    return f"{words} at {rows[at - 1].strip()}"[:_MAX_WORDS] if at <= len(rows) else words


def _replaced_by(argv: list[str]) -> NoReturn:
    os.execv(argv[0], argv)


def _main() -> None:
    role, given = sys.argv[1], sys.argv[2:]
    sys.argv = ["<program>"]
    if role == "command":
        _replaced_by(given)
    elif role == "program":
        run(given[0])
    else:
        {"cases": cases, "functions": functions, "tests": tests}[role]()


if __name__ == "__main__":
    _main()
