"""What stops a run with a reason instead of letting it rot: the guards over rewards, entropy, length and
accuracy.

Small models peak early and then fall (recipes that ran on to the end lost all they had gained), so held-out
accuracy that has fallen ends a run and the best checkpoint is what is kept. Leaves out what to do about it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from groschen.errors import GroschenError
from groschen.evals.evaluate import MAX_ERROR_SHARE
from groschen.ranges import Range


class RunStopped(GroschenError):
    """An alarm ended the run; everything up to the last whole step is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmSettings:
    """Limits. 0 switches one off, but for `patience`."""

    max_error_share: Annotated[float, Range(least=0, most=1)] = MAX_ERROR_SHARE  # of a step's verdicts
    # Nat per token: below, all completions of a group are one.
    min_entropy: Annotated[float, Range(least=0, most=100)] = 0.001
    max_truncated_share: Annotated[float, Range(least=0, most=1)] = 0.9
    # Steps in a row in which no group had signal.
    steps_without_signal: Annotated[int, Range(least=0, most=1_000_000_000)] = 8
    # Dev accuracy under the best by so many standard errors.
    falls_by_errors: Annotated[float, Range(least=0, most=1_000)] = 2.0
    patience: Annotated[int, Range(least=1, most=1_000_000)] = 2  # evaluations in a row that must be so low


Metrics = Mapping[str, float]

_SOLVED = 0.9  # of a step's completions; without signal each group is all right or all wrong


def check_step(
    newest: Metrics, steps_without_signal: int, settings: AlarmSettings, first_error: str | None = None
) -> None:
    """Raises RunStopped if the metrics of a step are beyond a limit.

    steps_without_signal: in a row, the newest included, in which no group was trained. first_error: of the
    step's verdicts, with the problem's key.
    """
    # First: without one graded completion there is no mean reward either, and the verifier is the reason.
    shown = 1 - newest["completion/truncated_share"]  # a completion that was cut is not shown to the verifier
    if settings.max_error_share and newest["verify/error_share"] > settings.max_error_share * shown:
        raise RunStopped(
            f"the verifier failed on {newest['verify/error_share'] / shown:.0%} of this step's completions "
            f"that it was shown (limit {settings.max_error_share:.0%}), {first_error or 'see its rollouts'}; "
            "try `groschen check`"
        )
    for name in ("update/loss", "update/grad_norm", "policy/entropy_nat", "reward/mean"):
        if not math.isfinite(newest[name]):
            raise RunStopped(
                f"{name} is {newest[name]}; lower learning_rate, or look at the rewards of this step"
            )
    if newest["update/trained_groups"] and newest["policy/entropy_nat"] < settings.min_entropy:
        raise RunStopped(
            f"the entropy fell to {newest['policy/entropy_nat']:.5f} nat per token (limit "
            f"{settings.min_entropy}): the policy has collapsed; lower learning_rate or raise group_size"
        )
    if settings.max_truncated_share and newest["completion/truncated_share"] > settings.max_truncated_share:
        raise RunStopped(
            f"{newest['completion/truncated_share']:.0%} of the completions were cut by max_tokens (limit "
            f"{settings.max_truncated_share:.0%}); raise max_tokens or punish length"
        )
    if is_silent(steps_without_signal, settings) and not is_solved(newest):
        raise RunStopped(
            f"no group had signal for {steps_without_signal} steps: all completions of a problem get the "
            "same reward; the task is too hard for this model, or its reward is constant"
        )


def is_silent(steps_without_signal: int, settings: AlarmSettings) -> bool:
    """Whether no group has had signal for as many steps as are allowed."""
    return 0 < settings.steps_without_signal <= steps_without_signal


def is_solved(newest: Metrics) -> bool:
    """Whether nearly all completions passed: then no signal is the end of learning and no fault."""
    return newest["accuracy/train"] >= _SOLVED


@dataclass(frozen=True, slots=True)
class Held:
    """Accuracy on the dev split after a step."""

    step: int
    accuracy: float | None  # None where no completion could be graded: a file of JSON has no NaN
    standard_error: float | None  # None where one problem or none was graded


def best_of(evaluations: Sequence[Held]) -> Held:
    """The one with the highest accuracy, the earliest of equals. One without an accuracy comes last."""
    return max(evaluations, key=lambda held: -math.inf if held.accuracy is None else held.accuracy)


def has_fallen(evaluations: Sequence[Held], settings: AlarmSettings) -> bool:
    """Whether the last `patience` evaluations all lie below the best one by more than the standard errors
    allowed.
    """
    if not settings.falls_by_errors or len(evaluations) <= settings.patience:
        return False
    best = best_of(evaluations)
    return all(_is_below(best, held, settings.falls_by_errors) for held in evaluations[-settings.patience :])


def _is_below(best: Held, held: Held, errors: float) -> bool:
    if best.accuracy is None or held.accuracy is None:
        return False
    if best.standard_error is None or held.standard_error is None:
        return False
    limit = errors * math.hypot(held.standard_error, best.standard_error)
    return held.step > best.step and best.accuracy - held.accuracy > limit
