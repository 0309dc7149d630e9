"""What a task is: problems in three splits, a verifier, and answers to test the verifier with.

Leaves out where tasks come from (load.py), how problems are split (splits.py) and how a verifier is tried
(check.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from groschen import clock
from groschen.errors import BadRequest
from groschen.records import Problem, Split, Verdict
from groschen.tasks.foreign import verdict_of
from groschen.tasks.splits import Shares


class Verify(Protocol):
    """A verifier: the verdict on one completion's text. It may raise; `judge` makes an error of that."""

    def __call__(self, problem: Problem, text: str) -> Verdict:
        """The verdict on `text` as a completion of `problem`."""


def no_gold(problem: Problem) -> str | None:  # noqa: ARG001 - one signature for all
    """The `gold` of a task that knows no completion that must pass."""
    return None


def no_wrong(problem: Problem) -> tuple[str, ...]:  # noqa: ARG001 - one signature for all
    """The `wrong` of a task that knows no completions that must fail."""
    return ()


def as_it_is(problem: Problem) -> Problem:
    """The `complete` of a task that adds nothing to its problems."""
    return problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A task as its source gives it: not yet checked and not yet split."""

    name: str
    digest: str  # SHA-256 in hex over all that decides problems and verdicts: source files, or settings
    problems: tuple[Problem, ...]
    verify: Verify
    gold: Callable[[Problem], str | None] = no_gold
    wrong: Callable[[Problem], tuple[str, ...]] = no_wrong
    instructions: tuple[str, ...] = ()
    shares: Shares = field(default_factory=Shares)  # of the problems whose author named no split
    # Added to each problem after splitting, such as an instruction: another wording then moves no problem.
    complete: Callable[[Problem], Problem] = as_it_is
    notes: tuple[str, ...] = ()  # sentences that people should read before they trust the task
    is_foreign: bool = False  # code that is not groschen's own made it: it may make another one next time


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task that can be trained on and evaluated with."""

    name: str
    digest: str  # SHA-256 in hex over all that decides problems and verdicts: source files, or settings
    problems: Mapping[Split, tuple[Problem, ...]]  # every split is there; one that the author left out is ()
    verify: Verify
    gold: Callable[[Problem], str | None] = no_gold  # a completion that must pass; None: none is known
    wrong: Callable[[Problem], tuple[str, ...]] = no_wrong  # completions that must fail
    # Wordings that may be appended to the last user message, to find the base's best prompt. The messages as
    # they are, are always a candidate.
    instructions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # sentences that people should read before they trust the task
    # The problems as a fresh process makes them; None where nothing but groschen's own code makes them.
    made_again: "Callable[[], Mapping[Split, tuple[Problem, ...]]] | None" = None

    def of(self, split: Split) -> tuple[Problem, ...]:
        """The problems of a split. Raises BadRequest if there are none."""
        problems = self.problems[split]
        if not problems:
            others = ", ".join(f"{len(self.problems[other])} in {other}" for other in Split)
            raise BadRequest(f"task {self.name} has no problems in the split {split} ({others})")
        return problems


def judge(task: Task, problem: Problem, text: str) -> Verdict:
    """The verdict on one completion, with its seconds; one with an error if the verifier breaks."""
    start = clock.seconds()
    verdict = verdict_of(task.verify, problem, text)
    return replace(verdict, seconds=clock.seconds() - start)


def with_instruction(problem: Problem, instruction: str) -> Problem:
    """The problem with a wording appended to its last user message, after an empty line.

    Raises BadRequest if it has no user message whose content is a text.
    """
    messages = list(problem.messages)
    for index in reversed(range(len(messages))):
        content = messages[index].get("content")
        if messages[index].get("role") == "user" and isinstance(content, str):
            messages[index] = {**messages[index], "content": f"{content}\n\n{instruction}"}
            return replace(problem, messages=tuple(messages))
    raise BadRequest(
        f"problem {problem.key!r} has no user message with a text, "
        f"so the instruction {instruction!r} has no place"
    )
