"""Statistics of graded completions: accuracies, intervals, paired differences, and what n can show.

Problems are a sample of a task and completions of one problem belong together, so every standard error is
clustered by problem (Miller, arXiv 2411.00640). Every problem weighs the same, however
many of its completions could be graded; with equal numbers of completions this is the plain mean.
Leaves out where the numbers come from (comparison.py) and how they are shown (report.py).

What cannot be known is NaN, never a guess:

    a mean of no problem                          NaN, with an interval of NaN
    a standard error of one problem               NaN
    pass@k with fewer than k completions          NaN
    a smallest detectable gain without a spread   NaN
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from groschen.errors import BadRequest
from groschen.evals.quantiles import (
    fair_coin_chance,
    fair_coin_tail,
    normal_quantile,
    t_quantile,
    t_two_sided_p,
)

Floats = npt.NDArray[np.float64]

_RANDOM_FLIPS, _MOST_EXACT_WORK = 20_000, 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over problems with its standard error and interval."""

    value: float
    se: float  # clustered by problem
    low: float
    high: float
    num_problems: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The mean of paired differences, second minus first, with its interval and tests."""

    gain: float
    se: float
    low: float
    high: float
    p_value: float  # paired t test, two-sided
    sign_flip_p: float  # needs no distribution: how often random signs give a mean as far from 0
    spread: float  # standard deviation of the differences
    num_problems: int


def pass_at_k(num_samples: int, num_passed: int, k: int) -> float:
    """The chance that at least one of k completions, drawn without return from these, passed.

    Unbiased for k new completions: 1 - C(n - c, k) / C(n, k), Chen et al., arXiv 2107.03374, equation 1. NaN
    if k > num_samples. Raises BadRequest unless 0 <= num_passed <= num_samples and k >= 1.
    """
    if not 0 <= num_passed <= num_samples or k < 1:
        raise BadRequest(f"pass@{k} of {num_passed} passed among {num_samples} makes no sense")
    if k > num_samples:
        return math.nan
    return 1 - math.comb(num_samples - num_passed, k) / math.comb(num_samples, k)


def maj_at_k(answers: Sequence[str | None], passed: Sequence[bool]) -> float:
    """The score of the answer that most of these completions of one problem give (self-consistency,
    2203.11171).

    answers: the answer found in each completion, None where there was none: it casts no vote. Equal strings
    are one answer; its score is the share of its completions that passed. Answers with equally many votes
    share the result. 0 if nobody votes, NaN without completions.
    """
    if len(answers) != len(passed):
        raise BadRequest(f"{len(answers)} answers but {len(passed)} verdicts")
    if not answers:
        return math.nan
    votes: dict[str, list[bool]] = {}
    for answer, is_right in zip(answers, passed, strict=True):
        if answer is not None:
            votes.setdefault(answer, []).append(is_right)
    if not votes:
        return 0.0
    most = max(len(rights) for rights in votes.values())
    winners = [sum(rights) / most for rights in votes.values() if len(rights) == most]
    return sum(winners) / len(winners)


def problem_means(samples: Sequence[Sequence[float]]) -> Floats:
    """[n]: the mean of each problem's samples; problems without a sample are an error of the caller."""
    if any(len(values) == 0 for values in samples):
        raise BadRequest("a problem without a graded completion has no mean; leave it out and count it")
    return np.array([sum(values) / len(values) for values in samples], dtype=np.float64)


def clustered_mean(samples: Sequence[Sequence[float]], *, confidence: float = 0.95) -> Estimate:
    """The mean over problems of the mean over their samples, with Student's t interval.

    For equal numbers of samples the standard error is that of Miller's equation for clusters times
    sqrt(n / (n - 1)), the correction of a variance that is estimated from n clusters. Standard error and
    interval are NaN for n = 1, everything for n = 0.
    """
    return _mean_with_t_interval(problem_means(samples), confidence)


def clustered_share(samples: Sequence[Sequence[float]], *, confidence: float = 0.95) -> Estimate:
    """Like `clustered_mean`, for values from 0 to 1, with an interval that stays in there.

    Wilson's interval with the effective number of samples, p (1 - p) / se^2, as surveys do it (Korn and
    Graubard 1998; Franco et al. 2019). It lies between the number of problems (completions of a problem all
    alike) and the number of samples (unrelated). One sample a problem gives Wilson's interval itself; also
    where nobody or everybody passed, the interval has a width.
    """
    mean = clustered_mean(samples, confidence=confidence)
    n = mean.num_problems
    if n == 0:
        return mean
    effective = float(n)
    if n > 1 and mean.se > 0 and 0 < mean.value < 1:
        correction = normal_quantile((1 + confidence) / 2) / t_quantile((1 + confidence) / 2, n - 1)
        effective = mean.value * (1 - mean.value) / mean.se**2 * correction**2
        effective = min(max(effective, n), sum(len(values) for values in samples))
    low, high = wilson_interval(mean.value * effective, effective, confidence=confidence)
    return Estimate(value=mean.value, se=mean.se, low=low, high=high, num_problems=n)


