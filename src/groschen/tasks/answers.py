"""Short answers with one right value: a text, a number.

Leaves out where the answer stands (slots.py), how numbers are read (numbers.py), labels of choices
(choice.py), and what needs a process of its own: patterns, expressions, JSON and code.
"""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from groschen.errors import BadRequest
from groschen.records import Problem
from groschen.tasks.judging import InSlot, composed, reference_text
from groschen.tasks.numbers import Locale, Quantity, last_number, readings
from groschen.tasks.units import contradict

_OTHER_UNITS = ("km", "kg", "€/h")


@dataclass(frozen=True, kw_only=True)
class Exact(InSlot):
    """The answer is the reference, letter by letter; runs of white space and Unicode's ways to write the same
    letter make no difference.
    """

    ignore_case: bool = False

    def check(self, problem: Problem) -> None:
        """Raises BadRequest if the reference is no text."""
        reference_text(problem)

    def refusal(self, problem: Problem, answer: str) -> str | None:
        """None if the answer is the reference."""
        same = self._plain(answer) == self._plain(reference_text(problem))
        return None if same else "not the reference"

    def wrong_answers(self, problem: Problem) -> tuple[str, ...]:
        """Something else, and the reference with a hedge."""
        right = reference_text(problem)
        return (f"{right}x", f"{right} or something else")

    def _plain(self, text: str) -> str:
        plain = " ".join(composed(text).split())
        return plain.casefold() if self.ignore_case else plain


class Percent(StrEnum):
    """What a percent sign means."""

    SAME = "same"  # the answer has one if and only if the reference has
    IGNORE = "ignore"  # 50 % is 50
    FRACTION = "fraction"  # 50 % is 1/2


@dataclass(frozen=True, kw_only=True)
class Number(InSlot):
    """The answer is one number with the value of the reference, in this locale's notation.

    The reference is a JSON number, or a text in the notation of `reference_locale` (as `locale` if not given)
    that has one reading only. Tolerances are sizes of the allowed difference; the greater one counts.
    """

    locale: Locale = Locale.EN  # "any": it is enough that one of two readings is right
    reference_locale: Locale | None = None
    units: tuple[str, ...] = ()  # the answer must carry one of these; (): any or none but what contradicts
    percent: Percent = Percent.SAME
    relative: float = 0.0  # of the reference's size
    absolute: float = 0.0

    def __post_init__(self) -> None:
        """Raises BadRequest if a tolerance is not 0 or a positive number."""
        super().__post_init__()
        for name, value in (("relative", self.relative), ("absolute", self.absolute)):
            if not 0 <= value < float("inf"):
                raise BadRequest(f"{name} is {value}; expected 0 or a positive number")

    def check(self, problem: Problem) -> None:
        """Raises BadRequest if the reference is not one number."""
        self._reference(problem)

    def refusal(self, problem: Problem, answer: str) -> str | None:
        """None if a reading of the answer is right."""
        right = self._reference(problem)
        found = readings(answer, self.locale, self._unit_words(right))
        if not found:
            return f"not one number in the notation {self.locale.value!r}"
        if found[0].approximate and self._tolerance(right.value) == 0:
            return "an approximation, where no tolerance is set"
        whys = [self._difference(right, quantity) for quantity in found]
        return None if None in whys else whys[0]

    def lenient(self, problem: Problem, text: str, tried: str | None) -> bool:
        """Whether the answer stands anywhere, or the last number is right whatever its unit."""
        right = self._reference(problem).value
        last = last_number(text, self.locale)
        return any(self._is_near(right, found.value) for found in last) or super().lenient(
            problem, text, tried
        )

    def gold_answer(self, problem: Problem) -> str:
        """The reference's value as this locale writes it, with the first unit."""
        return self._written(self._reference(problem))

    def wrong_answers(self, problem: Problem) -> tuple[str, ...]:
        """Another number, a hedge, and the right number without its unit or with another percent sign."""
        right = self._reference(problem)
        distance = 1 + 2 * self._tolerance(right.value)
        other = Quantity(right.value + distance, right.unit, right.percent)
        answers = [self._written(other), f"{self._written(right)} or {self._written(other)}"]
        if self.units:
            answers.append(_decimal(right.value, self.locale))
        elif right.unit:
            other_unit = next(unit for unit in _OTHER_UNITS if contradict(unit, right.unit))
            answers.append(f"{_decimal(right.value, self.locale)} {other_unit}")
        if self.percent is Percent.SAME:
            answers.append(self._written(Quantity(right.value, right.unit, not right.percent)))
        return tuple(answers)

    def _reference(self, problem: Problem) -> Quantity:
        given = problem.answer
        if isinstance(given, int | float) and not isinstance(given, bool) and abs(given) < float("inf"):
            return Quantity(Fraction(str(given)))
        locale = self.reference_locale or self.locale
        found = readings(given, locale, self.units) if isinstance(given, str) else ()
        if len(found) == 1 and not found[0].approximate:
            return found[0]
        what = "can be read as two numbers" if len(found) > 1 else "is not one number"
        hint = (
            "; set reference_locale to 'en' or 'de'"
            if len(found) > 1
            else f" in the notation {locale.value!r}"
        )
        raise BadRequest(
            f"problem {problem.key!r:.200} has the reference {given!r:.200}, which {what}{hint}"
        )

    def _difference(self, right: Quantity, found: Quantity) -> str | None:
        if self.units and found.unit not in self.units:
            return f"the unit is {found.unit!r}, not {' or '.join(map(repr, self.units))}"
        if not self.units and right.unit and found.unit and contradict(right.unit, found.unit):
            return f"the unit is {found.unit!r}, not {right.unit!r}"
        if self.percent is Percent.SAME and found.percent != right.percent:
            return "with a percent sign" if found.percent else "without a percent sign"
        values = [
            one.value / 100 if one.percent and self.percent is Percent.FRACTION else one.value
            for one in (right, found)
        ]
        return None if self._is_near(*values) else "another number"

    def _unit_words(self, right: Quantity) -> frozenset[str]:
        """Words that are units here, whatever they multiply elsewhere."""
        return frozenset((*self.units, *right.unit.split()))

    def _is_near(self, right: Fraction, found: Fraction) -> bool:
        return abs(right - found) <= self._tolerance(right)

    def _tolerance(self, right: Fraction) -> Fraction:
        return max(Fraction(str(self.absolute)), Fraction(str(self.relative)) * abs(right))

    def _written(self, quantity: Quantity) -> str:
        unit = self.units[0] if self.units else ""
        words = (_decimal(quantity.value, self.locale), "%" if quantity.percent else "", unit)
        return " ".join(word for word in words if word)


def _decimal(value: Fraction, locale: Locale) -> str:
    """The value without grouping; as a fraction if its decimals do not end."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if value.denominator == 1 or rest != 1:
        return str(value)
    places = 1
    while 10**places % value.denominator:
        places += 1
    digits = str(abs(value) * 10**places).rjust(places + 1, "0")
    point = "," if locale is Locale.DE else "."
    return f"{'-' if value < 0 else ''}{digits[:-places]}{point}{digits[-places:]}"
