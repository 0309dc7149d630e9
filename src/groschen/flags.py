"""What flags of the command line need besides a type: numbers with a range, and paths of the user's home.

A number that is out of its range, or 1.5 where a whole one is meant, is refused as wrong use before anything
is opened. Leaves out which flags there are (cli.py).
"""

import re
from collections.abc import Sequence
from pathlib import Path

from cyclopts import Parameter, Token

from groschen.errors import UsageError
from groschen.ranges import Range, Setting

_WHOLE = re.compile(r"[+-]?\d{1,40}", re.ASCII)


def within(
    *, least: float | None = None, above: float | None = None, most: float | None = None, zero: str = ""
) -> Parameter:
    """A flag whose number, int or float as the parameter says, is in a range. Raises UsageError."""
    bounds = Range(least=least, above=above, most=most, zero=zero)

    def convert(kind: type, tokens: Sequence[Token]) -> float:
        flag, text, setting = tokens[0].keyword, tokens[0].value, Setting(bounds, is_whole=kind is int)
        number = _number(text, kind)
        fault = setting.fault(text if number is None else number)
        if fault is not None or number is None:
            raise UsageError(f"{flag} {fault}")
        return number

    return Parameter(converter=convert)


def too_many(words: Sequence[str]) -> str:
    """The sentence on words that no flag takes."""
    is_setting = any("=" in word for word in words)
    advice = "each setting needs its own --set" if is_setting else "--help says what is"
    return f"{' '.join(words)} is not understood here; {advice}"


def _number(text: str, kind: type) -> float | None:
    """The number that the text is; None if it is none of this kind."""
    if _WHOLE.fullmatch(text):
        return int(text) if kind is int else float(text)
    try:
        return float(text)
    except ValueError:
        return None


def _expanded(_kind: type, tokens: Sequence[Token]) -> Path:
    try:
        return Path(tokens[0].value).expanduser()
    except RuntimeError as error:  # ~name of a user whom this machine does not know
        raise UsageError(f"{tokens[0].value}: {error}; write the whole path") from error


# A path in which ~ is the user's home: a shell leaves it as it is in --out=~/run.
PATH = Parameter(converter=_expanded)
