"""How a model would write an answer whose key was made by a program.

A gold completion is made from the key, so it passes whatever the key holds: 17 digits of a computed number,
signs that nobody sees, the escapes of a web page. No model writes these, so no answer would ever be right.
"""

import html
import re
import unicodedata
from decimal import Context, Decimal

DIGITS = 12  # that a model may be expected to give of a number
_LONG = re.compile(r"(?<![\w.])\d+\.\d{10,}(?![\w.])")
_TYPOGRAPHIC = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u2010": "-",
     "\u2011": "-", "\u2013": "-", "\u2026": "...", "\u00a0": " ", "\u202f": " ", "\u2009": " "}
)  # fmt: skip
_SOLUTION_MARK = "####"


def as_models_write(gold: str, answer: object) -> str | None:
    """A gold completion in a model's spelling; None if that is the same, or if it is code.

    Of a solution that ends with #### and a result (GSM8K's), a model's answer is the result.
    """
    if "```" in gold:
        return None
    written = gold
    for change in (_rounded, _visible, html.unescape, lambda text: text.translate(_TYPOGRAPHIC)):
        written = change(written)
    if isinstance(answer, str) and _SOLUTION_MARK in answer and answer.strip() in gold:
        written = gold.replace(answer.strip(), answer.rsplit(_SOLUTION_MARK, 1)[1].strip())
    return None if written == gold else written


def _rounded(text: str) -> str:
    return _LONG.sub(lambda number: _short(number[0]), text)


def _short(number: str) -> str:
    value = Decimal(number)
    if len(value.as_tuple().digits) <= DIGITS:
        return number
    short = format(Context(prec=DIGITS).plus(value), "f")
    return short.rstrip("0").rstrip(".") if "." in short else short


def _visible(text: str) -> str:
    return "".join(character for character in text if unicodedata.category(character) != "Cf")
