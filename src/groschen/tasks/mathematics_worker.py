"""The worker that compares mathematical expressions: the only file that imports math-verify.

math-verify keeps time with signals, which works in a main thread only and takes over the caller's alarm; here
its clock is off, and the parent kills a worker that is late. The order (reference, answer), which matters to
math-verify, is fixed in `_equal` alone. Facts about math-verify 0.9: docs/tasks.md.
"""

import logging
from collections.abc import Mapping
from typing import cast

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from groschen.tasks.worker_loop import serve


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
    gold = _parsed(str(job["gold"]), units)
    if "answer" not in job:
        if gold is None:
            return "math-verify reads no expression in it"
        return None if _equal(gold, gold) else "math-verify does not find it equal to itself"
    answer = _parsed(str(job["answer"]), units)
    if gold is None:
        raise ValueError("the reference is no expression")
    if answer is None:
        return "no expression"
    return None if _equal(gold, answer) else "not equal"


def _parsed(text: str, units: bool) -> object | None:
    """The expression that the text is. It stands between dollars, else only its last number would be read."""
    found = parse(f"${text}$", [_CONFIGS[units]], parsing_timeout=None)
    if len(found) < 2 or isinstance(found[0], str):
        return None  # of a failed parse only the text comes back
    return cast("object", found[0])


def _equal(gold: object, answer: object) -> bool:
    return bool(verify(gold, answer, timeout_seconds=None, raise_on_error=False))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # math-verify warns that its clock is off
    serve(judge)
