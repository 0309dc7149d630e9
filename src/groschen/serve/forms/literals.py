"""Calls in Python's notation and in Gemma's own, turned into JSON; nothing is evaluated.

Both know numbers, true and false and none (in Python's or JSON's spelling), strings, lists and mappings.
Python writes `name(key="text")`, Gemma `{key:<escape>text<escape>}` with a string mark of its own. Leaves out
every other expression.
"""

import json
import re
from typing import NamedTuple

from groschen.serve.forms.cursor import Malformed
from groschen.serve.forms.json_text import kind_of

_PYTHON_QUOTES = ("'''", '"""', "'", '"')
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[^\W\d]\w*")
_TOOL = re.compile(r"\w+(?:[.:/-]\w+)*")
_KEY = re.compile(r"[^\W\d][\w.-]*")
_NUMBER = re.compile(r"([-+]?)(\d*)(?:(\.)(\d*))?((?:[eE][-+]?\d+)?)(?!\w)")
_ESCAPE = re.compile(r"\\(\n|[\\'\"abfnrtv/]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3})")
_SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_PLAIN_ESCAPES = {
    "\n": "",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    **{character: character for character in "\\'\"/"},
}
_DEEPEST = 64  # brackets within brackets


class Unfinished(Malformed):
    """The text is over inside a string or a bracket: with more text it may be a call."""


class Call(NamedTuple):
    """A call as it was written; arguments: the text of a JSON object."""

    name: str
    arguments: str


def python_calls(text: str) -> list[Call]:
    """`f(a=1)`, several with commas, semicolons or line breaks between them, or a list of them.

    A call inside `print(...)` counts as itself. Raises Malformed, or Unfinished if the text breaks off.
    """
    reader = _Reader(text, _PYTHON_QUOTES)
    is_list = reader.took("[")
    calls = [reader.call()]
    while not reader.stands("]") and not reader.is_over():
        if not reader.took(",") and not reader.took(";") and not reader.is_on_a_new_line():
            raise Malformed
        if reader.is_over() or reader.stands("]"):
            break
        calls.append(reader.call())
    if is_list:
        reader.take("]")
    if not reader.is_over():
        raise Malformed
    return calls


def gemma_arguments(text: str, mark: str) -> str:
    """`{key:<escape>text<escape>,count:2}` with the string mark of the model, as the text of a JSON object.

    Raises Malformed, or Unfinished if the text breaks off.
    """
    reader = _Reader(text, (mark, *_PYTHON_QUOTES))
    reader.take("{")
    found = reader.mapping(0)
    if not reader.is_over():
        raise Malformed
    return found


class _Reader:
    """A whole text and a place in it. What it reads, it gives as JSON text."""

    def __init__(self, text: str, quotes: tuple[str, ...]) -> None:
        self._text = text
        self._at = 0
        self._quotes = quotes

    def call(self, *, may_print: bool = True) -> Call:
        name = self._pattern(_TOOL)
        self.take("(")
        if name == "print" and may_print:
            inner = self.call(may_print=False)
            self.take(")")
            return inner
        return Call(name, self._members("=", ")", 0))

    def value(self, depth: int) -> str:
        if depth > _DEEPEST:
            raise Malformed
        for quote in self._quotes:
            if self.took(quote):
                return _quoted(self._string(quote))
        if self.took("{"):
            return self.mapping(depth + 1)
        for opening, closing in ("[]", "()"):
            if self.took(opening):
                return self._list(closing, depth + 1)
        number = _NUMBER.match(self._text, self._at)
        if number is not None and number.group():
            self._at = number.end()
            return _number(*number.groups(""))
        word = self._pattern(_NAME)
        if word not in _WORDS:
            raise Malformed
        return _WORDS[word]

    def mapping(self, depth: int) -> str:
        """What follows the opening brace, with the closing one. Keys are strings or plain names."""
        return self._members(":", "}", depth)

    def _members(self, sign: str, closing: str, depth: int) -> str:
        found: dict[str, str] = {}
        while not self.took(closing):
            key = self._key() if sign == ":" else self._pattern(_NAME)
            self.take(sign)
            if key in found:
                raise Malformed
            found[key] = self.value(depth)
            self._comma_or(closing)
        return "{" + ", ".join(f"{_quoted(key)}: {value}" for key, value in found.items()) + "}"

    def _key(self) -> str:
        quote = next((quote for quote in self._quotes if self.took(quote)), None)
        return self._pattern(_KEY) if quote is None else self._string(quote)

    def _list(self, closing: str, depth: int) -> str:
        found: list[str] = []
        while not self.took(closing):
            found.append(self.value(depth))
            self._comma_or(closing)
        return "[" + ", ".join(found) + "]"

    def _comma_or(self, closing: str) -> None:
        if not self.took(",") and not self.stands(closing):
            raise Unfinished if self.is_over() else Malformed

    def _string(self, quote: str) -> str:
        """What follows the opening quote; Python's quotes have escapes, a mark of Gemma has none."""
        is_python, begin = quote in _PYTHON_QUOTES, self._at
        is_one_line = is_python and len(quote) == 1
        while not self._text.startswith(quote, self._at):
            character = self._text[self._at : self._at + 1]
            if is_one_line and character == "\n":
                raise Malformed
            self._at += 2 if is_python and character == "\\" else 1
            if self._at >= len(self._text):
                raise Unfinished
        text = self._text[begin : self._at]
        self._at += len(quote)
        return _unescaped(text) if is_python else text

    def _pattern(self, pattern: re.Pattern[str]) -> str:
        self._skip()
        found = pattern.match(self._text, self._at)
        if found is None:
            raise Unfinished if self.is_over() else Malformed
        self._at = found.end()
        return found.group()

    def take(self, text: str) -> None:
        if not self.took(text):
            raise Unfinished if self.is_over() else Malformed

    def took(self, text: str) -> bool:
        if not self.stands(text):
            return False
        self._at += len(text)
        return True

    def stands(self, text: str) -> bool:
        self._skip()
        return self._text.startswith(text, self._at)

    def is_over(self) -> bool:
        self._skip()
        return self._at == len(self._text)

    def is_on_a_new_line(self) -> bool:
        self._skip()
        return "\n" in self._text[len(self._text[: self._at].rstrip()) : self._at]

    def _skip(self) -> None:
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # matches nothing too


def _quoted(text: str) -> str:
    """As JSON; Malformed for half of a surrogate pair, which can't be sent."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Malformed from error
    return json.dumps(text, ensure_ascii=False)


def _number(sign: str, whole: str, point: str, fraction: str, exponent: str) -> str:
    """The number as it was written, but for what Python may leave out: a plus, a zero beside the point."""
    if not whole and not fraction:
        raise Malformed
    text = f"{sign.strip('+')}{whole or '0'}{point}{fraction or ('0' if point else '')}{exponent}"
    if kind_of(text) is None:
        raise Malformed
    return text


def _unescaped(text: str) -> str:
    """With Python's escapes resolved; as in Python, an unknown one stays as it is."""
    plain = _ESCAPE.sub(_escaped, text)
    return _SURROGATES.sub(_joined, plain)


def _joined(pair: re.Match[str]) -> str:
    """The character that two halves of a surrogate pair stand for."""
    return pair.group().encode("utf-16", "surrogatepass").decode("utf-16")


def _escaped(found: re.Match[str]) -> str:
    code = found.group(1)
    if code in _PLAIN_ESCAPES:
        return _PLAIN_ESCAPES[code]
    number = int(code[1:], 16) if code[0] in "xuU" else int(code, 8)
    if number > 0x10FFFF:
        raise Malformed
    return chr(number)
