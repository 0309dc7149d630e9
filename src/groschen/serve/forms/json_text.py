"""JSON while it arrives: whether the text is a JSON object so far, and where it ends (RFC 8259).

Leaves out the values themselves, except those of strings.
"""

import json
import re

from groschen.serve.forms.cursor import Cursor, Malformed, Reading

_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_SPACE = " \t\r\n"
_DIGITS, _HEX = "0123456789", "0123456789abcdefABCDEF"
_KINDS = {"{": "object", "[": "array", '"': "string", "t": "boolean", "f": "boolean", "n": "null"}
_WORDS = {"t": "rue", "f": "alse", "n": "ull"}
# (state inside a number, next character) to state
_NUMBER = {
    (state, character): after
    for state, characters, after in [
        ("minus", "0", "zero"),
        ("minus", "123456789", "integer"),
        ("integer", _DIGITS, "integer"),
        ("zero", ".", "point"),
        ("integer", ".", "point"),
        ("point", _DIGITS, "fraction"),
        ("fraction", _DIGITS, "fraction"),
        ("zero", "eE", "exponent"),
        ("integer", "eE", "exponent"),
        ("fraction", "eE", "exponent"),
        ("exponent", "+-", "exponent sign"),
        ("exponent", _DIGITS, "exponent digits"),
        ("exponent sign", _DIGITS, "exponent digits"),
        ("exponent digits", _DIGITS, "exponent digits"),
    ]
    for character in characters
}
_WITHOUT_SPACE = ("begin", "minus", "point", "exponent", "exponent sign")
_WHOLE_NUMBER = ("zero", "integer", "fraction", "exponent digits")


class JsonObject:
    """One JSON object, checked character by character.

    is_whole: its last brace was taken. is_broken: the next character can't stand where it stands.
    """

    def __init__(self) -> None:
        self.is_whole = False
        self.is_broken = False
        self._state = "begin"
        self._closers: list[str] = []  # the brackets that are still due, outermost first
        self._due = ""  # of a word such as true; of a \u escape, one character for each digit
        self._is_key = False  # the string that is open is the key of a member

    def take(self, text: str, at: int) -> int:
        """How far the text goes on as this object: the place after the last character taken."""
        while at < len(text) and not self.is_whole:
            if self._state == "string":
                at = _PLAIN.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing too
                if at == len(text):
                    break
            after = self._after(text[at])
            if after is None:
                self.is_broken = True
                break
            self._state = after
            at += 1
        return at

    def _after(self, character: str) -> str | None:
        """The state after this character; None if it can't stand here."""
        if self._state in _WHOLE_NUMBER and (self._state, character) not in _NUMBER:
            self._state = "after value"  # nothing but the next character says that a number is over
        if self._state in ("string", "escape", "hex", "word"):
            return self._inside(character)
        if (self._state, character) in _NUMBER:
            return _NUMBER[self._state, character]
        if character in _SPACE:
            return None if self._state in _WITHOUT_SPACE else self._state
        return self._between(character)

    def _inside(self, character: str) -> str | None:
        """In a string or a word, where space is not skipped."""
        if self._state == "string":
            if character == '"':
                return "colon" if self._is_key else "after value"
            return "escape" if character == "\\" else None
        if self._state == "escape":
            self._due = "0000"
            return "hex" if character == "u" else "string" if character in '"\\/bfnrt' else None
        if self._state == "hex":
            self._due = self._due[1:]
            return None if character not in _HEX else "hex" if self._due else "string"
        expected, self._due = self._due[0], self._due[1:]
        return None if character != expected else "word" if self._due else "after value"

    def _between(self, character: str) -> str | None:
        """Where brackets, commas, colons and the beginnings of values stand."""
        state = self._state
        if character in "}]":
            return self._close(character) if state in ("first key", "first value", "after value") else None
        if state == "begin":
            return self._open(character) if character == "{" else None
        if state in ("first key", "key"):
            self._is_key = True
            return "string" if character == '"' else None
        if state == "colon":
            return "value" if character == ":" else None
        if state == "after value":
            return None if character != "," else "key" if self._closers[-1] == "}" else "value"
        return self._value(character) if state in ("first value", "value") else None

    def _value(self, character: str) -> str | None:
        if character in "{[":
            return self._open(character)
        if character == '"':
            self._is_key = False
            return "string"
        if character in _WORDS:
            self._due = _WORDS[character]
            return "word"
        return "minus" if character == "-" else _NUMBER.get(("minus", character))

    def _open(self, character: str) -> str:
        self._closers.append("}" if character == "{" else "]")
        return "first key" if character == "{" else "first value"

    def _close(self, character: str) -> str | None:
        if self._closers[-1] != character:
            return None
        self._closers.pop()
        self.is_whole = not self._closers
        return "after value"


def kind_of(text: str) -> str | None:
    """The JSON type of a text that is one JSON value; None if it is none."""
    # Neither two members nor two elements are one value: what fits in both places is one.
    for inside in (f'{{"":{text}}}', f'{{"":[{text}]}}'):
        scanned = JsonObject()
        if scanned.take(inside, 0) != len(inside) or not scanned.is_whole:
            return None
    number = "number" if set(text) & set(".eE") else "integer"
    return _KINDS.get(text.strip(_SPACE)[0], number)


def read_object(cursor: Cursor) -> Reading[str]:
    """The text of the JSON object that stands here, unchanged; Malformed where it is none."""
    held, scanned = cursor.held(), JsonObject()
    while not scanned.is_whole:
        yield from cursor.peek()
        cursor.advance(scanned.take)
        if scanned.is_broken:
            raise Malformed
    return cursor.since(held)


def read_string(cursor: Cursor, longest: int | None = None) -> Reading[str]:
    """The value of the JSON string that stands here.

    longest: in characters as written; a longer one is Malformed.
    """
    held, is_escaped = cursor.held(), False
    yield from cursor.literal('"')
    while True:
        character = yield from cursor.peek()
        if character < " " or (longest is not None and cursor.held() - held > longest):
            raise Malformed
        cursor.step()
        if character == '"' and not is_escaped:
            break
        is_escaped = character == "\\" and not is_escaped
    try:
        value: str = json.loads(cursor.since(held))
        value.encode()  # half of a surrogate pair can't be sent
    except ValueError as error:
        raise Malformed from error
    return value
