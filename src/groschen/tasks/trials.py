"""Answers whose verdict is known, tried on one problem.

Leaves out which problems are tried and what follows from it (check.py).
"""

from dataclasses import dataclass
from enum import StrEnum

from groschen.records import Problem, Verdict
from groschen.tasks.foreign import told
from groschen.tasks.spelling import as_models_write
from groschen.tasks.task import Task, judge


class Probe(StrEnum):
    """What kind of answer is tried."""

    GOLD = "gold"  # must pass
    WRONG = "wrong"  # known to be wrong: must fail
    EMPTY = "empty"  # no text at all: must fail
    NONSENSE = "nonsense"  # says nothing, in each usual slot: must fail
    HEDGED = "hedged"  # the gold answer and a wrong one in one breath: should fail
    ECHO = "echo"  # the prompt again: should fail
    SPELLED = "spelled"  # the gold answer as a model would spell it, where that differs: should pass

    @property
    def must(self) -> bool:
        """Whether a task is refused for a wrong verdict, not only warned of."""
        return self not in (Probe.HEDGED, Probe.ECHO, Probe.SPELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One answer and its verdict."""

    key: str  # of the problem
    probe: Probe
    text: str
    verdict: Verdict | None  # None: there was nothing to judge, and `fault` says why
    fault: str | None  # what is wrong with the verdict, as a clause


_NONSENSE = ("{}", "<answer>{}</answer>", "\\boxed{{{}}}", "#### {}", "```python\n{}\n```")
_SHOWN = 60  # characters of an answer that an error quotes


def try_problem(task: Task, problem: Problem) -> list[Trial]:
    """Every kind of answer, tried on one problem."""
    try:
        gold, wrong = task.gold(problem), task.wrong(problem)
    except KeyboardInterrupt:
        raise
    except BaseException as broken:  # noqa: BLE001 - whatever a task's author wrote may raise: kept as data
        fault = f"its gold or wrong answers can't be made: {told(broken, task.gold)}"
        return [Trial(key=problem.key, probe=Probe.GOLD, text="", verdict=None, fault=fault)]
    trials = [] if gold is None else [_try(task, problem, Probe.GOLD, gold)]
    best = trials[0].verdict if trials and trials[0].fault is None else None
    spelled = None if gold is None or best is None else as_models_write(gold, problem.answer)
    if spelled is not None:
        trials.append(_try(task, problem, Probe.SPELLED, spelled))
    tried = {gold}
    for probe, text in _answers(problem, gold, wrong):
        if text not in tried or probe == Probe.WRONG:  # a wrong answer that is the gold one must be noticed
            tried.add(text)
            trials.append(_try(task, problem, probe, text, best))
    return trials


def hedged(gold: str, wrong: str) -> tuple[str, ...]:
    """The gold answer and a wrong one in one breath, both ways round.

    Of "<answer>42</answer>" and "<answer>41</answer>": "<answer>42 or 41</answer>" and the other way. Nothing
    where the two texts do not begin with the same mark, or nothing is left of one between their ends.
    """
    start = 0
    while start < min(len(gold), len(wrong)) and gold[start] == wrong[start]:
        start += 1
    while start and (gold[start - 1].isalnum() or gold[start - 1] in ".,-"):
        start -= 1
    end = 0
    while end < min(len(gold), len(wrong)) - start and gold[-1 - end] == wrong[-1 - end]:
        end += 1
    while end and (gold[len(gold) - end].isalnum() or gold[len(gold) - end] in ".,-"):
        end -= 1
    before, after = gold[:start], gold[len(gold) - end :]
    right, other = gold[start : len(gold) - end], wrong[start : len(wrong) - end]
    if not (before and right.strip() and other.strip()):
        return ()
    return (f"{before}{right} or {other}{after}", f"{before}{other} or {right}{after}")


def _answers(problem: Problem, gold: str | None, wrong: tuple[str, ...]) -> list[tuple[Probe, str]]:
    answers = [(Probe.WRONG, text) for text in wrong if text]
    answers.append((Probe.EMPTY, ""))
    answers += [(Probe.NONSENSE, way.format("fnord wug zxqv")) for way in _NONSENSE]
    if gold is not None:
        answer = gold.rpartition("\n")[2]  # the reasoning before it, if any, is no part of a hedge
        hedges = next((pair for text in wrong if (pair := hedged(answer, text))), ())
        answers += [(Probe.HEDGED, text) for text in hedges]
    prompt = problem.messages[-1].get("content")
    if isinstance(prompt, str):
        answers.append((Probe.ECHO, prompt))
    return answers


def _try(task: Task, problem: Problem, probe: Probe, text: str, best: Verdict | None = None) -> Trial:
    verdict = judge(task, problem, text)
    fault = _fault(probe, text, verdict, best)
    if fault is None and probe in (Probe.GOLD, Probe.EMPTY):
        again = judge(task, problem, text)
        if (again.reward, again.passed, again.parts, again.error) != (
            verdict.reward, verdict.passed, verdict.parts, verdict.error,
        ):  # fmt: skip
            fault = f"{_told(probe, text)} got two verdicts, {_short(verdict)} and then {_short(again)}"
    return Trial(key=problem.key, probe=probe, text=text, verdict=verdict, fault=fault)


def _fault(probe: Probe, text: str, verdict: Verdict, best: Verdict | None) -> str | None:
    told = _told(probe, text)
    if verdict.error is not None:
        return f"the verifier broke on {told}: {verdict.error}"
    if probe in (Probe.GOLD, Probe.SPELLED):
        why = verdict.parts.get("why")
        return None if verdict.passed else f"{told} did not pass" + (f" ({why})" if why else "")
    if verdict.passed:
        return f"{told} passes"
    if best is not None and verdict.reward >= best.reward:
        return f"{told} earns {verdict.reward:g}, as much as the gold answer or more"
    return None


def _told(probe: Probe, text: str) -> str:
    if probe == Probe.EMPTY:
        return "an empty answer"
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    names = {
        Probe.GOLD: "the gold answer",
        Probe.WRONG: "the wrong answer",
        Probe.SPELLED: "the gold answer as a model would write it,",
        Probe.ECHO: "the prompt as answer",
    }
    return f"{names.get(probe, f'the {probe} answer')} {shown!r}"


def _short(verdict: Verdict) -> str:
    if verdict.error:
        return f"an error ({verdict.error})"
    return f"{'passed' if verdict.passed else 'failed'} with reward {verdict.reward:g}"
