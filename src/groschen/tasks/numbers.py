"""Reads one number out of a short text, exactly: English and German notation, fractions, units, per cent.

A text such as 1.000 is one thousand in German and one in English. `locale` decides; with "any" both readings
are given. What is not one number (41 or 42, 3 x 4, 2024-05-01) has no reading. All values are fractions, so
nothing is rounded. Leaves out numbers in words, and which reading is wanted.
"""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction

from groschen.tasks.units import CURRENCIES, factor, split_currency

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
    approximate: bool = False  # "about 50"


_SPACES = "\u00a0\u2009\u202f"  # no-break, thin and narrow no-break space
_DIGITS = rf"(?:\d|[.,](?=\d))(?:[\d.,'’{_SPACES}]*\d)?"
_TEN = r"(?:[eE]([+-]?\d{1,4})|\s*[*×·]\s*10(?:\^|\*\*)\{?([+-]?\d{1,4})\}?)"
_SIGN = r"[+-]?"
_BODY = rf"(?:(\d+)\s+(\d+)\s*/\s*(\d+)|({_DIGITS})\s*/\s*({_DIGITS})|({_DIGITS}){_TEN}?)"
_UNIT = r"[^\W\d_]+\.?"
_CURRENCY = "$€£¥₹₽₩₺₿"
_CODES = "|".join(code for code in sorted(CURRENCIES) if code.isalpha() and code.isupper())
_MARK = rf"(?:[A-Z]{{0,2}}\$|[{_CURRENCY}%]|(?:{_CODES})(?![A-Za-z]))"
_AFTER = (
    rf"(?:%|[A-Z]{{0,2}}[{_CURRENCY}](?:/{_UNIT})?|°[CFK]?"
    rf"|{_UNIT}(?:[²³{_CURRENCY}]|\^\{{?[23]\}}?)?(?:/{_UNIT}[²³]?)?)"
)
_WHOLE = re.compile(rf"({_SIGN})\s*({_MARK})?\s*({_SIGN})\s*{_BODY}\s*({_AFTER}(?:\s+{_AFTER}){{0,3}})?")
_NUMBER = re.compile(rf"(?<![\w.,])({_SIGN})(?:[{_CURRENCY}]\s*)?{_BODY}(?:\s*(%))?(?![\d])")
_NEXT_WORD = re.compile(r"\s?([^\W\d_]+\.?)(?!\w)")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:([.,'’ " + _SPACES + r"])\d{3})(?:\1\d{3})*")
_ASCII_GROUPS = re.compile(r"(?<![\d.,])([1-9]\d{0,2}(?: \d{3})+)(?![\d/])(?!\s*/)")

_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1/\2"),
    (re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\\times|\\cdot"), "·"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;:!]"), "\u2009"),
    (re.compile(r"\\([%$])"), r"\1"),
    (re.compile(r"\\ |(?<=[\d}.])~(?=[\\A-Za-z€$%])"), " "),  # a tie; before a number ~ means about
    (re.compile(r"\^\\circ|\^\{\\circ\}"), "°"),
)
_MINUS = str.maketrans(dict.fromkeys("−–﹣-", "-"))
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_RAISED_TEN = re.compile(r"(?<=10)[⁻⁰¹²³⁴-⁹]+")
_PERCENT = frozenset(("%", "percent", "prozent", "pct"))
# Words that make a unit of nothing: they hedge, say another number, or turn the number into a sentence.
_NO_UNIT = frozenset(
    "or and to bis oder und minus plus mal not nicht maybe vielleicht about over point komma vs versus "
    "but aber instead sondern otherwise sonst if wenn half halb zero null one two three four five six "
    "seven eight nine ten ein eins zwei drei vier fünf sechs sieben acht neun zehn negative approx "
    "approximately ca circa zirka ungefähr etwa roughly ish at least mindestens höchstens is are was were "
    "ist sind war wäre would could should wrong incorrect false falsch squared cubed factorial modulo mod "
    "remainder rounded gerundet".split()
)
_ABOUT = re.compile(
    r"(?:[~≈≃≅∼≐]|\\approx|\\sim(?:eq)?|(?:about|approximately|approx|around|roughly|nearly|almost|circa|zirka|ca|"
    r"etwa|ungefähr|rund|fast|knapp)\b\.?)\s*",
    re.IGNORECASE,
)


def readings(text: str, locale: Locale, units: Collection[str] = ()) -> tuple[Quantity, ...]:
    """Each number that the whole text can be read as; () if it is not one number, with or without a unit.

    units: words that are units here also where they could multiply, such as K (Kelvin) or TEUR.
    """
    if len(text) > MAX_LENGTH:
        return ()
    plain = _plain(text)
    about = _ABOUT.match(plain)
    match = _WHOLE.fullmatch(plain[about.end() :] if about else plain)
    if match is None:
        return ()
    before_mark, mark, after_mark, *body, unit = match.groups()
    if before_mark and after_mark:
        return ()
    attached = unit is not None and not match.string[match.start(match.re.groups) - 1].isspace()
    words = [word for part in (mark, unit) if part for word in part.split()]
    found = _quantities(before_mark or after_mark, body, words, locale, frozenset(units), attached=attached)
    return tuple(replace(one, approximate=True) for one in found) if about else found


def last_number(text: str, locale: Locale = Locale.EN) -> tuple[Quantity, ...]:
    """The readings of the last number near the end of a text; () if there is none. Units are not read, but
    words that multiply are.
    """
    written = _written(text[-_MAX_TAIL:])
    found = list(_NUMBER.finditer(written))
    if not found:
        return ()
    sign, *body, percent = found[-1].groups()
    word = _NEXT_WORD.match(written, found[-1].end())
    attached = word is not None and word.start(1) == found[-1].end()
    scales = word is not None and factor(word[1], german=locale is Locale.DE, attached=attached, money=False)
    words = [part for part in (percent, word[1] if word and scales else None) if part]
    return _quantities(sign, body, words, locale, frozenset(), attached=attached)


def _quantities(
    sign: str | None,
    body: list[str | None],
    words: list[str],
    locale: Locale,
    units: frozenset[str],
    *,
    attached: bool,
) -> tuple[Quantity, ...]:
    """Every reading of the parts of a match of _BODY."""
    if any(word.lower().rstrip(".") in _NO_UNIT for word in words):
        return ()
    percent = any(word.lower() in _PERCENT for word in words)
    words = [word for word in words if word.lower() not in _PERCENT]
    found = []
    for one in (Locale.EN, Locale.DE) if locale is Locale.ANY else (locale,):
        value = _value(body, one)
        rest, scale = _scaled(words, units, german=one is Locale.DE, attached=attached)
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


def _scaled(
    words: list[str], units: frozenset[str], *, german: bool, attached: bool
) -> tuple[list[str], Fraction]:
    """The unit without the words that multiply, and their product."""
    parts = [part for word in words for part in ((word,) if word in units else split_currency(word))]
    money = any(part in CURRENCIES for part in parts)
    rest, scale = [], Fraction(1)
    for part in parts:
        times = None if part in units else factor(part, german=german, attached=attached, money=money)
        if times is None:
            rest.append(part)
        else:
            scale *= Fraction(*times)
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
