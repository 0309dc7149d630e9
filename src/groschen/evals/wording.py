"""What was measured as words for a terminal; what is not known (NaN) is a dash or its reason, never "nan".

Leaves out the report, which has two languages (report_text.py).
"""

import math

from groschen.evals.comparison import Comparison
from groschen.evals.stats import Difference, Estimate

DASH = "-"


def share(value: float) -> str:
    """A share from 0 to 1, such as "43.8%"."""
    return DASH if math.isnan(value) else f"{value:.1%}"


def with_interval(estimate: Estimate) -> str:
    """A share with its interval, such as "43.8% (40.1% to 47.5%)"."""
    if math.isnan(estimate.value):
        return DASH
    return f"{share(estimate.value)} ({share(estimate.low)} to {share(estimate.high)})"


def gain(difference: Difference) -> str:
    """A gain in points with its interval, or why there is none."""
    if math.isnan(difference.gain):
        return "no gain can be told: no problem was graded for both"
    low, high = 100 * difference.low, 100 * difference.high
    return f"gain {100 * difference.gain:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"


def comparison(compared: Comparison) -> str:
    """The paired gain in a sentence, with its p value and what so many problems could show."""
    paired = compared.paired
    parts = [gain(paired)]
    if not math.isnan(paired.gain):
        problems = "problem" if paired.num_problems == 1 else "problems"
        parts[0] += f", paired over {paired.num_problems} {problems}"
    if not math.isnan(paired.p_value):
        parts[0] += f", p = {paired.p_value:.2g}"
    if not math.isnan(compared.smallest_detectable):
        parts.append(
            f"with this many a gain of {100 * compared.smallest_detectable:.1f} points would be shown four "
            "times in five"
        )
    return "; ".join(parts)
