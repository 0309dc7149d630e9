"""Turn a TOML file and `--set key=value` flags into a frozen dataclass, and back into TOML.

A key that is not known is refused with its nearest neighbour, a value of the wrong type with both types. A
table for a nested dataclass changes only what it names. TOML has no word for nothing: where a field may be
None, the string "none" means it. A number out of the range that its field declares is refused (ranges.py).
Leaves out what the settings mean.
Source: TOML 1.0.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union

import msgspec

from groschen.errors import BadFile, BadRequest, GroschenError, UsageError
from groschen.files import read_bytes
from groschen.ranges import settings_of

T = TypeVar("T")
_MOST_BYTES = 10_000_000  # of a TOML file
_NONE = "none"  # how None is written
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# msgspec's word for each type that TOML can hold, as the reader of a TOML file would say it.
_WORDS = {"int": "whole number", "float": "number", "str": "string", "bool": "true or false",
          "array": "list", "object": "table", "null": _NONE}  # fmt: skip


def read_toml(path: Path) -> dict[str, object]:
    """The tables of a TOML file. Raises BadFile if it cannot be read or is not TOML."""
    text = read_bytes(path, _MOST_BYTES, "check its name")
    try:
        return tomllib.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # of digits beyond what Python reads, and of depth
        raise BadFile(f"{path} is not valid TOML ({error}); correct it there") from error


def build(
    cls: type[T],
    mapping: Mapping[str, object],
    overrides: Sequence[str] = (),
    *,
    source: str = "the settings",
) -> T:
    """The dataclass `cls` from tables as `read_toml` gives them, after `key=value` flags changed them.

    overrides: "a.b=3", the value as in TOML; what isn't TOML is a string. The last one of a key counts.
    source: what error messages call the mapping, best the file's name.
    Raises UsageError for a fault of a flag, BadRequest for one of the mapping, and whatever the dataclasses
    raise themselves.
    """
    merged, flags = _copy(mapping), {}
    for flag in overrides:
        path, value = _parse_flag(flag)
        _put(merged, path, value, flag)
        flags[".".join(path)] = flag
    builder = _Builder(source, flags, tuple(_leaves(cls)))
    return typing.cast("T", builder.instance(cls, merged, None, ""))


def to_toml(config: object) -> str:
    """The dataclass as TOML text, every field written out; `build` makes an equal one of it.

    Raises BadRequest if a value cannot be written so that it reads back equal.
    """
    return "\n".join(_table_lines(config, "")).strip("\n") + "\n"


def digest(config: object) -> str:
    """SHA-256, hex, of all settings: equal for equal configs."""
    return hashlib.sha256(to_toml(config).encode()).hexdigest()


def flatten(config: object) -> dict[str, str]:
    """Each setting as TOML by its dotted name; two configs differ exactly where these do."""
    return dict(_flat(config, ""))


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of an error message: the known name that `name` is most like, or all of them."""
    last_parts = [candidate for candidate in known if candidate.rsplit(".", 1)[-1] == name]
    close = last_parts or difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known) or 'none'}"


class _Builder:
    """Makes instances and knows whom to blame: the flag that set a key, or the mapping."""

    def __init__(self, source: str, flags: Mapping[str, str], leaves: tuple[str, ...]) -> None:
        self._source, self._flags, self._leaves = source, flags, leaves

    def instance(self, cls: type, mapping: Mapping[str, object], default: object, path: str) -> object:
        """An instance of the dataclass `cls`; fields that are not in the mapping come from `default`."""
        hints = typing.get_type_hints(cls)
        names = [field.name for field in dataclasses.fields(cls) if field.init]
        for key in mapping:
            if key not in names:
                raise self._unknown(_join(path, key), names)
        values: dict[str, object] = {}
        ranged = settings_of(cls)
        for field in dataclasses.fields(cls):
            if field.name in mapping:
                before = _default(field) if default is None else getattr(default, field.name)
                place = _join(path, field.name)
                value = self._value(hints[field.name], mapping[field.name], before, place)
                if field.name in ranged and (fault := ranged[field.name].fault(value)) is not None:
                    raise self._blame(place, fault)
                values[field.name] = value
            elif default is None and _is_required(field):
                raise self._blame(_join(path, field.name), "it is missing and has no default")
        if default is None:
            return cls(**values)
        return dataclasses.replace(typing.cast("Any", default), **values)

    def _value(self, hint: object, value: object, default: object, path: str) -> object:
        options = _options(hint)
        if value == _NONE and types.NoneType in options:
            return None
        nested = [
            option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)
        ]
        if len(nested) == 1 and isinstance(value, Mapping):
            base = default if isinstance(default, nested[0]) else None
            return self.instance(nested[0], value, base, path)
        item = _item_class(hint)
        if item is not None and isinstance(value, list) and all(isinstance(row, Mapping) for row in value):
            return tuple(self.instance(item, row, None, f"{path}[{i}]") for i, row in enumerate(value))
        try:
            return msgspec.convert(value, hint, strict=True)
        except msgspec.ValidationError as error:
            fault = f"{_in_plain_words(str(error))}; found {_shown(value)}"
            if "expected string" in fault:
                fault += ", which in quotes would be a string"
            raise self._blame(path, fault) from error

    def _unknown(self, path: str, names: Sequence[str]) -> GroschenError:
        last = path.rsplit(".", 1)[-1]
        prefix = path.removesuffix(last)
        siblings = [prefix + name for name in names]
        close = difflib.get_close_matches(path, siblings, n=1)
        hint = (
            f"did you mean '{close[0]}'?"
            if close
            else nearest(last, self._leaves if not prefix else siblings)
        )
        return self._blame(path, f"there is no such setting; {hint}")

    def _blame(self, path: str, fault: str) -> GroschenError:
        for key, flag in self._flags.items():
            if key == path or key.startswith(f"{path}.") or path.startswith((f"{key}.", f"{key}[")):
                return UsageError(f"--set {flag}: '{path}': {fault}")
        return BadRequest(f"{self._source}: '{path}': {fault}")


