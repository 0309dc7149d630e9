"""Read JSONL files: UTF-8, one JSON object a line.

Leaves out what the objects mean (jsonl_task.py). While a task.py is loaded, relative paths are taken from its
folder and what was read is noted for the task's digest (user_file.py).
"""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from groschen import files
from groschen.errors import BadFile

_MOST_BYTES = 16_000_000_000  # a task is held in memory


@dataclass(slots=True)
class Reading:
    """The folder that relative paths start from, and the SHA-256 of each file that was read."""

    folder: Path
    digests: dict[Path, str] = field(default_factory=dict)


_reading: ContextVar[Reading | None] = ContextVar("reading", default=None)


@contextmanager
def reading_in(folder: Path) -> Iterator[Reading]:
    """While this is open, `read_jsonl` takes relative paths from `folder`, and what it reads is noted."""
    reading = Reading(folder)
    token = _reading.set(reading)
    try:
        yield reading
    finally:
        _reading.reset(token)


def read_jsonl(path: str | Path) -> Iterator[dict[str, object]]:
    """The objects of a file, one after the other; empty lines are passed over.

    A relative path starts from the folder of the task.py that is being loaded; elsewhere, from the working
    folder. Raises BadFile, with the number of the line, for what is not UTF-8, not JSON or not an object.
    """
    return (row for _, row in numbered_rows(path))


def numbered_rows(path: str | Path) -> Iterator[tuple[int, dict[str, object]]]:
    """As `read_jsonl`, each object with the number of its line, from 1."""
    reading = _reading.get()
    place = (reading.folder if reading else Path()) / path
    raw = read_file(place)
    if reading:
        reading.digests[place.resolve()] = hashlib.sha256(raw).hexdigest()
    return _rows(raw, place)


def _rows(raw: bytes, place: Path) -> Iterator[tuple[int, dict[str, object]]]:
    # Only a line feed ends a line: JSON texts may hold the other line ends of Unicode.
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            yield number, _object(line, f"{place}, line {number}")


def read_file(path: Path) -> bytes:
    """The content of a regular file; BadFile says why it can't be read."""
    return files.read_bytes(path, _MOST_BYTES, "check its name")


def _object(line: bytes, where: str) -> dict[str, object]:
    try:
        text = line.decode("utf-8")
        value = json.loads(
            text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_without_doubles
        )
    except UnicodeDecodeError as error:
        raise BadFile(f"{where} is not UTF-8: byte {error.start + 1} is 0x{line[error.start]:02x}") from error
    except json.JSONDecodeError as error:
        raise BadFile(f"{where} is not JSON: {error.msg} at character {error.pos + 1}") from error
    except _Double as error:
        raise BadFile(f"{where} has the key {error} twice in one object; keep one of the two") from error
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{where} is not JSON that can be used: {error}") from error
    if not isinstance(value, dict):
        raise BadFile(f'{where} holds {_kind(value)}; expected one object, as in {{"prompt": ..., ...}}')
    return value


class _Double(Exception):
    """A key that an object has twice: JSON's readers disagree on which of the two values counts."""


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Double(repr(next(name for name in names if names.count(name) > 1))[:80])
    return made


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON value")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is too large a number")
    return value


def _kind(value: object) -> str:
    kinds = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return kinds.get(type(value), "null")
