"""Mathematical answers, as LaTeX or plain: equal in meaning, not in letters. math-verify decides, fenced in.

Alone it would take 10:45 for 10:30, 50 % for 50 and 6.63e-34 for 6.63e-19, and a tower of powers keeps it
busy for ever. So a reference that is a time, date, ratio, amount of money or a sentence is refused (another
kind compares these), an answer that is one fails, limits on size come first, and the comparison runs in a
worker that is killed when late. An answer that is too large, too deep or too slow is wrong, not an error: a
reference is only accepted when it can be judged by itself within the same time.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache

from groschen.errors import BadRequest
from groschen.records import Problem, Verdict
from groschen.tasks.equations import has_base_inside
from groschen.tasks.judging import InSlot, check_seconds, reference_text
from groschen.tasks.numbers import Locale
from groschen.tasks.slots import Slot
from groschen.tasks.workers import Broke, Refused, TookTooLong, workers_of

WORKER = "groschen.tasks.mathematics_worker"
MAX_LENGTH, MAX_DIGITS, MAX_DEPTH, MAX_EXPONENT, MAX_FACTORIAL = 400, 120, 20, 5000, 500

_OPENING, _CLOSING = "([{", ")]}"
_RAISED = r"(?:\^|\*\*)[\s{(+-]*"
_POWER = re.compile(rf"{_RAISED}(\d+)(?:[\s{{(]*{_RAISED}(\d+))?")
_TOWER = re.compile(rf"(?:{_RAISED}[^\s{{}}()^*+-]+[\s{{(]*){{3}}")
_FACTORIAL = re.compile(r"(\d+)[\s)}]*!")
_MANY_FACTORIALS = re.compile(r"![\s)}]*!")
_NOT_MATHEMATICS = (
    (re.compile(r"\d\s*:\s*\d"), "it is a time or a ratio"),
    (
        re.compile(r"\b(?:\d{4}-\d{1,2}-\d{1,2}|\d{1,2}\.\d{1,2}\.\d{2,4}|\d{1,2}/\d{1,2}/\d{2,4})\b"),
        "it is a date",
    ),
    (re.compile(r"[$€£¥₹]|\bUSD\b|\bEUR\b"), "it has a sign of money"),
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-zÄÖÜäöüß]{3,}")
_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log exp sqrt max min mod gcd lcm det inf "
    "infty infinity and".split()
)
_COMMAND_ARGUMENT = re.compile(r"\\(?:operatorname|mathrm|mathbb|mathbf|begin|end)\s*\{[^{}]*\}")
_ONE_TEXT = re.compile(r"\\(?:text|mathrm|textbf)\s*\{([^{}]*)\}")
_PERCENT = re.compile(r"\\?%|\\?percent\b|\bpct\b", re.IGNORECASE)
_GERMAN_GROUPS = re.compile(r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+)(?![\d.])")
_GERMAN_POINT = re.compile(r"(?<=\d),(?=\d)")


@dataclass(frozen=True, kw_only=True)
class Expression(InSlot):
    r"""The answer is an expression, equation, set or interval equal to the reference.

    A reference that is one \text{..} is compared as a text, without regard to case.
    """

    slot: Slot = Slot.BOXED
    locale: Locale = (
        Locale.EN
    )  # "de": 3,5 is 7/2, 1.000 a thousand, and a list needs semicolons; "any": both tried
    reference_locale: Locale = Locale.EN
    ignore_units: bool = False  # 6 cm is 6
    seconds: float = 5.0  # for one comparison

    def __post_init__(self) -> None:
        """Raises BadRequest if the time is out of range or the reference's notation is open."""
        super().__post_init__()
        check_seconds(self.seconds)
        if self.reference_locale is Locale.ANY:
            raise BadRequest("reference_locale is 'any'; expected 'en' or 'de': a reference means one thing")

    def __call__(self, problem: Problem, text: str) -> Verdict:
        """The verdict as of every kind; with an error if the worker broke."""
        try:
            return super().__call__(problem, text)
        except Broke as broken:
            return Verdict(reward=0.0, passed=False, error=f"the comparison broke: {broken}")

    def check(self, problem: Problem) -> None:
        """Raises BadRequest if math-verify can't read the reference or finds it unlike itself."""
        reference = self._reference(problem)
        if _ONE_TEXT.fullmatch(reference):
            return
        why = _too_large(reference) or _strange(reference) or _words(reference)
        why = why or _self_check(reference, self.ignore_units, self.seconds)
        if why is not None:
            raise BadRequest(
                f"problem {problem.key!r:.200} has the reference {reference_text(problem)!r:.200}, but "
                f"{why}; correct it, or use the kind number, choice or exact"
            )

    def refusal(self, problem: Problem, answer: str) -> str | None:
        """None if a reading of the answer is equal to the reference."""
        gold = self._reference(problem)
        text = _ONE_TEXT.fullmatch(gold)
        if text:
            given = _ONE_TEXT.fullmatch(_bare(answer))
            said = given[1] if given else _bare(answer)
            return None if _same_text(said, text[1]) else "another text"
        locales = (Locale.EN, Locale.DE) if self.locale is Locale.ANY else (self.locale,)
        whys = [
            self._difference(gold, plain) for plain in dict.fromkeys(_plain(answer, one) for one in locales)
        ]
        return None if None in whys else whys[0]

    def wrong_answers(self, problem: Problem) -> tuple[str, ...]:
        """Another text, the reference beside another answer, and what takes for ever."""
        right = reference_text(problem)
        return (f"{right} + 1", f"{right} or 77", "9^{9^{9^9}}")

    def _reference(self, problem: Problem) -> str:
        return _plain(reference_text(problem), self.reference_locale)

    def _difference(self, gold: str, answer: str) -> str | None:
        why = _too_large(answer) or _strange(answer) or (None if self.ignore_units else _words(answer))
        if why is not None:
            return why
        if len(_PERCENT.findall(gold)) != len(_PERCENT.findall(answer)):
            return "one of reference and answer has a percent sign"
        control = {"gold": gold, "ignore_units": self.ignore_units}
        try:
            found = workers_of(WORKER).judge({**control, "answer": answer}, control, self.seconds)
        except (TookTooLong, Refused) as limit:
            return str(limit)
        return None if found is None else str(found)