def _parse_flag(flag: str) -> tuple[list[str], object]:
    key, separator, text = flag.partition("=")
    path = key.strip().split(".")
    if not separator or not all(_BARE_KEY.fullmatch(part) for part in path):
        raise UsageError(f"--set {flag}: expected key=value, such as sampling.temperature=0.7")
    text = text.strip()
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError) as error:
        if not isinstance(error, tomllib.TOMLDecodeError) or text[:1] in ('"', "'", "[", "{"):
            raise UsageError(f"--set {flag}: the value is not valid TOML ({error})") from error
        return path, text  # a bare word
    return path, parsed["value"] if len(parsed) == 1 else text


def _copy(mapping: Mapping[str, object]) -> dict[str, object]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in mapping.items()}


def _put(tables: dict[str, object], path: Sequence[str], value: object, flag: str) -> None:
    for depth, key in enumerate(path[:-1], 1):
        if tables.get(key) == _NONE:
            tables[key] = {}  # nothing becomes a table
        below = tables.setdefault(key, {})
        if not isinstance(below, dict):
            raise UsageError(f"--set {flag}: '{'.'.join(path[:depth])}' is a value, not a table")
        tables = below
    tables[path[-1]] = value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _options(hint: object) -> tuple[object, ...]:
    """The types of a union; of anything else, itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _item_class(hint: object) -> type | None:
    """The dataclass that a field of type `tuple[X, ...]` holds, if X is one."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        item = arguments[0]
        return item if isinstance(item, type) and dataclasses.is_dataclass(item) else None
    return None


def _default(field: dataclasses.Field[object]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _is_required(field: dataclasses.Field[object]) -> bool:
    return field.init and field.default is field.default_factory is dataclasses.MISSING


def _leaves(cls: type, path: str = "") -> Iterator[str]:
    """The dotted names of all settings."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        nested = [option for option in _options(hints[field.name]) if dataclasses.is_dataclass(option)]
        if nested and isinstance(nested[0], type):
            yield from _leaves(nested[0], _join(path, field.name))
        else:
            yield _join(path, field.name)


def _in_plain_words(message: str) -> str:
    """msgspec's sentence with TOML's words for the types: "expected `int`, got `str`"."""
    plain = re.sub(r" - at `(.*?)`$", lambda found: "" if found[1] == "$" else f" at {found[1]}", message)
    plain = plain[:1].lower() + plain[1:]
    return re.sub(r"`([\w| ]+)`", lambda found: _type_words(found[1]), plain)


def _type_words(names: str) -> str:
    return " or ".join(_WORDS.get(word, word) for word in names.split(" | "))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _table_lines(config: object, path: str) -> Iterator[str]:
    """Plain values first: in TOML everything after a header belongs to it."""
    tables: list[tuple[str, object]] = []
    for name, hint, value in _fields(config):
        if _is_instance(value):
            tables.append((f"[{_join(path, name)}]", value))
        elif _item_class(hint) is not None and isinstance(value, tuple) and value:
            tables.extend((f"[[{_join(path, name)}]]", item) for item in value)
        else:
            yield f"{name} = {_literal(value, hint, _join(path, name))}"
    for header, value in tables:
        yield from ("", header)
        yield from _table_lines(value, header.strip("[]"))


def _flat(config: object, path: str) -> Iterator[tuple[str, str]]:
    for name, hint, value in _fields(config):
        place = _join(path, name)
        if _is_instance(value):
            yield from _flat(value, place)
        elif _item_class(hint) is not None and isinstance(value, tuple) and value:
            yield place, "; ".join(", ".join(_table_lines(item, place)) for item in value)
        else:
            yield place, _literal(value, hint, place)


def _fields(config: object) -> Iterator[tuple[str, object, object]]:
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(typing.cast("Any", config)):
        if field.init:
            yield field.name, hints[field.name], getattr(config, field.name)


def _is_instance(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _literal(value: object, hint: object, path: str) -> str:
    if value is None and types.NoneType in _options(hint):
        return f'"{_NONE}"'
    if value == _NONE and types.NoneType in _options(hint):
        raise BadRequest(f"'{path}' is the word \"none\", which means no value there; choose another word")
    return _plain_literal(value, path)


def _plain_literal(value: object, path: str) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON allows a bare DEL
    if isinstance(value, list | tuple):
        return f"[{', '.join(_plain_literal(item, path) for item in value)}]"
    if isinstance(value, Mapping):
        pairs = (f"{_key(str(key))} = {_plain_literal(item, path)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    raise BadRequest(f"'{path}' is {value!r}, a {type(value).__name__}, which TOML cannot hold")


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _plain_literal(key, key)
