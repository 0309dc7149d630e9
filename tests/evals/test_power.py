"""What a test can show before anything is measured, against simulated tests."""

import math

import numpy as np
import pytest

from groschen.evals.power import careful_rate, expected_spread, problems_needed, smallest_gain
from groschen.evals.stats import paired_difference


def simulated(base: float, gain: float, problems: int, samples: int, seed: int) -> float:
    """The p of one test in a world as assumed: half of the variance between problems, correlated by a half.

    Each problem's chance is 0 or 1 with a chance of a half and the model's rate else, so that half of the
    variance of a pass lies between problems; which of the two, is the same draw for both models for half of
    the problems.
    """
    generator = np.random.default_rng(seed)
    shared = generator.random(problems) < 0.5
    draws = [generator.random((2, problems)) for _ in range(2)]
    means = []
    for rate, own in zip((base, base + gain), draws, strict=True):
        decided, level = np.where(shared, draws[0], own)
        chances = np.where(decided < 0.5, (level < rate).astype(float), rate)
        means.append(generator.binomial(samples, chances) / samples)
    return paired_difference(means[0], means[1]).p_value


@pytest.mark.parametrize(("base", "samples"), [(0.5, 1), (0.2, 4)])
def test_four_of_five_tests_show_the_smallest_gain(base: float, samples: int) -> None:
    gain = smallest_gain(400, samples, base)
    shown = sum(simulated(base, gain, 400, samples, seed) < 0.05 for seed in range(400)) / 400
    assert 0.74 < shown < 0.86  # 0.80, three standard errors of 400 tests either way


def test_the_spreads_of_two_finished_runs_are_not_underestimated() -> None:
    assert 0.337 < expected_spread(0.18, 0.02, 1) < 1.5 * 0.337  # GSM8K: 75 of 660 problems differed
    assert 0.313 < expected_spread(0.271, 0.479, 4) < 1.5 * 0.313  # countdown: 45.2 to 50.7 with 500 problems


def test_more_problems_and_more_samples_show_smaller_gains() -> None:
    gains = [smallest_gain(n, k) for n, k in ((50, 1), (200, 1), (200, 4), (1000, 4))]
    assert gains == sorted(gains, reverse=True)
    assert gains[2] < gains[1] < gains[0] / 1.9  # a fourth of the variance, less for the t of few problems


def test_the_problems_that_are_needed_show_the_gain_and_one_fewer_do_not() -> None:
    n = problems_needed(0.05, 1)
    assert smallest_gain(n, 1) <= 0.05 < smallest_gain(n - 1, 1)
    assert 800 < n < 1300  # 3 points need about 1,000 where the spread is smaller, arXiv 2411.00640


def test_what_cannot_be_shown_is_not_a_number() -> None:
    assert math.isnan(smallest_gain(1, 4))
    assert math.isnan(smallest_gain(3, 1, 0.9))  # there is no room for so large a gain above the base


@pytest.mark.parametrize(
    ("passed", "graded", "rate"), [(0, 0, 0.5), (8, 16, 0.5), (0, 32, 0.107), (32, 32, 0.893)]
)
def test_a_few_samples_leave_the_worst_rate_of_their_interval(passed: int, graded: int, rate: float) -> None:
    assert careful_rate(passed, graded) == pytest.approx(rate, abs=0.001)
