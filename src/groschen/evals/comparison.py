"""What the records of one evaluation say, and what those of two evaluations say about each other.

A completion whose verifier broke is neither passed nor failed: it is left out of every accuracy and counted.
A problem of which no completion could be graded is left out as a whole and counted too. `passed` alone
decides an accuracy; `reward` is only averaged. Leaves out the formulas (stats.py) and the words (report.py).
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, median

from groschen.errors import BadFile, BadRequest
from groschen.evals.stats import (
    Difference,
    Estimate,
    clustered_share,
    maj_at_k,
    mcnemar_p,
    paired_difference,
    pass_at_k,
    problem_means,
    smallest_detectable_gain,
)
from groschen.records import EvalRecord, FinishReason

SIGNIFICANCE = 0.05

ByProblem = Mapping[str, Sequence[EvalRecord]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One evaluation in numbers. Shares are from 0 to 1; NaN where nothing could be graded."""

    num_problems: int  # with at least one graded completion
    num_ungraded_problems: int  # every completion's verifier broke
    num_completions: int  # graded or not
    k: int  # completions of a problem, the most that one has
    pass_at_1: Estimate  # mean over problems of the share that passed, clustered by problem
    pass_at_k: Mapping[int, float]  # of 1, 2, 4, ... and k, unbiased, over problems with so many graded
    maj_at_k: float  # the answer that most completions of a problem give; NaN where no answers are recorded
    lenient: Estimate | None  # right if the answer may stand anywhere; None: the verifier does not tell
    format: Estimate | None  # the answer stood where it was asked for; None: the verifier does not tell
    truncated: float  # share of all completions cut by the length limit
    num_errors: int  # completions whose verifier broke
    errors: float  # their share of all completions
    mean_tokens: float  # of a completion, graded or not
    median_tokens: float
    mean_reward: float  # of graded completions


class Finding(StrEnum):
    """The verdict of a comparison, as the key of a sentence."""

    GAIN = "significant_gain"
    NONE = "no_significant_change"
    LOSS = "significant_loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """Problems counted by which model solves them: passes more than half of its graded completions."""

    both: int
    only_base: int
    only_trained: int
    neither: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two evaluations of the same problems, the second against the first."""

    base: Summary
    trained: Summary
    paired: Difference  # of pass@1, on problems that both could be graded on
    num_unpaired: int  # problems left out because one of the two could not be graded
    lenient: Difference | None  # the same with the lenient reading; None: the verifier does not tell
    solved: Solved
    mcnemar_p: float  # exact, two-sided, on `solved`; with k = 1 the classical test
    smallest_detectable: float  # with 80 % power, at this n and this spread; NaN without a spread
    finding: Finding


def by_problem(records: Sequence[EvalRecord]) -> dict[str, list[EvalRecord]]:
    """The records of each problem, in the order of the samples; problems in order of their first record.

    Raises BadFile if a sample of a problem occurs twice.
    """
    problems: dict[str, list[EvalRecord]] = {}
    for record in records:
        problems.setdefault(record.key, []).append(record)
    for key, samples in problems.items():
        samples.sort(key=lambda record: record.sample)
        for sample, count in Counter(record.sample for record in samples).items():
            if count > 1:
                raise BadFile(f"sample {sample} of problem {key!r} is recorded {count} times; expected once")
    return problems


def summarise(records: Sequence[EvalRecord]) -> Summary:
    """The numbers of one evaluation. Raises BadFile if a sample of a problem occurs twice."""
    problems = by_problem(records)
    graded = _graded(problems)
    k = max((len(samples) for samples in problems.values()), default=0)
    tokens = [record.num_tokens for record in records]
    num_errors = sum(record.error is not None for record in records)
    return Summary(
        num_problems=len(graded),
        num_ungraded_problems=len(problems) - len(graded),
        num_completions=len(records),
        k=k,
        pass_at_1=clustered_share(_values(graded, lambda record: float(record.passed))),
        pass_at_k={size: _mean_pass_at_k(graded, size) for size in sorted({*_powers_of_two(k), k} - {0})},
        maj_at_k=_mean_maj_at_k(graded),
        lenient=_share_of_part(graded, "lenient"),
        format=_share_of_part(graded, "format"),
        truncated=_share(
            sum(record.finish_reason == FinishReason.LENGTH for record in records), len(records)
        ),
        num_errors=num_errors,
        errors=_share(num_errors, len(records)),
        mean_tokens=fmean(tokens) if tokens else math.nan,
        median_tokens=float(median(tokens)) if tokens else math.nan,
        mean_reward=_mean_of_defined([record.reward for samples in graded.values() for record in samples]),
    )


