"""Reads an attempt back and says what in it is true: sums, marks, and the numbers used."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from penny.traces import HIT, MISS

_SUM = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")


@dataclass(frozen=True, slots=True)
class Reading:
    """Counts over the reasoning of one attempt. A sum is `8-5=3`, a mark is the hit or miss behind it."""

    lines: int = 0  # lines of reasoning that are not empty
    malformed: int = 0  # of them, those that are no sum
    sums: int = 0
    true_sums: int = 0
    allowed_sums: int = 0  # with numbers that are there to be used
    marks: int = 0
    true_marks: int = 0
    hits: int = 0  # claims of a hit
    true_hits: int = 0  # the marked sum has the target as its value and is true and allowed
    repeated: int = 0  # tries that were made before in the same attempt
    has_reasoning: bool = False
    gave_up: bool = False  # the reasoning ended without the claim of a hit


def read_attempt(numbers: Sequence[int], target: int, text: str) -> Reading:
    """The reading of one completion."""
    if not text.startswith("<think>"):
        return Reading()
    body = text.removeprefix("<think>").split("</think>")[0]
    counts: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    first, first_text = None, ""
    for written in body.splitlines():
        if not written:
            continue
        counts["lines"] += 1
        mark = next((mark for mark in (MISS, HIT) if written.endswith(mark)), None)
        match = _SUM.fullmatch(written.removesuffix(mark or ""))
        if match is None:
            counts["malformed"] += 1
            continue
        left, sign, right, value = int(match[1]), match[2], int(match[3]), int(match[4])
        is_true = _value(left, sign, right) == value
        counts["sums"] += 1
        counts["true_sums"] += is_true
        if mark is None:
            rest = Counter(numbers)
            rest.subtract((left, right))
            is_allowed = min(rest.values()) >= 0
            first, first_text = (value, [*rest.elements()] if is_allowed else None), written
        else:
            known, rests = first or (None, None)
            is_allowed = rests is not None and Counter((left, right)) == Counter((known, *rests))
            counts["marks"] += 1
            counts["true_marks"] += (mark == HIT) == (value == target)
            counts["repeated"] += (first_text, written) in seen
            seen.add((first_text, written))
            if mark == HIT:
                counts["hits"] += 1
                counts["true_hits"] += value == target and is_true and is_allowed
        counts["allowed_sums"] += is_allowed
    return Reading(**counts, has_reasoning=True, gave_up=counts["hits"] == 0)


def _value(left: int, sign: str, right: int) -> int | None:
    if sign == "/":
        return left // right if right and left % right == 0 else None
    return {"+": left + right, "-": left - right, "*": left * right}[sign]
