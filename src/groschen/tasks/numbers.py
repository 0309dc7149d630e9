"""Reads one number out of a short text, exactly: English and German notation, fractions, units, per cent.

A text such as 1.000 is one thousand in German and one in English. `locale` decides; with "any" both readings
are given. What is not one number (41 or 42, 3 x 4, 2024-05-01) has no reading. All values are fractions, so
nothing is rounded. Leaves out numbers in words, and which reading is wanted.
"""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

MAX_LENGTH = 200  # characters of a text that is read as a number
_MAX_TAIL = 4000  # characters in which the last number of a text is looked for
_MAX_EXPONENT = 400  # of ten: keeps every value below some two thousand bits


class Locale(StrEnum):
    """Which sign separates decimals."""

    EN = "en"  # 1,000.5
    DE = "de"  # 1.000,5
    ANY = "any"  # either; a text that both could have written has two readings


@dataclass(frozen=True, slots=True)
class Quantity:
    """One reading of a text."""

    value: Fraction  # as written: of "50 %" it is 50
    unit: str = ""  # "€", "km", "Euro pro Tag"; "" if none
    percent: bool = False


_SPACES = "\u00a0\u2009\u202f"  # no-break, thin and narrow no-break space
_DIGITS = rf"(?:\d|[.,](?=\d))(?:[\d.,'’{_SPACES}]*\d)?"
_TEN = r"(?:[eE]([+-]?\d{1,4})|\s*[*×·]\s*10(?:\^|\*\*)\{?([+-]?\d{1,4})\}?)"
_SIGN = r"[+-]?"
_BODY = rf"(?:(\d+)\s+(\d+)\s*/\s*(\d+)|({_DIGITS})\s*/\s*({_DIGITS})|({_DIGITS}){_TEN}?)"
_UNIT = r"[^\W\d_]+\.?"
_CURRENCY = "$€£¥₹₽₩₺₿"
_MARK = rf"(?:[{_CURRENCY}°%‰]|[A-Z]{{3}}(?![A-Za-z]))"
_AFTER = rf"(?:%|[{_CURRENCY}]|°[CFK]?|{_UNIT}(?:[²³]|\^\{{?[23]\}}?)?(?:/{_UNIT}[²³]?)?)"
_WHOLE = re.compile(rf"({_SIGN})\s*({_MARK})?\s*({_SIGN})\s*{_BODY}\s*({_AFTER}(?:\s+{_AFTER}){{0,3}})?")
_NUMBER = re.compile(rf"(?<![\w.,])({_SIGN})(?:[{_CURRENCY}]\s*)?{_BODY}(?:\s*(%))?(?![\d])")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:([.,'’ " + _SPACES + r"])\d{3})(?:\1\d{3})*")
_ASCII_GROUPS = re.compile(r"(?<![\d.,])([1-9]\d{0,2}(?: \d{3})+)(?![\d/])(?!\s*/)")

_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1/\2"),
    (re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\\times|\\cdot"), "·"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;:!]"), "\u2009"),
    (re.compile(r"\\([%$])"), r"\1"),
    (re.compile(r"\\ |~"), " "),
    (re.compile(r"\^\\circ|\^\{\\circ\}"), "°"),
)
_MINUS = str.maketrans(dict.fromkeys("−–﹣-", "-"))
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_RAISED_TEN = re.compile(r"(?<=10)[⁻⁰¹²³⁴-⁹]+")
# Words that multiply. The long and the short scale disagree about the billion.
_SCALES: dict[str, dict[str, int]] = {
    "both": {
        "hundred": 100, "hundert": 100, "dozen": 12, "dutzend": 12, "thousand": 10**3, "tausend": 10**3,
        "tsd": 10**3, "million": 10**6, "millions": 10**6, "millionen": 10**6, "mio": 10**6,
        "milliarde": 10**9, "milliarden": 10**9, "mrd": 10**9, "billionen": 10**12,
    },
    Locale.EN: {"billion": 10**9, "billions": 10**9, "trillion": 10**12, "trillions": 10**12},
    Locale.DE: {"billion": 10**12, "trillion": 10**18, "trillionen": 10**18},
}  # fmt: skip
_PERCENT = frozenset(("%", "percent", "prozent", "pct"))
# Words that make a unit of nothing: they hedge, or they say another number.
_NO_UNIT = frozenset(
    "or and to bis oder und minus plus times mal not nicht maybe vielleicht about over point komma vs versus "
    "but aber instead sondern otherwise sonst if wenn half halb zero null one two three four five six seven "
    "eight nine ten ein eins zwei drei vier fünf sechs sieben acht neun zehn negative".split()
)


