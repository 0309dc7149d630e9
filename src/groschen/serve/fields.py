"""A JSON body into a record, strictly: nothing is ignored that would have changed the answer.

An unknown field, a wrong type and a number out of range are each a 400 that names the field as `param`. A
field that OpenAI's API has and this server lacks is refused with the reason, unless its value is one that
changes nothing. Leaves out what the values mean together: each endpoint checks that.
"""

import asyncio
import codecs
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Generic, TypeVar

import msgspec
from starlette.requests import Request

from groschen.serve import faults
from groschen.serve.faults import ApiFault
from groschen.serve.field_types import Step, types_at, with_whole_numbers


class Strict(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A record that a client sends."""


T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Other:
    """A field of OpenAI's API that is not in the record.

    why: the reason, and what to do instead. harmless: the values that ask for nothing more than this server
    does anyway; null is always one of them.
    """

    why: str = ""
    harmless: tuple[object, ...] = ()
    is_harmless: bool = False  # whatever its value


MOST_MESSAGES = 65_536  # of one request: more cost seconds before anybody can say that they are too long
_SMALL_BYTES = 65_536  # a body that is read in the event loop itself, in a millisecond or two
CHANGES_NOTHING = Other(is_harmless=True)
# What a name may be. `$` alone passes over a line feed behind the name in Python, and `\Z` is not known to
# the readers of openapi.json.
SCHEMA_NAME = r"^[a-zA-Z0-9_-]{1,64}$(?!\n)"
TOOL_NAME = r"^[a-zA-Z0-9_.-]{1,64}$(?!\n)"


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """What the body of one endpoint may be.

    others: by path without numbers, `messages[].audio`, the fields that are known but not in the record.
    """

    record: type[T]
    others: Mapping[str, Other] = field(default_factory=dict)


async def read(request: Request, form: Form[T]) -> T:
    """The body of a request. Raises ApiFault."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ApiFault(
            f"The body has the content encoding {encoding[:100]!r}, and this server reads plain bodies only; "
            "send it uncompressed, without the header 'Content-Encoding'.",
            status=415,
            code="unsupported_media_type",
        )
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiFault(
            f"The content type is {kind[:100]!r}; send the header 'Content-Type: application/json' and JSON.",
            status=415,
            code="unsupported_media_type",
        )
    body = await request.body()
    if len(body) <= _SMALL_BYTES:
        return decode(body, form)
    if (count := body.count(b'"role"')) > MOST_MESSAGES:
        message = f"The body has {count:,} messages; at most {MOST_MESSAGES:,} are read."
        raise faults.invalid(message, code="array_above_max_length")
    return await asyncio.to_thread(decode, body, form)


def decode(body: bytes, form: Form[T]) -> T:
    """The record that the body says. Raises ApiFault with 400."""
    return convert(parse(body), form)


def convert(value: object, form: Form[T], where: Sequence[Step] = ()) -> T:
    """The record that a value of JSON says; where: the value's own path in the body. Raises ApiFault (400).

    The value is used up.
    """
    if isinstance(value, dict):
        _drop_nulls(value, form.record)
    try:
        with suppress(msgspec.ValidationError):  # the steps below cost time, and most need none
            return msgspec.convert(value, form.record, strict=True)
        _drop_harmless(value, form)
        with suppress(msgspec.ValidationError):
            return msgspec.convert(value, form.record, strict=True)
        return msgspec.convert(with_whole_numbers(value, form.record), form.record, strict=True)
    except msgspec.ValidationError as error:
        raise _fault(str(error), value, form, where) from None
    except RecursionError:
        raise faults.invalid("The body is nested too deeply; 100 levels are plenty.") from None


def _drop_nulls(value: dict[str, object], record: type[msgspec.Struct]) -> None:
    """A field of the body that is null has its default, as in OpenAI's API."""
    for name in _optional_names(record):
        if name in value and value[name] is None:
            del value[name]


