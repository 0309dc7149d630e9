"""Length control and what is left out of a group."""

import itertools
import random
import statistics

import pytest
from tests.train.verdicts import rollout

from groschen.errors import BadRequest, Unsupported
from groschen.records import FinishReason, Group, Problem, Rollout, Verdict
from groschen.train.rewards import RewardSettings, most_varied, shaped_rewards

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


def test_the_control_rewards_the_place_of_an_answer_and_not_its_being_right() -> None:
    completion = rollout(1.0, 10).completion
    verdicts = [
        Verdict(reward=1.0, passed=True, parts={"format": True}),
        Verdict(reward=0.0, passed=False, parts={"format": True}),
        Verdict(reward=0.5, passed=True, parts={"format": False, "lenient": True}),
        Verdict(reward=0.0, passed=False, error="it broke"),
    ]
    rollouts = tuple(Rollout(completion=completion, verdict=verdict) for verdict in verdicts)
    settings = RewardSettings(source="format")
    assert shaped_rewards(Group(problem=PROBLEM, rollouts=rollouts), 100, settings) == [1.0, 1.0, 0.0, None]


def test_a_task_that_does_not_tell_the_format_apart_has_no_such_control() -> None:
    with pytest.raises(BadRequest, match="part named format"):
        shaped(RewardSettings(source="format"))


def test_an_unknown_source_of_rewards_is_named() -> None:
    with pytest.raises(Unsupported, match=r"'length'.*verdict, format"):
        shaped(RewardSettings(source="length"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rewards", "count", "kept"),
    [
        ([0.0, 1.0, 0.0, 1.0], 0, [0.0, 1.0, 0.0, 1.0]),
        ([0.0, 1.0, 0.0, 1.0], 4, [0.0, 1.0, 0.0, 1.0]),
        ([0.0, 0.0, 1.0, 0.0, 1.0, 1.0], 4, [0.0, 0.0, 1.0, None, 1.0, None]),
        ([0.0, 0.0, 0.0, 1.0], 3, [0.0, 0.0, None, 1.0]),
        ([0.2, 0.9, 0.5, None, 0.0], 2, [None, 0.9, None, None, 0.0]),
        ([1.0, 1.0, 1.0], 2, [1.0, 1.0, None]),
        ([None, 1.0, None], 2, [None, 1.0, None]),
    ],
)
def test_the_most_telling_part_of_a_group_is_trained(
    rewards: list[float | None], count: int, kept: list[float | None]
) -> None:
    assert most_varied(rewards, count) == kept


def test_no_other_choice_has_more_variance() -> None:
    generator = random.Random(3)
    for size in (3, 5, 8):
        for count in range(2, size):
            rewards = [generator.choice([0.0, 0.3, 1.0, generator.random()]) for _ in range(size)]
            kept = [each for each in most_varied(rewards, count) if each is not None]
            best = max(statistics.pvariance(part) for part in itertools.combinations(rewards, count))
            assert len(kept) == count and statistics.pvariance(kept) == pytest.approx(best)
