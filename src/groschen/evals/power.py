"""What a test can show before anything is measured: the smallest gain that n problems would show.

Afterwards the spread of the differences is known (`smallest_detectable` of comparison.py). Before, it is
assumed: the variance of a difference is that of Miller, arXiv 2411.00640, section 5,

    omega^2 + (sigma_base^2 + sigma_trained^2) / k

with omega^2 of the two chances of a problem and sigma^2 within a problem. A pass or fail varies by p (1 - p)
in all; half of it is taken to lie between the problems, and the two models' chances to correlate by a half,
in the middle of the 0.3 to 0.7 that the paper has for pairs of models. Two finished runs had less: GSM8K, 660
problems x 1, 18 % before, a spread of 0.34 where this says 0.48; countdown, 500 x 4, 27 %, 0.31 where it says
0.38. Leaves out what was measured.
"""

import math

from groschen.evals.stats import smallest_detectable_gain, wilson_interval

WORST_RATE = 0.5  # at which a pass or fail varies most
_BETWEEN = 0.5  # of the variance of a pass or fail, that of the problems' chances
_CORRELATION = 0.5  # of the two models' chances
_MOST_PROBLEMS = 1_000_000


def expected_spread(base: float, gain: float, num_samples: int) -> float:
    """The standard deviation of the per-problem differences that is assumed.

    base, gain: shares; the trained model's rate is their sum, kept within 0 and 1.
    """
    trained = min(1.0, max(0.0, base + gain))
    variance = (base * (1 - base) + trained * (1 - trained)) / 2
    of_chances = 2 * _BETWEEN * variance * (1 - _CORRELATION)
    within = 2 * (1 - _BETWEEN) * variance / num_samples
    return math.sqrt(of_chances + within)


def smallest_gain(num_problems: int, num_samples: int, base: float = WORST_RATE) -> float:
    """The true gain that a paired test on so many problems shows with a chance of 80 %, at a level of 5 %.

    base: the base's rate. NaN if no gain could be shown: too few problems, or no room above the base.
    """
    if num_problems < 2:
        return math.nan
    gain = 0.0
    for _ in range(60):  # the spread depends on the gain; this settles to a thousandth within a few turns
        gain = smallest_detectable_gain(num_problems, expected_spread(base, gain, num_samples))
        if math.isnan(gain) or base + gain > 1:
            return math.nan
    return gain


def problems_needed(gain: float, num_samples: int, base: float = WORST_RATE) -> int:
    """The fewest problems whose smallest gain is at most `gain`."""
    few, many = 2, _MOST_PROBLEMS
    while few < many:
        middle = (few + many) // 2
        if smallest_gain(middle, num_samples, base) <= gain:
            many = middle
        else:
            few = middle + 1
    return many


def careful_rate(num_passed: int, num_samples: int) -> float:
    """A rate to plan a test with, of a few samples: the one of their 95 % interval at which a test shows
    least. A half where nothing was sampled.
    """
    if num_samples == 0:
        return WORST_RATE
    low, high = wilson_interval(num_passed, num_samples)
    return min(max(low, WORST_RATE), high)