@cache
def _optional_names(record: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(each.encode_name for each in msgspec.structs.fields(record) if not each.required)


def parse(body: bytes) -> object:
    """JSON into plain values: no NaN, no number that a float64 or an int64 can't hold. Raises ApiFault.

    A byte order mark before it is passed over, as RFC 8259 lets a reader do.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        return msgspec.json.decode(body)
    except msgspec.ValidationError:
        path = next(_too_large_numbers(body), "")
        raise faults.invalid(
            f"A number{f' in {path!r}' if path else ''} is too large to be held.",
            path or None,
            "invalid_value",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # until msgspec 0.22 the second for bad UTF-8
        raise faults.invalid(_malformed(str(error), body), code="invalid_json") from None
    except RecursionError:
        raise faults.invalid("The body is nested too deeply; 100 levels are plenty.") from None


# -- paths: `$.messages[0].content[...]` of msgspec to steps, and steps to what a client reads
# --------------------------------------------------------------------------------------------------------


def _split(message: str) -> tuple[str, list[Step]]:
    """What is wrong, and where."""
    text, _, path = message.partition(" - at `$")
    steps: list[Step] = []
    # "[...]" is some value of an object with free names: the path ends before it.
    for name, index in re.findall(r"\.([^.\[\]`]+)|\[(\d+)\]", path.partition("[...]")[0]):
        steps.append(int(index) if index else name)
    return text, steps


def _written(steps: Sequence[Step]) -> str:
    """`messages[0].content`"""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def _without_numbers(steps: Sequence[Step]) -> str:
    return re.sub(r"\[\d+\]", "[]", _written(steps))


def _at(value: object, steps: Sequence[Step]) -> object:
    for step in steps:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


# -- unknown fields
# --------------------------------------------------------------------------------------------------------


def _fault(message: str, value: object, form: Form[T], where: Sequence[Step]) -> ApiFault:
    """What msgspec has against a value, as the client reads it."""
    text, steps = _split(message)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text, re.DOTALL)
    if unknown is None:
        return _wrong_value(text, steps, value, form, where)
    name, owner = unknown[1], _at(value, steps)
    if not isinstance(owner, dict) or name not in owner:  # a name that looks like msgspec's message
        return faults.invalid("Unrecognized request argument supplied.", code="unknown_parameter")
    return _unknown(owner, steps, name, form, where)


def _drop_harmless(value: object, form: Form[T]) -> None:
    """Take away the fields that are not in the record and change nothing, each wherever it stands."""
    for path, other in form.others.items():
        steps, name = _place(path)
        holders = _holders(form.record, path)
        for owner in _owners(value, steps):
            if name in owner and _is_harmless(owner[name], other) and not _is_any_of(owner, holders):
                del owner[name]


def _is_harmless(value: object, other: Other) -> bool:
    if value is None or other.is_harmless:
        return True
    return any(value == harmless and type(value) is type(harmless) for harmless in other.harmless)


@cache
def _place(path: str) -> tuple[tuple[Step, ...], str]:
    """Where the owners of a field are, and its name, from a path without numbers; 0: anywhere in a list."""
    *steps, name = re.findall(r"\[\]|[^.\[\]]+", path)
    return tuple(0 if step == "[]" else step for step in steps), name


def _owners(value: object, steps: Sequence[Step]) -> Iterator[dict[str, object]]:
    """The objects at a path, at any place of its lists."""
    values = [value]
    for step in steps:
        if isinstance(step, int):
            values = [item for each in values if isinstance(each, list) for item in each]
        else:
            values = [each[step] for each in values if isinstance(each, dict) and step in each]
    return (each for each in values if isinstance(each, dict))


@cache
def _holders(record: type[msgspec.Struct], path: str) -> tuple[msgspec.inspect.StructType, ...]:
    """The records that do have the field of this path, where one of several may stand."""
    steps, name = _place(path)
    return tuple(
        kind
        for kind in types_at(record, steps)
        if isinstance(kind, msgspec.inspect.StructType) and name in {each.encode_name for each in kind.fields}
    )


def _is_any_of(owner: Mapping[str, object], kinds: Sequence[msgspec.inspect.StructType]) -> bool:
    return any(kind.tag_field is None or owner.get(kind.tag_field) == kind.tag for kind in kinds)


def _unknown(
    owner: Mapping[str, object], steps: Sequence[Step], name: str, form: Form[T], where: Sequence[Step]
) -> ApiFault:
    """The fault of a field that is not in the record."""
    param = _written([*where, *steps, name])[:200]
    other = form.others.get(_without_numbers([*steps, name]))
    if other is not None:
        return faults.not_honoured(param, other.why)
    known = {*_names_at(form.record, steps), *(["type"] if "type" in owner else [])}
    near = faults.nearest(name, known)
    hint = f"; did you mean '{near}'?" if near else ""
    return faults.invalid(
        f"Unrecognized request argument supplied: {param}{hint}", param, "unknown_parameter"
    )


def _names_at(record: type[msgspec.Struct], steps: Sequence[Step]) -> set[str]:
    """The fields that the records have that may stand at a path."""
    kinds = types_at(record, steps)
    return {
        each.encode_name
        for kind in kinds
        if isinstance(kind, msgspec.inspect.StructType)
        for each in kind.fields
    }


# -- wrong values
# --------------------------------------------------------------------------------------------------------

_LIMITS = {  # what msgspec says after "Expected `type` ", and OpenAI's word for it
    "<=": "above_max_value",
    "<": "above_max_value",
    ">=": "below_min_value",
    ">": "below_min_value",
}


def _wrong_value(
    text: str, steps: list[Step], value: object, form: Form[T], where: Sequence[Step]
) -> ApiFault:
    missing = re.fullmatch(r"Object missing required field `(.*)`", text)
    if missing:
        param = _written([*where, *steps, missing[1]])
        return faults.invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    param, found = _written([*where, *steps]), _at(value, steps)
    limit = re.match(r"Expected `(int|float)[^`]*` (<=|>=|<|>)", text)
    code = "invalid_value"
    if limit:
        code = f"{'integer' if limit[1] == 'int' else 'decimal'}_{_LIMITS[limit[2]]}"
    elif "got `" in text:
        code = "invalid_type"
    prefix = f"Invalid '{param}': " if param else "The body is wrong: "
    choices = _choices_at(form.record, steps) if text.startswith("Invalid ") else []
    expected = f"expected one of {', '.join(choices)}" if choices else _plain(text)
    return faults.invalid(f"{prefix}{expected}; found {_shown(found)}.", param or None, code)


def _choices_at(record: type[msgspec.Struct], steps: list[Step]) -> list[str]:
    """The texts that a field may be, if only some may."""
    literal = [
        repr(value)
        for kind in types_at(record, steps)
        if isinstance(kind, msgspec.inspect.LiteralType)
        for value in kind.values
    ]
    tags = [
        repr(kind.tag)
        for kind in types_at(record, steps[:-1])
        if isinstance(kind, msgspec.inspect.StructType) and steps and kind.tag_field == steps[-1]
    ]
    return literal or tags


def _plain(text: str) -> str:
    """msgspec's words without the type it got: the value itself is shown."""
    text = re.sub(r", got `[^`]*`$", "", text).replace("`", "")
    return text[:1].lower() + text[1:]


def _shown(value: object) -> str:
    """A value of the request, short enough for an error."""
    text = msgspec.json.encode(value).decode("utf-8", "replace")
    return text if len(text) <= 80 else text[:80] + "…"


# -- text that is no JSON
# --------------------------------------------------------------------------------------------------------


_GZIP = b"\x1f\x8b"


def _malformed(message: str, body: bytes) -> str:
    if not body.strip():
        return "The body is empty; send a JSON object."
    if body.startswith(_GZIP):
        return "The body is compressed by gzip; send it uncompressed."
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"The body is not UTF-8: {error.reason} in one of its texts."
    at = re.search(r"\(byte (\d+)\)", message)
    if at is None:
        return f"The body is not valid JSON: it ends too early or has a broken text ({len(body):,} bytes)."
    position = int(at[1])
    before = body[:position]
    line, column = before.count(b"\n") + 1, position - (before.rfind(b"\n") + 1) + 1
    what = message.partition(":")[2].partition("(")[0].strip() or "a mistake"
    is_number = re.match(rb"-?(NaN|Infinity)", body[max(position - 1, 0) :].lstrip(b" :,[")) is not None
    hint = "; NaN and Infinity are no JSON numbers" if is_number else ""
    return f"The body is not valid JSON: {what} at byte {position} (line {line}, column {column}){hint}."


def _too_large_numbers(body: bytes) -> Iterator[str]:
    """Paths of numbers beyond float64 or 64-bit integers; only asked once msgspec has met one."""
    try:
        value = json.loads(body, parse_int=lambda text: math.inf if len(text) > 18 else int(text))
    except (ValueError, RecursionError):
        return
    yield from _infinite(value, [])


def _infinite(value: object, steps: list[Step]) -> Iterator[str]:
    if isinstance(value, float) and math.isinf(value):
        yield _written(steps)
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in inner:
        yield from _infinite(item, [*steps, step])
