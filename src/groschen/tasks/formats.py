"""The formats of strings and numbers that a JSON schema may ask for, each as a question with yes or no.

JSON Schema lets a reader ignore `format`; here a format is checked or its schema is refused (schemas.py).
Follows RFC 3339 (times), RFC 5321 (mail), RFC 1123 (hosts), RFC 3986 (URIs), RFC 4122 (UUIDs), and OpenAPI
for the formats of numbers.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import date, time

_DATE = r"\d{4}-\d{2}-\d{2}"
_TIME = r"(\d{2}:\d{2}):(\d{2})(\.\d+)?([zZ]|[+-]\d{2}:\d{2})"
_DATE_TIME = re.compile(rf"({_DATE})[tT ]({_TIME})", re.ASCII)
_DURATION = re.compile(
    r"P(?:\d+W|(?=\d|T)(?:\d+Y)?(?:\d+M)?(?:\d+D)?(?:T(?=\d)(?:\d+H)?(?:\d+M)?(?:\d+(?:\.\d+)?S)?)?)",
    re.ASCII,
)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_MAIL = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})+")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*")


def _is_date(text: str) -> bool:
    return re.fullmatch(_DATE, text, re.ASCII) is not None and _succeeds(date.fromisoformat, text)


def _is_time(text: str) -> bool:
    match = re.fullmatch(_TIME, text, re.ASCII)
    if match is None:
        return False
    seconds = "59" if match[2] == "60" else match[2]  # a leap second
    zone = "" if match[4] in "zZ" else match[4][1:]
    return _succeeds(time.fromisoformat, f"{match[1]}:{seconds}") and (
        not zone or _succeeds(time.fromisoformat, zone)
    )


def _is_date_time(text: str) -> bool:
    match = _DATE_TIME.fullmatch(text)
    return match is not None and _is_date(match[1]) and _is_time(match[2])


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _succeeds(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


_OF_TEXTS: Mapping[str, Callable[[str], object]] = {
    "date": _is_date,
    "time": _is_time,
    "date-time": _is_date_time,
    "duration": lambda text: _DURATION.fullmatch(text) and text != "P",
    "email": _MAIL.fullmatch,
    "hostname": lambda text: len(text) <= 253 and _HOST.fullmatch(text),
    "ipv4": lambda text: _succeeds(ipaddress.IPv4Address, text),
    "ipv6": lambda text: "%" not in text and _succeeds(ipaddress.IPv6Address, text),
    "uri": _URI.fullmatch,
    "uuid": _UUID.fullmatch,
    "regex": _is_pattern,
    "json-pointer": _POINTER.fullmatch,
}
_BITS = {"int32": 31, "int64": 63}
FORMATS = frozenset((*_OF_TEXTS, *_BITS, "float", "double"))


def has_format(value: object, name: str) -> bool:
    """Whether a value is of one of FORMATS. A format says nothing about values of another type."""
    if name in _OF_TEXTS:
        return not isinstance(value, str) or bool(_OF_TEXTS[name](value))
    if name in _BITS and isinstance(value, int | float) and not isinstance(value, bool):
        return value == int(value) and -(2 ** _BITS[name]) <= value < 2 ** _BITS[name]
    return True
