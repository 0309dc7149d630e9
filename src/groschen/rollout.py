"""Problems through the engine and the verifier: the one way in which training and evaluation sample.

Leaves out what becomes of the groups. A completion that was cut by length is not shown to the verifier: it
has not ended, so it has not passed.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from groschen.engine.engine import Engine
from groschen.engine.noise import mix
from groschen.errors import DoesNotFit
from groschen.ledger import Span
from groschen.model.config import ModelConfig
from groschen.model.flops import forward_flops
from groschen.records import (
    Completion,
    FinishReason,
    Group,
    Problem,
    Request,
    Rollout,
    SamplingParams,
    Verdict,
)
from groschen.tasks.task import Task, judge
from groschen.text.bundle import Text

TRUNCATED = Verdict(reward=0.0, passed=False, parts={"format": False, "lenient": False, "truncated": True})


class Journal(Protocol):
    """What is on the disk already of the same rollouts, and where new ones go at once. A verdict is kept
    because a verifier's time limit is the one thing that a replay cannot repeat.
    """

    def completions(self) -> Mapping[tuple[str, int], Completion]:
        """(key of the problem, sample) to completion."""

    def verdicts(self) -> Mapping[tuple[str, int], Verdict]:
        """(key of the problem, sample) to verdict."""

    def write_completion(self, key: str, completion: Completion) -> None:
        """Keep a completion that has ended."""

    def write_verdict(self, key: str, sample: int, verdict: Verdict) -> None:
        """Keep the verdict on it."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """What turns problems into completions: an engine with the text side of its model."""

    engine: Engine
    text: Text
    sampling: SamplingParams  # its seed is that of the run; each problem's is made from it

    def prompt_ids(self, problem: Problem) -> tuple[int, ...]:
        """The problem as the model is asked it. Raises DoesNotFit if the completion would not fit behind
        it.
        """
        ids = self.text.chat_template().encode(self.text.tokenizer, problem.messages)
        needed = len(ids) + (self.sampling.max_tokens or 1)
        if needed > self.engine.model.config.max_context:
            raise DoesNotFit(
                f"problem {problem.key!r} has {len(ids)} prompt tokens; with max_tokens = "
                f"{self.sampling.max_tokens} that is more than the model's context of "
                f"{self.engine.model.config.max_context}; lower max_tokens or leave such problems out"
            )
        return tuple(ids)


@dataclass(frozen=True, slots=True)
class Drawn:
    """All completions of a batch of problems."""

    completions: Mapping[tuple[str, int], Completion]  # by key of the problem and sample
    num_completions: int  # of each problem
    num_new_tokens: int  # of all completions but those that the journal knew


def draw(
    sampler: Sampler,
    problems: Sequence[Problem],
    num_completions: int,
    *,
    salt: int,
    journal: Journal | None = None,
    on_completion: Callable[[Completion], None] | None = None,
    span: Span | None = None,
) -> Drawn:
    """`num_completions` completions of each problem.

    salt: what makes this visit's noise differ from another visit's (the step). A completion is a function of
    the weights, the run's seed, the salt, the problem's key and the sample, whatever is drawn beside it and
    whatever the journal knows. span: of the ledger, told after each step of the engine, and of each
    completion that was computed, as soon as it has ended.
    """
    wanted = {(problem.key, sample) for problem in problems for sample in range(num_completions)}
    known = {} if journal is None else journal.completions()
    found = {place: known[place] for place in wanted if place in known}
    if on_completion is not None:
        for completion in found.values():
            on_completion(completion)
    missing = [p for p in problems if any((p.key, i) not in found for i in range(num_completions))]
    begun: set[str] = set()  # problems whose prompt is paid
    num_new_tokens = 0
    for key, completion in _completions(sampler, missing, num_completions, salt, span):
        if span is not None:
            _pay(span, sampler.engine.model.config, completion, is_first=key not in begun)
        begun.add(key)
        if (key, completion.sample) in found:
            continue  # it was drawn again beside its siblings, with the same bits
        if journal is not None:
            journal.write_completion(key, completion)
        found[key, completion.sample] = completion
        num_new_tokens += len(completion.token_ids)
        if on_completion is not None:
            on_completion(completion)
    return Drawn(found, num_completions, num_new_tokens)


def _completions(
    sampler: Sampler, problems: Sequence[Problem], num_completions: int, salt: int, span: Span | None
) -> Iterator[tuple[str, Completion]]:
    """Each completion as soon as it has ended. Leaving early aborts the rest."""
    engine, seed = sampler.engine, sampler.sampling.seed
    assert seed is not None, "a run has a seed"
    asked: dict[int, str] = {}
    try:
        for problem in problems:
            own = replace(sampler.sampling, seed=mix(seed, salt, _number(problem.key)))
            request = Request(
                prompt_ids=sampler.prompt_ids(problem), sampling=own, num_completions=num_completions
            )
            asked[engine.add(request)] = problem.key
        left = len(problems) * num_completions
        while left:
            for progress in engine.step():
                if progress.completion is not None:
                    left -= 1
                    yield asked[progress.request], progress.completion
            if span is not None:
                span.add()  # so that a kill hides no more than a step, however long completions are
    finally:
        for number in asked:
            engine.abort(number)


def _pay(span: Span, config: ModelConfig, completion: Completion, *, is_first: bool) -> None:
    """Tell the ledger of a completion; of its prompt, which its group shares, with the first one."""
    prompt, own = len(completion.prompt_ids), len(completion.token_ids)
    work = forward_flops(config, first=prompt, count=own - 1, head_rows=own - 1)
    if is_first:
        work += forward_flops(config, first=0, count=prompt, head_rows=1)
    span.add(prompt_tokens=prompt if is_first else 0, generated_tokens=own, flops=work)


def verify(
    task: Task,
    problems: Sequence[Problem],
    drawn: Drawn,
    *,
    journal: Journal | None = None,
    on_verdict: Callable[[Verdict], None] | None = None,
    span: Span | None = None,
) -> list[Group]:
    """The groups of the problems, in their order, every completion with its verdict.

    on_verdict, span (of the ledger): told after each verdict.
    """
    known = {} if journal is None else journal.verdicts()
    groups = []
    for problem in problems:
        rollouts = []
        for sample in range(drawn.num_completions):
            completion = drawn.completions[problem.key, sample]
            verdict = known.get((problem.key, sample))
            if verdict is None:
                verdict = _verdict(task, problem, completion)
                if journal is not None:
                    journal.write_verdict(problem.key, sample, verdict)
            rollouts.append(Rollout(completion=completion, verdict=verdict))
            if on_verdict is not None:
                on_verdict(verdict)
            if span is not None:
                span.add()
        groups.append(Group(problem=problem, rollouts=tuple(rollouts)))
    return groups


def _number(key: str) -> int:
    """64 bits of a problem's key: its noise stays the same wherever it stands in a list."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def _verdict(task: Task, problem: Problem, completion: Completion) -> Verdict:
    if completion.finish_reason is FinishReason.LENGTH:
        return TRUNCATED
    return judge(task, problem, completion.text)
