"""What every verifier can do, and the common course of those that look for one answer in one slot.

Leaves out how an answer is compared: that is one method, `refusal`, of each kind.
"""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from groschen.errors import BadRequest
from groschen.records import Problem, Verdict
from groschen.tasks.slots import Slot, anywhere, fill, strict

MAX_SECONDS = 3600.0  # of one check: what takes longer is no check of a text
_MAX_MARKS = 30
NO_SLOT = "no answer stands where it was asked for"
Parts = Mapping[str, float | bool | str | None]


class Verifier(Protocol):
    """Judges completions of problems, and knows texts that it must pass and must fail."""

    def __call__(self, problem: Problem, text: str) -> Verdict:
        """The verdict on `text` as a completion of `problem`. Raises BadRequest where `check` would."""

    def check(self, problem: Problem) -> None:
        """Raises BadRequest if nothing can be judged with the reference of this problem."""

    def gold(self, problem: Problem) -> str | None:
        """A completion that must pass; None if none is known."""

    def wrong(self, problem: Problem) -> tuple[str, ...]:
        """Completions that must fail."""


@dataclass(frozen=True, kw_only=True)
class InSlot:
    """A verifier of one answer in one slot. A kind of answer says in `refusal` what is wrong with it.

    The reward is 1 for a passed answer, and `format_reward` more for anything that stands in the slot.
    """

    slot: Slot = Slot.ANSWER
    format_reward: float = 0.0

    def __post_init__(self) -> None:
        """Raises BadRequest if the reward is no finite number."""
        if not math.isfinite(self.format_reward):
            raise BadRequest(f"format_reward is {self.format_reward}; expected a finite number")

    def __call__(self, problem: Problem, text: str) -> Verdict:
        """The verdict: parts are format, lenient, answer (the text found) and why (what was wrong)."""
        self.check(problem)
        found = strict(text, self.slot)
        why = NO_SLOT if found is None else self.refusal(problem, found)
        passed = why is None
        return Verdict(
            reward=float(passed) + self.format_reward * (found is not None),
            passed=passed,
            parts={
                "format": found is not None,
                "lenient": passed or self.lenient(problem, text, tried=found),
                "answer": found,
                "why": why,
            },
        )

    def check(self, problem: Problem) -> None:
        """Raises BadRequest if nothing can be judged with the reference of this problem."""
        raise NotImplementedError

    def refusal(self, problem: Problem, answer: str) -> str | None:
        """Why this answer is not right; None if it is."""
        raise NotImplementedError

    def lenient(self, problem: Problem, text: str, tried: str | None) -> bool:
        """Whether a right answer stands where a person would look for it; `tried` is not right."""
        places = dict.fromkeys(place for place in anywhere(text) if place != tried)
        return any(self.refusal(problem, place) is None for place in places)

    def gold(self, problem: Problem) -> str | None:
        """The slot filled with `meta["gold"]` if the problem has one, else with the reference."""
        right = problem.meta.get("gold", self.gold_answer(problem))
        return fill(right, self.slot) if isinstance(right, str) else None

    def gold_answer(self, problem: Problem) -> str | None:
        """An answer that is right; None if none is known."""
        return reference_text(problem)

    def wrong(self, problem: Problem) -> tuple[str, ...]:
        """An empty slot, no slot, what the kind knows to be wrong, and the texts in `meta["wrong"]`."""
        answers = [*self.wrong_answers(problem), *texts_of(problem, "wrong")]
        right = self.gold_answer(problem)
        unmarked = (right,) if right and self.slot in (Slot.ANSWER, Slot.BOXED, Slot.HASHES) else ()
        return ("", fill("", self.slot), *unmarked, *(fill(answer, self.slot) for answer in answers))

    def wrong_answers(self, problem: Problem) -> tuple[str, ...]:
        """Answers that are wrong."""
        raise NotImplementedError


def check_seconds(seconds: float, least: float = 0.01) -> None:
    """Raises BadRequest if a limit of time is not between `least` and MAX_SECONDS."""
    if not least <= seconds <= MAX_SECONDS:
        raise BadRequest(f"seconds is {seconds}; expected {least:g} to {MAX_SECONDS:g}")


def reference_text(problem: Problem) -> str:
    """The reference as the text that it is. Raises BadRequest if it is none or has no characters."""
    if not isinstance(problem.answer, str) or not problem.answer.strip():
        raise BadRequest(f"problem {problem.key!r} has the reference {problem.answer!r}; expected a text")
    return problem.answer.strip()


def composed(text: str) -> str:
    """The text in Unicode's composed form (NFC); as it is if it has more than 30 marks on one letter.

    No writing has so many (UAX 15, stream-safe text), and normalizing takes quadratic time in their number.
    """
    if text.isascii():
        return text
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > _MAX_MARKS:
            return text
    return unicodedata.normalize("NFC", text)


def texts_of(problem: Problem, name: str) -> tuple[str, ...]:
    """The texts that the problem's author put under this name of `meta`."""
    given = problem.meta.get(name, ())
    if isinstance(given, list | tuple) and all(isinstance(text, str) for text in given):
        return tuple(given)
    raise BadRequest(f"problem {problem.key!r} has {given!r} as meta[{name!r}]; expected a list of texts")