def compare(base: Sequence[EvalRecord], trained: Sequence[EvalRecord]) -> Comparison:
    """How the trained model does on the problems of the base, paired by the problems' keys.

    A change is called significant if its 95 % interval leaves out 0 and the sign-flip test agrees (p < 0.05):
    with few problems the interval alone is too sure of itself. Raises BadRequest if the problems are not the
    same, BadFile if a sample occurs twice.
    """
    problems_base, problems_trained = by_problem(base), by_problem(trained)
    _refuse_other_problems(problems_base, problems_trained)
    graded_base, graded_trained = _graded(problems_base), _graded(problems_trained)
    keys = [key for key in graded_base if key in graded_trained]
    first, second = ({key: graded[key] for key in keys} for graded in (graded_base, graded_trained))
    paired = _paired(first, second, lambda record: float(record.passed))
    solved = _count_solved(first, second)
    return Comparison(
        base=summarise(base),
        trained=summarise(trained),
        paired=paired,
        num_unpaired=len(problems_base) - len(keys),
        lenient=_paired_part(first, second, "lenient"),
        solved=solved,
        mcnemar_p=mcnemar_p(solved.only_base, solved.only_trained),
        smallest_detectable=smallest_detectable_gain(len(keys), paired.spread),
        finding=_finding(paired),
    )


def share_explained(gain: float, controlled_gain: float) -> float:
    """The part of a gain that a control explains away: 1 - controlled / gain, kept within 0 and 1.

    With the lenient reading as control this is the part that is format; with the base's best prompt, the part
    that a better prompt gives as well. NaN where there is no gain to explain.
    """
    if math.isnan(controlled_gain) or not gain > 0:
        return math.nan
    return min(1.0, max(0.0, 1 - controlled_gain / gain))


def is_solved(samples: Sequence[EvalRecord]) -> bool:
    """Whether more than half of these graded completions of one problem passed."""
    return 2 * sum(record.passed for record in samples) > len(samples)


def graded_by_problem(records: Sequence[EvalRecord]) -> dict[str, list[EvalRecord]]:
    """The graded records of each problem that has one."""
    return _graded(by_problem(records))


def summary_json(summary: Summary) -> dict[str, object]:
    """The keys of an evaluation in `eval --json` and metrics.jsonl (docs/json.md); null for what is NaN."""
    estimate = summary.pass_at_1
    return {
        "n": summary.num_problems,
        "k": summary.k,
        "pass_at_1": _or_none(estimate.value),
        "se": _or_none(estimate.se),
        "ci95": [_or_none(estimate.low), _or_none(estimate.high)],
        "pass_at_k": {str(size): _or_none(value) for size, value in summary.pass_at_k.items()},
        "maj_at_k": _or_none(summary.maj_at_k),
        "lenient": _or_none(summary.lenient.value) if summary.lenient else None,
        "format": _or_none(summary.format.value) if summary.format else None,
        "truncated": _or_none(summary.truncated),
        "errors": _or_none(summary.errors),
        "mean_tokens": _or_none(summary.mean_tokens),
        "median_tokens": _or_none(summary.median_tokens),
        "mean_reward": _or_none(summary.mean_reward),
    }


