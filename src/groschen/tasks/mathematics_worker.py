"""The worker that compares mathematical expressions: the only file that imports math-verify.

Of math-verify's comparison, what it does with numbers is replaced: it rounds to six places behind the point,
so that 6.63e-34 is 6.63e-19. Here decimals are exact fractions. Only where the reference has no short
decimal (1/3, a root) may an answer be rounded: to six digits or more, each of them right.

math-verify keeps time with signals, which works in a main thread only and takes over the caller's alarm; here
its clock is off, and the parent kills a worker that is late. The order (reference, answer), which matters to
math-verify, is fixed in `_equal` alone. Facts about math-verify 0.9: docs/tasks.md.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any, cast

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, grader, parse, verify
from math_verify.grader import safe_sympy_doit
from sympy import Expr, Float, MatrixBase, Rational

from groschen.tasks.equations import same
from groschen.tasks.worker_loop import serve

_DIGITS = 60  # that irrational numbers are compared to
_SHORT, _LEAST_DIGITS = 12, 6
_DECIMAL = re.compile(r"([+-]?\d+)\.(\d+)(?:\\times10\^\{?([+-]?\d+)\}?)?")
_POINT = re.compile(r"\d\.\d|(?<!\d)\.\d")


def _config(units: bool) -> LatexExtractionConfig:
    """Nothing is taken out of boxes: the slot has done that. `units`: they are dropped, 50 cm is 50."""
    normalization = NormalizationConfig(
        basic_latex=True, units=units, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    return LatexExtractionConfig(boxed_match_priority=-1, normalization_config=normalization)


_CONFIGS = {units: _config(units) for units in (False, True)}


def judge(job: Mapping[str, object]) -> object:
    """Without an `answer` what is wrong with `gold`, else why the two are not equal; None if nothing."""
    units = bool(job["ignore_units"])
    gold = str(job["gold"])

    def equal(one: str, other: str) -> bool:
        return _equal(_parsed(one, units), _parsed(other, units)) or _is_rounded(
            _parsed(one, units), one, other
        )

    if "answer" not in job:
        if not same(gold, gold, lambda one, _: _parsed(one, units) is not None):
            return "math-verify reads no expression in it"
        return None if same(gold, gold, equal) else "math-verify does not find it equal to itself"
    return None if same(gold, str(job["answer"]), equal) else "not equal"


def _parsed(text: str, units: bool) -> object | None:
    """The expression that the text is. It stands between dollars, else only its last number would be read."""
    found = parse(f"${text}$", [_CONFIGS[units]], parsing_timeout=None)
    if len(found) < 2 or isinstance(found[0], str):
        return None  # of a failed parse only the text comes back
    return cast("object", _exact(found[0]))


def _exact(value: Any) -> Any:  # what SymPy has, which ships no types
    """The value with each decimal as the fraction that was written."""
    if isinstance(value, MatrixBase):
        return value.applyfunc(_exact)
    floats = (
        {number: Rational(str(number)) for number in value.atoms(Float)} if hasattr(value, "atoms") else {}
    )
    return value.xreplace(floats) if floats else value


def _equal(gold: object, answer: object) -> bool:
    if gold is None or answer is None:
        return False
    return bool(
        verify(gold, answer, timeout_seconds=None, raise_on_error=False, allow_set_relation_comp=True)
    )


def _equal_numbers(one: Any, other: Any, *_: int) -> bool:
    """In the place of math-verify's comparison with rounding: equal to 50 digits, whatever their size."""
    if isinstance(one, MatrixBase) or isinstance(other, MatrixBase):
        shapes = getattr(one, "shape", None), getattr(other, "shape", ())
        return shapes[0] == shapes[1] and all(map(_equal, one.flat(), other.flat()))
    one, other = safe_sympy_doit(one), safe_sympy_doit(other)
    if isinstance(one, Rational) and isinstance(other, Rational):
        return bool(one == other)
    if one.free_symbols or other.free_symbols:
        return False  # simplified next
    try:
        sizes = [abs(value.evalf(_DIGITS)) for value in (one, other, one - other)]
        return bool(sizes[2] <= max(sizes[:2]) * Rational(1, 10**_DIGITS) * 10**5)
    except (TypeError, AttributeError):
        return False  # sets, truth values: no numbers


def _is_rounded(gold: Any, gold_text: str, answer_text: str) -> bool:
    """Whether the answer is the reference with six digits or more, where that has no short decimal."""
    match = _DECIMAL.fullmatch(answer_text.replace(" ", ""))
    if gold is None or match is None or _POINT.search(gold_text) or not isinstance(gold, Expr):
        return False
    digits = (match[1] + match[2]).lstrip("+-0")
    exact = safe_sympy_doit(gold)
    if len(digits) < _LEAST_DIGITS or exact.free_symbols or not exact.is_real:
        return False
    if isinstance(exact, Rational) and exact == Rational(str(exact.evalf(_SHORT))):
        return False
    unit = Rational(10) ** (int(match[3] or 0) - len(match[2]))
    return bool(abs(exact - Rational(match[1] + match[2]) * unit).evalf(_DIGITS) <= unit)


grader.sympy_numeric_eq = _equal_numbers


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # math-verify warns that its clock is off
    serve(judge)
