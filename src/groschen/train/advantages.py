"""Rewards of a group to advantages: how much better a completion was than its siblings.

Leaves out where rewards come from and which groups are trained. Sources: GRPO, arXiv 2402.03300, equation 3;
Dr. GRPO, arXiv 2503.20783; RLOO, arXiv 2402.14740; REINFORCE++ with baseline, arXiv 2501.03262.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

from groschen.errors import Unsupported

Advantage = Literal["leave_one_out", "mean", "group_std", "batch_std"]
ADVANTAGES: tuple[str, ...] = get_args(Advantage)

Rewards = Sequence[float | None]  # of one group; None where the verifier broke
Advantages = list[float | None]
_ROUNDING = 1e-12  # sums of a few parts that ought to be equal differ by less, rewards that differ by more


def has_signal(rewards: Rewards) -> bool:
    """Whether a group's rewards differ by more than rounding: equal ones say nothing about which completion
    to prefer.
    """
    known = [reward for reward in rewards if reward is not None]
    if len(known) < 2:
        return False
    return not math.isclose(min(known), max(known), rel_tol=_ROUNDING, abs_tol=_ROUNDING)


def advantages(groups: Sequence[Rewards], kind: Advantage) -> list[Advantages]:
    """The advantage of each completion of each group; None stays None, a group without signal is all 0.

    leave_one_out: r_i minus the mean of the others. mean: r_i minus the group's mean. group_std: that
    divided by the group's standard deviation (GRPO; over-weights groups with rare hits). batch_std: divided
    by the standard deviation of all centred rewards of the batch. Raises Unsupported for another kind.
    """
    if kind not in ADVANTAGES:
        raise Unsupported(f"advantage {kind!r} is not known; take one of {', '.join(ADVANTAGES)}")
    centred = [_centred(rewards, kind == "leave_one_out") for rewards in groups]
    if kind == "group_std":
        return [_divided(group, _deviation(group)) for group in centred]
    if kind == "batch_std":
        deviation = _deviation([each for group in centred for each in group])
        return [_divided(group, deviation) for group in centred]
    return centred


def _centred(rewards: Rewards, leaves_one_out: bool) -> Advantages:
    known = [reward for reward in rewards if reward is not None]
    if not has_signal(rewards):
        return [None if reward is None else 0.0 for reward in rewards]
    total, count = math.fsum(known), len(known)
    if leaves_one_out:
        return [None if r is None else r - (total - r) / (count - 1) for r in rewards]
    return [None if r is None else r - total / count for r in rewards]


def _deviation(centred: Sequence[float | None]) -> float:
    """The standard deviation of values whose mean is 0, divided by n - 1 as torch does and the papers'
    code.
    """
    known = [each for each in centred if each is not None]
    if len(known) < 2:
        return 0.0
    return math.sqrt(math.fsum(each * each for each in known) / (len(known) - 1))


def _divided(group: Advantages, deviation: float) -> Advantages:
    """Never divided by float noise: rewards that differ by no more have no signal and were centred to 0."""
    if deviation == 0.0:
        return [None if each is None else 0.0 for each in group]
    return [None if each is None else each / deviation for each in group]