def readings(text: str, locale: Locale) -> tuple[Quantity, ...]:
    """Each number that the whole text can be read as; () if it is not one number, with or without a unit."""
    if len(text) > MAX_LENGTH:
        return ()
    match = _WHOLE.fullmatch(_plain(text))
    if match is None:
        return ()
    before_mark, mark, after_mark, *body, unit = match.groups()
    if before_mark and after_mark:
        return ()
    units = [word for word in (mark, unit) if word]
    return _quantities(before_mark or after_mark, body, " ".join(units), locale)


def last_number(text: str, locale: Locale = Locale.EN) -> tuple[Quantity, ...]:
    """The readings of the last number near the end of a text; () if there is none. Units are not read."""
    found = list(_NUMBER.finditer(_written(text[-_MAX_TAIL:])))
    if not found:
        return ()
    sign, *body, percent = found[-1].groups()
    return _quantities(sign, body, percent or "", locale)


def _quantities(sign: str | None, body: list[str | None], unit: str, locale: Locale) -> tuple[Quantity, ...]:
    """Every reading of the parts of a match of _BODY."""
    words = unit.split()
    if any(word.lower().rstrip(".") in _NO_UNIT for word in words):
        return ()
    percent = any(word.lower() in _PERCENT for word in words)
    words = [word for word in words if word.lower() not in _PERCENT]
    found = []
    for one in (Locale.EN, Locale.DE) if locale is Locale.ANY else (locale,):
        value = _value(body, one)
        rest, scale = _scaled(words, one)
        if value is not None:
            signed = -value if sign == "-" else value
            found.append(Quantity(signed * scale, " ".join(rest), percent))
    return tuple(dict.fromkeys(found))


def _value(body: list[str | None], locale: Locale) -> Fraction | None:
    whole, above, below, numerator, denominator, decimal, *exponents = body
    if whole and above and below:  # 1 1/2
        return int(whole) + Fraction(int(above), int(below)) if int(below) else None
    if numerator and denominator:
        parts = _decimal(numerator, locale), _decimal(denominator, locale)
        return parts[0] / parts[1] if parts[0] is not None and parts[1] else None
    value = _decimal(decimal or "", locale)
    exponent = int(next((part for part in exponents if part), "0"))
    if value is None or abs(exponent) > _MAX_EXPONENT:
        return None
    return value * Fraction(10) ** exponent


def _decimal(written: str, locale: Locale) -> Fraction | None:
    """The value of digits and separators; None if this locale does not write so."""
    point = "." if locale is Locale.EN else ","
    whole, *decimals = written.split(point)
    if len(decimals) > 1 or not all(digits.isdecimal() for digits in decimals):
        return None
    grouped = _GROUPED.fullmatch(whole)
    if grouped and grouped[1] != point:
        whole = re.sub(r"\D", "", whole)
    if whole and not whole.isdecimal():
        return None
    return Fraction(f"{whole or '0'}.{decimals[0]}") if decimals else Fraction(int(whole))


def _scaled(words: list[str], locale: Locale) -> tuple[list[str], int]:
    """The unit without the words that multiply, and their product."""
    rest, scale = [], 1
    for word in words:
        plain = word.lower().rstrip(".")
        factor = _SCALES["both"].get(plain) or _SCALES[locale].get(plain)
        if factor is None:
            rest.append(word)
        else:
            scale *= factor
    return rest, scale


def _plain(text: str) -> str:
    """A slot's text without decoration: marks of mathematics and emphasis around it, a full stop after it."""
    plain = text.strip()
    if len(plain) > 2 and plain[0] == plain[-1] == "$":
        plain = plain[1:-1]
    plain = plain.removeprefix("\\(").removesuffix("\\)").strip("*`_ \n\t")
    plain = _ASCII_GROUPS.sub(lambda groups: groups[1].replace(" ", "\u2009"), _written(plain))
    return re.sub(r"(?<=[\d%\w])\.$", "", plain.strip())


def _written(text: str) -> str:
    """One sign for each meaning: LaTeX, minus signs, raised digits and fractions in one character."""
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    text = _RAISED_TEN.sub(lambda raised: "^" + raised[0].translate(_RAISED), text.translate(_MINUS))
    return "".join(_vulgar(character) for character in text)


def _vulgar(character: str) -> str:
    """½ as " 1/2"; any other character as it is."""
    if unicodedata.category(character) != "No" or "⁄" not in (
        parts := unicodedata.normalize("NFKC", character)
    ):
        return character
    return " " + parts.replace("⁄", "/")
