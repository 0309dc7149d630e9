"""The words of the report in one language, and numbers written as that language writes them.

The sentences are in page/en.json and page/de.json, flat, with {placeholders}; a test holds that both have the
same keys and placeholders. Leaves out which sentence is said when. What is not known (None, NaN) is written
as a dash.
"""

import json
import math
import re
from dataclasses import dataclass
from importlib.resources import files

LANGUAGES = ("en", "de")
DASH = "\u2013"
_THIN, _MINUS = "\u202f", "\u2212"  # narrow no-break space; the sign as long as the plus
_SUPERSCRIPTS = str.maketrans(
    "0123456789-", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b"
)


@dataclass(frozen=True, slots=True)
class Words:
    """One language: `words("key", name="x")` is a sentence, the methods are its numbers."""

    language: str
    sentences: dict[str, str]

    def __call__(self, key: str, **values: str) -> str:
        """The sentence of this key with its placeholders filled."""
        return self.sentences[key].format_map(values)

    def has(self, key: str) -> bool:
        """Whether there is a sentence for this key."""
        return key in self.sentences

    def number(self, value: float | None, digits: int = 1) -> str:
        """A number with so many decimals and grouped thousands."""
        if value is None or math.isnan(value):
            return DASH
        if math.isinf(value):
            return _MINUS * (value < 0) + "\u221e"
        text = f"{abs(value):,.{digits}f}"
        if self.language == "de":
            text = text.translate(str.maketrans(",.", ".,"))
        is_negative = value < 0 and float(f"{abs(value):.{digits}f}") != 0
        return (_MINUS if is_negative else "") + text

    def count(self, value: float | None) -> str:
        """A whole number."""
        return self.number(value, 0)

    def short(self, value: float | None) -> str:
        """A number of any size in about three digits: 0.0123, 12.3, 1,234, 3.2 x 10^14."""
        if value is None or math.isnan(value) or math.isinf(value) or value == 0:
            return self.number(value, 0)
        size = math.floor(math.log10(abs(value)))
        if -4 <= size < 6:
            return self.number(value, max(0, 2 - size))
        exponent = str(size).translate(_SUPERSCRIPTS)
        return f"{self.number(value / 10.0**size, 2)}{_THIN}\u00d7{_THIN}10{exponent}"

    def percent(self, share: float | None, digits: int = 1) -> str:
        """A share from 0 to 1 as percent."""
        return DASH if share is None or math.isnan(share) else f"{self.number(100 * share, digits)}{_THIN}%"

    def points(self, difference: float | None, digits: int = 1) -> str:
        """A difference of two shares in percentage points, with its sign; the unit is said by the
        sentence.
        """
        if difference is None or math.isnan(difference):
            return DASH
        written = self.number(100 * difference, digits)
        return written if written.startswith(_MINUS) else f"+{written}"

    def p_value(self, p: float) -> str:
        """Like p = 0.012 or p < 0.001, without the letter."""
        if math.isnan(p):
            return DASH
        return f"<{_THIN}{self.number(0.001, 3)}" if p < 0.001 else f"={_THIN}{self.number(p, 3)}"

    def duration(self, seconds: float | None) -> str:
        """Seconds as hours, minutes and seconds, the two largest that matter."""
        if seconds is None or not math.isfinite(seconds):
            return self.number(seconds)
        if seconds < 60:
            return f"{self.number(seconds, 0 if seconds >= 10 else 1)}{_THIN}s"
        whole = round(seconds)
        if whole < 3600:
            return f"{whole // 60}{_THIN}min {whole % 60:02d}{_THIN}s"
        minutes = round(seconds / 60)
        return f"{self.count(minutes // 60)}{_THIN}h {minutes % 60:02d}{_THIN}min"

    def amount(self, amount: float | None) -> str:
        """An amount of money; more digits for less than one."""
        if amount is None or not math.isfinite(amount):
            return self.number(amount)
        digits = 2 if abs(amount) >= 1 or amount == 0 else min(6, 1 - math.floor(math.log10(abs(amount))))
        return self.number(amount, digits)

    def money(self, amount: float | None, currency: str) -> str:
        """An amount with its currency."""
        return DASH if amount is None else f"{self.amount(amount)}{_THIN}{currency}"

    def moment(self, written: str) -> str:
        """A time as ISO 8601 writes it, for people."""
        return re.sub(r"T(\d\d:\d\d)(:\d\d(\.\d+)?)?(Z|\+00:00)$", r" \1 UTC", written)

    def yes(self, value: bool) -> str:
        """Yes or no."""
        return self("yes" if value else "no")


def words_of(language: str) -> Words:
    """The catalogue of a language of LANGUAGES."""
    text = (files("groschen.evals") / "page" / f"{language}.json").read_text(encoding="utf-8")
    return Words(language, json.loads(text))
