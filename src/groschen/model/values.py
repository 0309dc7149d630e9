"""Read one value of a model's file: of the right type and within its range, or one sentence.

Leaves out which keys there are and what they mean.
"""

from collections.abc import Mapping
from typing import Any

from groschen.errors import BadFile

Raw = Mapping[str, Any]

_LONGEST_SHOWN = 80  # characters of a value in a sentence


def shown(value: object) -> str:
    """A value for a sentence, shortened."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def whole(raw: Raw, key: str, least: int, most: int) -> int:
    """The whole number `raw[key]`. Raises BadFile if it is missing, of another type or out of range."""
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadFile(
            f"config.json: {key!r} must be a whole number from {least:,} to {most:,}, found {shown(value)}"
        )
    return value


def real(raw: Raw, key: str, above: float, most: float) -> float:
    """The number `raw[key]`, greater than `above`. Raises BadFile as `whole`."""
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not above < value <= most:
        raise BadFile(
            f"config.json: {key!r} must be a number above {above:g} and at most {most:g}, "
            f"found {shown(value)}"
        )
    return float(value)


def flag(raw: Raw, key: str) -> bool:
    """The boolean `raw[key]`; a text such as "false" is none. Raises BadFile."""
    value = raw.get(key)
    if not isinstance(value, bool):
        raise BadFile(f"config.json: {key!r} must be true or false, found {shown(value)}")
    return value


def mapping(raw: Raw, key: str) -> dict[str, Any]:
    """A copy of the object `raw[key]`; empty if it is null or missing. Raises BadFile for another type."""
    value = raw.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise BadFile(f"config.json: {key!r} must be an object, found {shown(value)}")
    return dict(value or {})


def ids(value: object, size: int, where: str = "config.json: a token id") -> tuple[int, ...]:
    """Token ids from what config.json has for them: a number, a list of numbers or null.

    Ids outside of the vocabulary of `size` tokens are left out: published files have -1 and ids of a larger
    sibling, which no text contains. Raises BadFile for another type.
    """
    items = value if isinstance(value, list) else [] if value is None else [value]
    numbers = [item for item in items if isinstance(item, int) and not isinstance(item, bool)]
    if len(numbers) != len(items):
        raise BadFile(f"{where} must be a whole number or a list of such, found {shown(value)}")
    return tuple(number for number in numbers if 0 <= number < size)
