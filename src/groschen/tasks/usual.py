"""Gold and wrong completions for a task whose author wrote none, from the reference in `answer`.

If no usual way of writing a short reference gets past the verifier, the verifier is broken: the first way is
given as gold then, and check.py refuses the task. Leaves out references that are no short texts or numbers:
for these nothing is known.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from groschen.records import Problem
from groschen.tasks.foreign import verdict_of
from groschen.tasks.task import Verify

WAYS = ("{}", "<answer>{}</answer>", "\\boxed{{{}}}", "#### {}", "The answer is {}.")


@dataclass(frozen=True, slots=True)
class UsualAnswers:
    """Completions for the problems of one task: its verifier, and all its short references."""

    verify: Verify
    references: tuple[str, ...]  # each once, in order of the problems

    def gold(self, problem: Problem) -> str | None:
        """The first usual way of writing the reference that passes, else the first; None without one."""
        reference = short(problem)
        if reference is None:
            return None
        return self._way(problem).format(reference)

    def wrong(self, problem: Problem) -> tuple[str, ...]:
        """What passes as gold, with the reference of another problem in the place of its own."""
        reference = short(problem)
        if reference is None:
            return ()
        other = next((text for text in self.references if _bare(text) != _bare(reference)), None)
        return () if other is None else (self._way(problem).format(other),)

    def _way(self, problem: Problem) -> str:
        reference = short(problem)
        return next((way for way in WAYS if self._passes(problem, way.format(reference))), WAYS[0])

    def _passes(self, problem: Problem, text: str) -> bool:
        verdict = verdict_of(self.verify, problem, text)
        return verdict.error is None and verdict.passed


def usual_answers(problems: Iterable[Problem], verify: Verify) -> UsualAnswers:
    """The usual answers of a task with these problems."""
    texts = [text for problem in problems if (text := short(problem)) is not None]
    return UsualAnswers(verify, tuple(dict.fromkeys(texts)))


def short(problem: Problem) -> str | None:
    """The reference as a short text: a number, or a text on one line; else None."""
    answer = problem.answer
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        return None
    text = str(answer).strip()
    return text if text and "\n" not in text else None


def _bare(text: str) -> str:
    return "".join(text.split()).casefold()
