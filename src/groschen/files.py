"""Read files that may come from anybody: regular ones only, no more bytes than expected, strict JSON.

A pipe or a device in the place of a file would hold the reader for good or fill the memory, so a file is
opened without waiting and asked what it is before a byte is read. Leaves out what the content means, and
writing (`model/atomic.py`).
"""

import io
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from groschen.errors import BadFile

T = TypeVar("T")

MOST_BYTES_OF_TEXT = 64_000_000  # of a JSON file or a template; the largest published tokenizer.json has half
_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip


def is_there(path: Path) -> bool:
    """Whether the folder has an entry of this name, of whatever kind, a link to nothing included."""
    return os.path.lexists(path)


def open_regular(path: Path, remedy: str = "get it again") -> io.BufferedReader:
    """The regular file `path` (links are followed), open for reading bytes.

    remedy: what the sentence tells the user to do if the file is missing.
    Raises BadFile if it is missing, something else than a regular file, or cannot be opened.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError as error:
        raise BadFile(f"{path} is missing; {remedy}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadFile(
            f"{str(path)[:300]!r} cannot be read ({reason}); check the path and its permissions"
        ) from error
    kind = stat.S_IFMT(os.fstat(number).st_mode)
    if kind != stat.S_IFREG:
        os.close(number)
        raise BadFile(f"{path} is {_KINDS.get(kind, 'no file')}, expected a regular file; {remedy}")
    return os.fdopen(number, "rb")


def read_bytes(path: Path, most: int = MOST_BYTES_OF_TEXT, remedy: str = "get it again") -> bytes:
    """The content of a regular file of at most `most` bytes. Raises BadFile, as `open_regular`."""
    with open_regular(path, remedy) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise BadFile(f"{path} has {size:,} bytes, expected at most {most:,}; {remedy}")
        try:
            raw = file.read(most + 1)
        except OSError as error:
            raise BadFile(f"{path} cannot be read ({error.strerror or error}); check the disk") from error
    if len(raw) > most:  # it grew, or it is one of those that say 0 and have more
        raise BadFile(f"{path} has more than {most:,} bytes; {remedy}")
    return raw


def read_text(path: Path, most: int = MOST_BYTES_OF_TEXT) -> str:
    """The UTF-8 text of a regular file, without the byte order mark that some editors put in front.

    Raises BadFile, as `read_bytes`.
    """
    raw = read_bytes(path, most)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(
            f"{path} is no UTF-8 text ({error.reason} at byte {error.start}); get it again"
        ) from error


def parse_object(content: str, where: object) -> dict[str, Any]:
    """The JSON object that `content` is; `where` names it in what is raised.

    Strict: NaN and Infinity are no JSON, a number must fit (`1e999`, 5,000 digits do not), and a text must be
    Unicode. Raises BadFile.
    """
    try:
        value = json.loads(content, parse_constant=_refuse_constant, parse_float=_finite)
        if r"\ud" in content or r"\uD" in content:
            _check_unicode(value)
    except RecursionError as error:
        raise BadFile(f"{where} is nested too deeply for a file of a model; get it again") from error
    except json.JSONDecodeError as error:
        raise BadFile(f"{where} is no JSON ({error}); it may be truncated: get it again") from error
    except ValueError as error:
        # Python's own sentence about integers of more than 4,300 digits speaks of its settings.
        reason = "a number of thousands of digits" if "digits" in str(error) else error
        raise BadFile(f"{where} is not usable JSON ({reason}); get it again") from error
    if not isinstance(value, dict):
        raise BadFile(f"{where} holds a JSON {type(value).__name__}, expected an object; get it again")
    return value


def read_object(path: Path, most: int = MOST_BYTES_OF_TEXT) -> dict[str, Any]:
    """The JSON object in the regular file `path`. Raises BadFile, as `read_text` and `parse_object`."""
    return parse_object(read_text(path, most), path)


def decode(raw: bytes, kind: type[T], where: object, remedy: str) -> T:
    """The JSON text `raw` as a `kind`, a dataclass for example. Raises BadFile with where it stands."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except RecursionError as error:
        raise BadFile(f"{where} is nested too deeply; {remedy}") from error
    except msgspec.DecodeError as error:
        raise BadFile(f"{where} is not what it should be ({error}); {remedy}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:20]} is too large")
    return value


def _check_unicode(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair is no Unicode text") from error