def wilson_interval(
    num_passed: float, num_samples: float, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Wilson's score interval of a share (1927). Both numbers may be fractions, for effective sizes; NaN of
    none.
    """
    if num_samples == 0:
        return math.nan, math.nan
    z = normal_quantile((1 + confidence) / 2)
    share = num_passed / num_samples
    weight = 1 + z * z / num_samples
    middle = (share + z * z / (2 * num_samples)) / weight
    half = z / weight * math.sqrt(share * (1 - share) / num_samples + z * z / (4 * num_samples**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_difference(first_n: Floats, second_n: Floats, *, confidence: float = 0.95) -> Difference:
    """How much higher the second model scores on the same problems, problem by problem.

    first_n, second_n: [n] means of problem 0 .. n - 1, each from 0 to 1. Where all differences are equal
    there is no spread to judge by: then the interval asks how many other problems could have moved without
    one of n showing it (`rule_of_three`), a standard error of 0 is reported, and p is the sign-flip test's.
    """
    if first_n.shape != second_n.shape or first_n.ndim != 1:
        raise BadRequest(
            f"paired differences need the same problems; got {first_n.shape} and {second_n.shape}"
        )
    differences_n = second_n - first_n
    mean = _mean_with_t_interval(differences_n, confidence)
    n = mean.num_problems
    flip_p = sign_flip_p(differences_n)
    low, high, p_value = mean.low, mean.high, math.nan
    if n > 1 and mean.se > 0:
        p_value = t_two_sided_p(mean.value / mean.se, n - 1)
    elif n > 0:
        room = rule_of_three(n, confidence=confidence) * (1 + abs(mean.value))
        low, high, p_value = mean.value - room, mean.value + room, flip_p
    return Difference(
        gain=mean.value,
        se=mean.se,
        low=max(low, -1.0) if n else math.nan,
        high=min(high, 1.0) if n else math.nan,
        p_value=p_value,
        sign_flip_p=flip_p,
        spread=mean.se * math.sqrt(n),
        num_problems=n,
    )


def mcnemar_p(only_first: int, only_second: int, *, mid_p: bool = False) -> float:
    """The exact two-sided p of McNemar's test on the problems that exactly one model solved (Biometrika
    1947).

    mid_p counts half of the observed case (Fagerland et al. 2013): less conservative. 1.0 if no problem
    differs.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    two_sided = 2 * fair_coin_tail(fewer, n)
    return min(1.0, two_sided - fair_coin_chance(fewer, n) if mid_p else two_sided)


def sign_flip_p(differences_n: Floats, *, seed: int = 0) -> float:
    """How often the mean is at least as far from 0 when each difference gets a random sign; two-sided.

    If neither model were better, both signs of each difference would be as likely. Exact, by adding up the
    distribution, where the differences are multiples of one fraction (as shares of k completions are) and the
    work is small; else by 20,000 random draws with this seed, never below 1 / 20,001. NaN for no problem.
    """
    moved = np.abs(differences_n[np.abs(differences_n) > 1e-12])
    if len(differences_n) == 0:
        return math.nan
    if len(moved) == 0:
        return 1.0
    observed = abs(float(differences_n.sum())) - 1e-9
    steps = _as_multiples(moved)
    if steps is not None:
        unit = float(moved[0]) / int(steps[0])
        return _exact_flip_p(steps, observed / unit)
    generator = np.random.default_rng(seed)
    hits = 0
    for _ in range(0, _RANDOM_FLIPS, 100):
        signs = generator.integers(0, 2, (100, len(moved))) * 2 - 1
        hits += int((np.abs(signs @ moved) >= observed).sum())
    return (hits + 1) / (_RANDOM_FLIPS + 1)


def smallest_detectable_gain(
    num_problems: int, spread: float, *, power: float = 0.8, confidence: float = 0.95
) -> float:
    """The true gain that this many problems would show as significant with this chance.

    spread: the standard deviation of the per-problem differences, known or assumed. NaN for fewer than two
    problems or no spread. (t of the interval + t of the power) * spread / sqrt(n).
    """
    if num_problems < 2 or not spread > 0:
        return math.nan
    t = t_quantile((1 + confidence) / 2, num_problems - 1) + t_quantile(power, num_problems - 1)
    return t * spread / math.sqrt(num_problems)


def rule_of_three(num_problems: int, *, confidence: float = 0.95) -> float:
    """The share below which the truth lies if none of n problems showed a thing; about 3 / n. NaN for none.

    For n of n the truth lies above 1 minus this. One-sided, 1 - (1 - confidence)^(1/n) (Hanley 1983).
    """
    return 1 - (1 - confidence) ** (1 / num_problems) if num_problems else math.nan


def _mean_with_t_interval(values_n: Floats, confidence: float) -> Estimate:
    n = len(values_n)
    value = float(values_n.mean()) if n else math.nan
    if n < 2:
        return Estimate(value=value, se=math.nan, low=math.nan, high=math.nan, num_problems=n)
    is_constant = bool(np.ptp(values_n) < 1e-12)  # rounding of the mean must not look like a spread
    se = 0.0 if is_constant else float(values_n.std(ddof=1)) / math.sqrt(n)
    half = t_quantile((1 + confidence) / 2, n - 1) * se
    return Estimate(value=value, se=se, low=value - half, high=value + half, num_problems=n)


def _as_multiples(values: Floats) -> npt.NDArray[np.int64] | None:
    """The values as whole multiples of 1/1, 1/2, ... or 1/840, the first that fits; None: too much work or
    none fits.
    """
    for parts in range(1, 841):
        scaled = values * parts
        whole = np.round(scaled)
        if np.abs(scaled - whole).max() < 1e-7:
            steps = whole.astype(np.int64)
            return steps if int(steps.sum()) * len(steps) <= _MOST_EXACT_WORK else None
    return None


def _exact_flip_p(steps: npt.NDArray[np.int64], observed: float) -> float:
    """P(|sum of +-steps| >= observed): the distribution of the sum, one difference at a time."""
    total = int(steps.sum())
    chance = np.zeros(2 * total + 1)  # of the sums -total .. total
    chance[total] = 1.0
    for step in steps:
        moved = np.zeros_like(chance)
        moved[step:] += 0.5 * chance[:-step]
        moved[:-step] += 0.5 * chance[step:]
        chance = moved
    sums = np.arange(-total, total + 1)
    return min(1.0, float(chance[np.abs(sums) >= observed - 1e-6].sum()))
