"""Reads a plain sum such as `(8-5)*3` and computes it exactly, without `eval`.

Knows whole numbers, + - * / and round brackets; signs of numbers, powers, decimals and names are no
expressions here. Values are fractions, so 8/(3-8/3) is 24 and not almost 24.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_LENGTH = 200  # characters
MAX_DEPTH = 20  # brackets inside brackets: bounds the recursion of the reader
_TOKEN = re.compile(r"\s*(?:([0-9]{1,9})|([-+*/()]))")
# Signs that people and models write for the four operations.
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "[": "(", "]": ")"})


@dataclass(frozen=True, slots=True)
class Expression:
    """The value of an expression and the numbers in it, in the order of writing."""

    value: Fraction
    numbers: tuple[int, ...]


def read_expression(text: str) -> Expression | None:
    """The expression that the whole text is; None if it is none, is too long or too deep, or divides by 0.

    At most MAX_LENGTH characters and MAX_DEPTH brackets inside each other.
    """
    if len(text) > MAX_LENGTH:
        return None
    tokens = _tokens(text.translate(_SIGNS))
    if not tokens:
        return None
    reader = _Reader(tokens)
    try:
        value = reader.sum(0)
    except (_NoExpression, ZeroDivisionError):
        return None
    return Expression(value, tuple(reader.numbers)) if reader.place == len(tokens) else None


def _tokens(text: str) -> list[str]:
    """Numbers and signs; empty if anything else stands in the text."""
    tokens, place, text = [], 0, text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            return []
        tokens.append(match[1] or match[2])
        place = match.end()
    return tokens


class _NoExpression(Exception):
    """The tokens do not form an expression."""


class _Reader:
    """Recursive descent: a sum of products of numbers and bracketed sums, each from the left."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.place = tokens, 0
        self.numbers: list[int] = []

    def sum(self, depth: int) -> Fraction:
        value = self._product(depth)
        while (sign := self._take("+-")) is not None:
            other = self._product(depth)
            value = value + other if sign == "+" else value - other
        return value

    def _product(self, depth: int) -> Fraction:
        value = self._atom(depth)
        while (sign := self._take("*/")) is not None:
            other = self._atom(depth)
            value = value * other if sign == "*" else value / other
        return value

    def _atom(self, depth: int) -> Fraction:
        if self._take("(") is not None:
            if depth >= MAX_DEPTH:
                raise _NoExpression
            value = self.sum(depth + 1)
            if self._take(")") is None:
                raise _NoExpression
            return value
        if self.place == len(self.tokens) or not self.tokens[self.place].isdigit():
            raise _NoExpression
        number = int(self.tokens[self.place])
        self.place += 1
        self.numbers.append(number)
        return Fraction(number)

    def _take(self, signs: str) -> str | None:
        """The next token if it is one of these signs."""
        if self.place < len(self.tokens) and self.tokens[self.place] in signs:
            self.place += 1
            return self.tokens[self.place - 1]
        return None