def comparison_json(comparison: Comparison) -> dict[str, object]:
    """The keys under "paired" in `eval --json` (docs/json.md); null for what is NaN."""
    paired, solved = comparison.paired, comparison.solved
    return {
        "gain": _or_none(paired.gain),
        "se": _or_none(paired.se),
        "ci95": [_or_none(paired.low), _or_none(paired.high)],
        "p_value": _or_none(paired.p_value),
        "sign_flip_p": _or_none(paired.sign_flip_p),
        "mcnemar_p": comparison.mcnemar_p,
        "n": paired.num_problems,
        "lenient_gain": _or_none(comparison.lenient.gain) if comparison.lenient else None,
        "smallest_detectable": _or_none(comparison.smallest_detectable),
        "solved": {
            "both": solved.both,
            "only_base": solved.only_base,
            "only_trained": solved.only_trained,
            "neither": solved.neither,
        },
        "finding": str(comparison.finding),
    }


def _graded(problems: ByProblem) -> dict[str, list[EvalRecord]]:
    kept = {key: [record for record in samples if record.error is None] for key, samples in problems.items()}
    return {key: samples for key, samples in kept.items() if samples}


def _values(graded: ByProblem, value: Callable[[EvalRecord], float]) -> list[list[float]]:
    return [[value(record) for record in samples] for samples in graded.values()]


def _tells(graded: ByProblem, part: str) -> bool:
    parts = [record.parts.get(part) for samples in graded.values() for record in samples]
    return bool(parts) and all(isinstance(value, bool | int | float) for value in parts)


def _part(part: str) -> Callable[[EvalRecord], float]:
    return lambda record: float(bool(record.parts[part]))


def _share_of_part(graded: ByProblem, part: str) -> Estimate | None:
    return clustered_share(_values(graded, _part(part))) if _tells(graded, part) else None


def _paired(first: ByProblem, second: ByProblem, value: Callable[[EvalRecord], float]) -> Difference:
    return paired_difference(problem_means(_values(first, value)), problem_means(_values(second, value)))


def _paired_part(first: ByProblem, second: ByProblem, part: str) -> Difference | None:
    if not (_tells(first, part) and _tells(second, part)):
        return None
    return _paired(first, second, _part(part))


def _powers_of_two(k: int) -> list[int]:
    return [2**exponent for exponent in range(k.bit_length())]


def _mean_pass_at_k(graded: ByProblem, k: int) -> float:
    each = [
        pass_at_k(len(samples), sum(record.passed for record in samples), k) for samples in graded.values()
    ]
    return _mean_of_defined(each)


def _mean_maj_at_k(graded: ByProblem) -> float:
    if not any("answer" in record.parts for samples in graded.values() for record in samples):
        return math.nan
    each = [
        maj_at_k([_answer(record) for record in samples], [record.passed for record in samples])
        for samples in graded.values()
    ]
    return _mean_of_defined(each)


def _answer(record: EvalRecord) -> str | None:
    found = record.parts.get("answer")
    return None if found is None else str(found)


def _mean_of_defined(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return fmean(defined) if defined else math.nan


def _share(count: int, total: int) -> float:
    return count / total if total else math.nan


def _count_solved(first: ByProblem, second: ByProblem) -> Solved:
    pairs = Counter((is_solved(first[key]), is_solved(second[key])) for key in first)
    return Solved(
        both=pairs[True, True],
        only_base=pairs[True, False],
        only_trained=pairs[False, True],
        neither=pairs[False, False],
    )


def _finding(paired: Difference) -> Finding:
    if not paired.sign_flip_p < SIGNIFICANCE or paired.low <= 0 <= paired.high:
        return Finding.NONE
    return Finding.GAIN if paired.gain > 0 else Finding.LOSS


def _refuse_other_problems(base: ByProblem, trained: ByProblem) -> None:
    only_base = [key for key in base if key not in trained]
    only_trained = [key for key in trained if key not in base]
    if only_base or only_trained:
        raise BadRequest(
            f"the two evaluations are of different problems: {_some(only_base)} only in the first, "
            f"{_some(only_trained)} only in the second; evaluate both on the same split of the same task"
        )


def _some(keys: Sequence[str]) -> str:
    if not keys:
        return "none"
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(repr(key) for key in keys[:3]) + more


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
