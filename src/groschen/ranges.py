"""Which numbers a setting takes, declared where the setting stands, and one check for all of them.

    learning_rate: Annotated[float, Range(least=0, most=10)] = 1e-6

Errors, the check of a recipe and the table in docs/training.md all come from that declaration. Leaves out
what several settings must be together.
"""

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from groschen.errors import BadRequest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The numbers between two bounds; a bound is finite, and so is every number of the range."""

    least: float | None = None
    above: float | None = None  # a bound that does not belong to the range
    most: float | None = None
    below: float | None = None
    zero: str = ""  # what 0 means, where it is allowed beside the range
    because: str = ""  # why other numbers make no sense: the end of an error message

    def holds(self, value: object) -> bool:
        """Whether the value is a number of this range; NaN, infinity, True and texts are not."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            return False
        if self.zero and value == 0:
            return True
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        low = _bound(self.least, "from {}") or _bound(self.above, "above {}")
        high = _bound(self.most, "to {}") or _bound(self.below, "to below {}")
        if self.least is not None and self.least == self.most:
            words = _bound(self.least, "{}")
        elif high and self.above is not None:
            words = f"{low}, {_bound(self.most, 'at most {}') or _bound(self.below, 'below {}')}"
        elif low and not high and self.least is not None:
            words = _bound(self.least, "{} or more")
        else:
            words = " ".join(filter(None, (low, high)))
        return f"0 ({self.zero}), or {words}" if self.zero else words


class Setting(NamedTuple):
    """One field of a dataclass that has a range."""

    range: Range
    is_whole: bool  # an int, so 1.5 is refused and 1.0 too

    def fault(self, value: object) -> str | None:
        """What is wrong with the value, for the end of a sentence that names the setting; None: nothing.

        None passes where the type allows it; of a tuple every item counts.
        """
        items = value if isinstance(value, tuple) else (value,)
        is_right = all(
            item is None or (self.range.holds(item) and not (self.is_whole and isinstance(item, float)))
            for item in items
        )
        if is_right:
            return None
        kind = "a whole number" if self.is_whole and isinstance(value, float) else ""
        because = f": {self.range.because}" if self.range.because else ""
        return f"must be {' '.join(filter(None, (kind, str(self.range))))}, found {_shown(value)}{because}"


def settings_of(cls: type) -> Mapping[str, Setting]:
    """The fields of a dataclass that have a range, by name; those of nested dataclasses are theirs."""
    hints = typing.get_type_hints(cls, include_extras=True)
    found: dict[str, Setting] = {}
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, Range):
                found[field.name] = Setting(extra, int in _numbers_in(hint))
    return found


def check_ranges(config: object, path: str = "") -> None:
    """Raises BadRequest for the first number of a dataclass, or of one in it, that is out of its range."""
    ranged = settings_of(type(config))
    for field in dataclasses.fields(typing.cast("Any", config)):
        value, place = getattr(config, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(value):
            check_ranges(value, f"{place}.")
        elif field.name in ranged and (fault := ranged[field.name].fault(value)) is not None:
            raise BadRequest(f"{place} {fault}")


def _numbers_in(hint: object) -> Iterator[object]:
    """int and float, wherever they stand in a type."""
    if hint in (int, float):
        yield hint
    for argument in typing.get_args(hint):
        yield from _numbers_in(argument)


def _is_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)


def _bound(value: float | None, words: str) -> str:
    if value is None:
        return ""
    return words.format(f"{value:,}" if isinstance(value, int) else f"{value:g}")


def _shown(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 200 else "a far larger number"
    return text if len(text) <= 60 else f"{text[:57]}..."
