"""Answers that match a regular expression of the task's author, in whole."""

import re
from dataclasses import dataclass

from groschen.errors import BadRequest
from groschen.records import Problem, Verdict
from groschen.tasks.judging import InSlot, check_seconds, reference_text
from groschen.tasks.workers import Broke, Refused, TookTooLong, workers_of

WORKER = "groschen.tasks.pattern_worker"


@dataclass(frozen=True, kw_only=True)
class Pattern(InSlot):
    """The whole answer matches the pattern (Python's `re`); without one here, each reference is a pattern."""

    pattern: str | None = None
    ignore_case: bool = False
    seconds: float = 1.0  # for one search: some patterns take for ever with some texts

    def __post_init__(self) -> None:
        """Raises BadRequest if the pattern is none or the time is out of range."""
        super().__post_init__()
        check_seconds(self.seconds)
        if self.pattern is not None:
            _compiled(self.pattern)

    def __call__(self, problem: Problem, text: str) -> Verdict:
        """The verdict as of every kind; with an error if the worker broke."""
        try:
            return super().__call__(problem, text)
        except Broke as broken:
            return Verdict(reward=0.0, passed=False, error=f"the search broke: {broken}")

    def check(self, problem: Problem) -> None:
        """Raises BadRequest if the problem's pattern is none."""
        _compiled(self._pattern(problem))

    def refusal(self, problem: Problem, answer: str) -> str | None:
        """None if the whole answer matches."""
        job = {"pattern": self._pattern(problem), "text": answer, "ignore_case": self.ignore_case}
        try:
            why = workers_of(WORKER).judge(job, {**job, "text": ""}, self.seconds)
        except (TookTooLong, Refused) as limit:
            return str(limit)
        return None if why is None else str(why)

    def gold_answer(self, problem: Problem) -> str | None:  # noqa: ARG002
        """None: a pattern does not say what it matches; `meta["gold"]` may."""
        return None

    def wrong_answers(self, problem: Problem) -> tuple[str, ...]:  # noqa: ARG002
        """None are known; `meta["wrong"]` may have some."""
        return ()

    def _pattern(self, problem: Problem) -> str:
        return reference_text(problem) if self.pattern is None else self.pattern


def _compiled(pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadRequest(f"{pattern!r:.200} is no regular expression: {error}") from error
