"""What training makes of verdicts before advantages: length control and the divergence that belongs into
the reward.

Leaves out `passed`, which no shaping touches. Sources: soft length penalty, DAPO, arXiv 2503.14476, equation
13; which completions of a group are trained, PODS, arXiv 2504.13818, theorem 1.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from groschen.errors import BadRequest, Unsupported
from groschen.ranges import Range
from groschen.records import FinishReason, Group, Verdict

Source = Literal["verdict", "format"]
SOURCES: tuple[str, ...] = get_args(Source)
Truncated = Literal["graded", "left_out"]
TRUNCATED_WAYS: tuple[str, ...] = get_args(Truncated)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSettings:
    """How a verdict's reward becomes that of training."""

    # "format" rewards an answer that stands where it was asked for, right or wrong: a control, no recipe.
    source: Source = "verdict"
    # Taken off a completion of max_tokens, and less the shorter it is.
    length_penalty: Annotated[float, Range(least=0, most=1_000)] = 0.0
    # Tokens before max_tokens over which the penalty grows from 0.
    length_buffer: Annotated[int, Range(least=0, most=10_000_000)] = 0
    truncated: Truncated = "graded"  # a cut completion has reward 0, or is left out of its group


def shaped_rewards(group: Group, max_tokens: int, settings: RewardSettings) -> list[float | None]:
    """The training reward of each rollout; None for one that is not trained: its verdict is an error, or it
    is cut.

    Raises Unsupported if a setting is not known, BadRequest if the task does not tell the format apart.
    """
    if settings.source not in SOURCES:
        raise Unsupported(
            f"rewards.source = {settings.source!r} is not known; take one of {', '.join(SOURCES)}"
        )
    if settings.truncated not in TRUNCATED_WAYS:
        raise Unsupported(
            f"truncated = {settings.truncated!r} is not known; take one of {', '.join(TRUNCATED_WAYS)}"
        )
    rewards: list[float | None] = []
    for rollout in group.rollouts:
        is_cut = rollout.completion.finish_reason is FinishReason.LENGTH
        if rollout.verdict.error is not None or (is_cut and settings.truncated == "left_out"):
            rewards.append(None)
            continue
        too_long = len(rollout.completion.token_ids) - (max_tokens - settings.length_buffer)
        share = min(1.0, max(0.0, too_long / settings.length_buffer)) if settings.length_buffer else 0.0
        rewards.append(_reward(rollout.verdict, settings.source) - settings.length_penalty * share)
    return rewards


def most_varied(rewards: Sequence[float | None], count: int) -> list[float | None]:
    """The `count` rewards of a group with the greatest variance, the others None: they are not trained.

    On a CPU a completion costs a third of its training to draw or less, so a large group may be drawn and
    its most telling part be trained. The greatest variance is always that of some lowest and some highest
    rewards; among equal ones the first drawn are taken. count 0 takes all.
    """
    known = {i: each for i, each in enumerate(rewards) if each is not None}
    if count == 0 or len(known) <= count:
        return list(rewards)
    lowest = sorted(known, key=lambda i: (known[i], i))
    highest = sorted(known, key=lambda i: (-known[i], i))
    best: list[int] = []
    for num_low in sorted(range(count + 1), key=lambda n: abs(2 * n - count)):  # the most even one first
        chosen = lowest[:num_low]
        chosen += [i for i in highest if i not in chosen][: count - num_low]
        if not best or _variance(known, chosen) > _variance(known, best):
            best = chosen
    return [each if i in best else None for i, each in enumerate(rewards)]


def _variance(rewards: Mapping[int, float], chosen: Sequence[int]) -> float:
    return statistics.pvariance([rewards[i] for i in chosen])


def _reward(verdict: Verdict, source: Source) -> float:
    if source == "verdict":
        return verdict.reward
    if not isinstance(has_format := verdict.parts.get("format"), bool | int | float):
        raise BadRequest(
            'rewards.source = "format" needs verdicts with a part named format, and this task has none; '
            "take a verifier that looks for an answer's place"
        )
    return float(has_format)
