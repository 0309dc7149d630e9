r"""What surrounds the expressions of a mathematical answer: lists, sets, tuples, chains of equations, bases.

Looks at the text, because these are lost when it is read as an expression: (1, 2) becomes an interval, 1, 2
a set, 101_2 a hundred and one, and of 43 = 42 the last side counts. Leaves out whether two expressions are
equal (mathematics_worker.py).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Same = Callable[[str, str], bool]

_SIZES = re.compile(r"\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?)(?=[\s()\[\]{}|\\.])\s*")
_OR = re.compile(r"\\text\s*\{\s*(?:or|and|oder|und)\s*\}|(?<![A-Za-z\\])(?:or|and|oder|und)(?![A-Za-z])")
_E_NOTATION = re.compile(r"(?<![A-Za-z\\_])(\d+(?:\.\d+)?)[eE]([+-]?\d+)(?![A-Za-z\d.])")
_RELATION = re.compile(r"[<>≤≥≠∈]|\\(?:leq?|geq?|neq?|in|lt|gt|not|cup|cap|subset)(?![A-Za-z])")
_EQUALS = re.compile(r"(?<![<>!:\\])=(?!=)")
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])|±")
_REPEATING = re.compile(r"(?<![\w.])(\d+)\.(\d*)\\(?:overline|bar)\s*\{(\d+)\}")
_BASED = re.compile(r"([0-9A-F]*[0-9][0-9A-F]*)\s*_\s*(?:\{\s*(\d+)\s*\}|(\d))")
_INDEX = re.compile(r"_\s*(?:\{[^{}]*\}|\w)")
_ARGUMENTS = re.compile(r"(?<=[A-Za-z'}])\s*\([^()]*\)")
_NO_NAME = re.compile(
    r"[\d+*/^!<>-]|\\(?:d?frac|sqrt|cdot|times|div|pm|mp|pi|sin|cos|tan|cot|sec|csc|arc\w+|log|ln|exp|sum|int|prod|"
    r"lim|binom|infty|max|min|gcd|lcm|det)(?![A-Za-z])"
)


@dataclass(frozen=True, slots=True)
class _List:
    """Some expressions, and what encloses them: "(", "{", or "" for nothing."""

    bracket: str
    parts: tuple[str, ...]


def same(gold: str, answer: str, equal: Same) -> bool:
    """Whether an answer says what the reference says; `equal` compares two expressions or relations.

    A set or a list has no order, a tuple has; brackets may be left out, not changed. A chain of equations
    must hold in whole, but for a lone name at its start or end. A number in a base is compared by digits and
    base.
    """
    return _same(_plain(gold), _plain(answer), equal)


def has_base_inside(text: str) -> bool:
    """Whether an expression has a number with a base that is not all of it: these are not calculated with."""
    plain = _plain(text)
    return _BASED.search(plain) is not None and _BASED.fullmatch(plain) is None


def _same(gold: str, answer: str, equal: Same) -> bool:
    left, right = _list(gold), _list(answer)
    if left is not None and right is not None:
        return _same_lists(left, right, equal)
    if left is None and right is None:
        return _same_chains(gold, answer, equal)
    return (_RELATION.search(gold) or _RELATION.search(answer)) is not None and equal(gold, answer)


def _same_lists(gold: _List, answer: _List, equal: Same) -> bool:
    if len(gold.parts) != len(answer.parts) or {gold.bracket, answer.bracket} == {"(", "{"}:
        return False
    if "(" in (gold.bracket, answer.bracket):
        return all(_same(one, other, equal) for one, other in zip(gold.parts, answer.parts, strict=True))
    left = list(answer.parts)
    for one in gold.parts:
        found = next((at for at, other in enumerate(left) if _same(one, other, equal)), None)
        if found is None:
            return False
        del left[found]
    return True


def _same_chains(gold: str, answer: str, equal: Same) -> bool:
    if _RELATION.search(gold) or _RELATION.search(answer):
        return equal(gold, answer)
    wanted_name, wanted = _chain(gold)
    name, sides = _chain(answer)
    if len(wanted) > 1:  # an equation between two expressions
        return equal(gold, answer) if len(sides) > 1 or name is not None else False
    if wanted_name is not None and name is None and len(sides) > 1 and equal(gold, answer):
        return True  # y = 2x + 3 as y - 2x = 3
    if wanted_name is not None and name is not None and wanted_name != name:
        return equal(gold, answer)
    return all(_same_number(wanted[0], side, equal) for side in sides)


def _same_number(gold: str, answer: str, equal: Same) -> bool:
    left, right = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    if left is None and right is None:
        return equal(gold, answer)
    base = (left[2] or left[3]) if left else "10"
    other = (right[2] or right[3]) if right else base if left else "10"
    digits = [
        (match[1] if match else text).strip().lstrip("0") for match, text in ((left, gold), (right, answer))
    ]
    return base == other and digits[0] == digits[1]


def _chain(text: str) -> tuple[str | None, Sequence[str]]:
    """The lone name that starts or ends a chain of equations, if any, and its other sides."""
    sides = [side.strip() for side in _split(text, _EQUALS)]
    if len(sides) > 1 and _is_name(sides[0]):
        return _bare_name(sides[0]), sides[1:]
    if len(sides) > 1 and _is_name(sides[-1]):
        return _bare_name(sides[-1]), sides[:-1]
    return None, sides


def _is_name(side: str) -> bool:
    bare = _ARGUMENTS.sub("", _INDEX.sub("", side))
    return any(map(str.isalpha, bare)) and _NO_NAME.search(bare) is None and len(side) <= 40


def _bare_name(side: str) -> str:
    return "".join(side.split()).replace("{", "").replace("}", "")


def _list(text: str) -> _List | None:
    """The parts of a list of two or more, or of a set of one or more; None if the text is no list."""
    bracket, inside = "", text
    if text.startswith("\\{") and text.endswith("\\}") and _encloses(text[1:-2] + "}"):
        bracket, inside = "{", text[2:-2]
    elif text.startswith("(") and text.endswith(")") and _encloses(text):
        bracket, inside = "(", text[1:-1]
    comma = re.compile(",") if bracket else re.compile(r",(?!(?<=\d,)\d{3}(?!\d))|;")
    texts = _split(inside, comma)
    if bracket != "(":
        texts = [sign for text in texts for sign in _both_signs(text)]
    parts = tuple(text.strip() for text in texts)
    if len(parts) < 2 and bracket != "{":
        return None
    return _List(bracket, parts) if all(parts) else None


def _both_signs(part: str) -> tuple[str, ...]:
    """What a plus or minus stands for; the part itself where there is none, or more than one."""
    if len(_PLUS_MINUS.findall(part)) != 1:
        return (part,)
    return _PLUS_MINUS.sub("+", part), _PLUS_MINUS.sub("-", part)


def _encloses(text: str) -> bool:
    """Whether the first bracket is closed by the last character."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return at == len(text) - 1
    return False


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """The text between separators that stand in no bracket."""
    depth, last, parts = 0, 0, []
    cuts = {match.start(): match.end() for match in separator.finditer(text)}
    for at, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and at in cuts:
            parts.append(text[last:at])
            last = cuts[at]
    return [*parts, text[last:]]


def _plain(text: str) -> str:
    plain = _OR.sub(",", _SIZES.sub("", text)).replace("\\,", "").replace("\\!", "").replace("\\;", " ")
    plain = _REPEATING.sub(_fraction, plain)
    return _E_NOTATION.sub(r"\1 \\times 10^{\2}", plain).strip()


def _fraction(repeating: re.Match[str]) -> str:
    r"""0.1\overline{6} as a fraction."""
    whole, fixed, repeated = repeating.groups()
    value = int(whole + fixed + repeated) - int(whole + fixed)
    return rf"\frac{{{value}}}{{{10 ** len(fixed) * (10 ** len(repeated) - 1)}}}"