@lru_cache(maxsize=1 << 16)  # once for a reference, not for each of its thousand completions
def _self_check(reference: str, ignore_units: bool, seconds: float) -> str | None:
    """Why math-verify can't judge with this reference; None if it can."""
    try:
        why = workers_of(WORKER).ask({"gold": reference, "ignore_units": ignore_units}, seconds)
    except (TookTooLong, Refused) as limit:
        return str(limit)
    return None if why is None else str(why)


def _bare(text: str) -> str:
    """Without the marks of mathematics and emphasis around it."""
    bare = text.strip().strip("*").strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if len(bare) > len(opening + closing) and bare.startswith(opening) and bare.endswith(closing):
            bare = bare[len(opening) : -len(closing)].strip()
    return bare.rstrip(".")


def _plain(text: str, locale: Locale) -> str:
    """Bare, and with numbers in English notation."""
    if locale is not Locale.DE:
        return _bare(text)
    plain = _GERMAN_GROUPS.sub(lambda groups: groups[1].replace(".", ""), _bare(text))
    return _GERMAN_POINT.sub(".", plain).replace(";", ",")


def _same_text(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


def _strange(text: str) -> str | None:
    """What the text is instead of an expression; None if nothing speaks against it."""
    if has_base_inside(text):
        return "it has a number with a base inside of an expression"
    return next((what for pattern, what in _NOT_MATHEMATICS if pattern.search(text)), None)


def _words(text: str) -> str | None:
    """The first word that is no function: its letters would be multiplied, and "listen" be "silent"."""
    words = _WORD.findall(_COMMAND_ARGUMENT.sub("", _PERCENT.sub("", text)))
    found = next((word for word in words if word.lower() not in _FUNCTIONS), None)
    return None if found is None else f"it has the word {found!r}"


def _too_large(text: str) -> str | None:
    """Which limit the text breaks before anything computes with it; None if none."""
    if len(text) > MAX_LENGTH:
        return f"it has more than {MAX_LENGTH} characters"
    if sum(character.isdigit() for character in text) > MAX_DIGITS:
        return f"it has more than {MAX_DIGITS} digits"
    depth = deepest = 0
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        return f"it has more than {MAX_DEPTH} brackets inside each other"
    if _TOWER.search(text) or any(_exponent(*power) > MAX_EXPONENT for power in _POWER.findall(text)):
        return f"it has an exponent above {MAX_EXPONENT}"
    if _MANY_FACTORIALS.search(text) or any(int(n) > MAX_FACTORIAL for n in _FACTORIAL.findall(text)):
        return f"it has a factorial above {MAX_FACTORIAL}"
    return None


def _exponent(number: str, raised: str) -> float:
    """The size of an exponent such as 2 or 2^{10}, about."""
    size = math.log(max(int(number), 1)) * int(raised or "1")
    return math.exp(min(size, 700.0)) - 0.5
