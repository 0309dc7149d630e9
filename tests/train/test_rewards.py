"""Length control and what is left out of a group."""

import pytest
from tests.train.verdicts import rollout

from groschen.errors import Unsupported
from groschen.records import FinishReason, Group, Problem
from groschen.train.rewards import RewardSettings, shaped_rewards

PROBLEM = Problem(key="p", messages=({"role": "user", "content": "?"},))


def shaped(settings: RewardSettings) -> list[float | None]:
    rollouts = (
        rollout(1.0, 10),
        rollout(1.0, 80),
        rollout(1.0, 90),
        rollout(0.0, 100, FinishReason.LENGTH),
        rollout(None, 5),
    )
    return shaped_rewards(Group(problem=PROBLEM, rollouts=rollouts), 100, settings)


def test_without_control_a_reward_is_the_verdicts() -> None:
    assert shaped(RewardSettings()) == [1.0, 1.0, 1.0, 0.0, None]


def test_the_soft_penalty_grows_over_the_buffer_as_in_dapo() -> None:
    assert shaped(RewardSettings(length_penalty=0.5, length_buffer=20)) == [1.0, 1.0, 0.75, -0.5, None]


def test_a_cut_completion_may_be_left_out_and_is_then_no_failure() -> None:
    assert shaped(RewardSettings(truncated="left_out")) == [1.0, 1.0, 1.0, None, None]


def test_an_unknown_way_is_named() -> None:
    with pytest.raises(Unsupported, match=r"'masked'.*left_out"):
        shaped(RewardSettings(truncated="masked"))  # type: ignore[arg-type]
