"""Advantages against the papers' formulas, written out slowly."""

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groschen.errors import Unsupported
from groschen.train.advantages import advantages, has_signal

GROUPS = [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0]]


def test_leave_one_out_subtracts_the_mean_of_the_others() -> None:
    for rewards, found in zip(GROUPS, advantages(GROUPS, "leave_one_out"), strict=True):
        for i, advantage in enumerate(found):
            others = rewards[:i] + rewards[i + 1 :]
            assert advantage == pytest.approx(rewards[i] - sum(others) / len(others), abs=1e-12)


def test_leave_one_out_is_the_centred_reward_times_g_over_g_minus_one() -> None:
    for loo, mean in zip(advantages(GROUPS, "leave_one_out"), advantages(GROUPS, "mean"), strict=True):
        for a, b in zip(loo, mean, strict=True):
            assert a == pytest.approx((b or 0.0) * 4 / 3, abs=1e-12)


def test_group_std_is_grpo() -> None:
    for rewards, found in zip(GROUPS, advantages(GROUPS, "group_std"), strict=True):
        mean, deviation = statistics.mean(rewards), statistics.stdev(rewards)
        assert found == pytest.approx([(r - mean) / deviation for r in rewards])


def test_batch_std_divides_every_group_by_the_same_number() -> None:
    centred = [r - statistics.mean(group) for group in GROUPS for r in group]
    deviation = math.sqrt(sum(c * c for c in centred) / (len(centred) - 1))
    found = [a for group in advantages(GROUPS, "batch_std") for a in group]
    assert found == pytest.approx([c / deviation for c in centred])


@pytest.mark.parametrize("kind", ["leave_one_out", "mean", "group_std", "batch_std"])
def test_a_verifier_that_broke_is_no_reward_of_zero(kind: str) -> None:
    with_error = advantages([[1.0, None, 0.0, 1.0]], kind)[0]  # type: ignore[arg-type]
    without = advantages([[1.0, 0.0, 1.0]], kind)[0]  # type: ignore[arg-type]
    assert with_error[1] is None
    assert [a for a in with_error if a is not None] == without
    as_zero = advantages([[1.0, 0.0, 0.0, 1.0]], kind)[0]  # type: ignore[arg-type]
    assert as_zero[0] != with_error[0]


@pytest.mark.parametrize("kind", ["leave_one_out", "mean", "group_std", "batch_std"])
def test_a_group_without_signal_has_no_advantage_not_even_from_rounding(kind: str) -> None:
    rewards = [0.1 + 0.2] * 7  # 0.30000000000000004: a mean of it may differ in the last bit
    assert not has_signal(rewards)
    assert advantages([rewards], kind) == [[0.0] * 7]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["leave_one_out", "mean", "group_std", "batch_std"])
def test_rewards_that_differ_by_rounding_alone_are_no_signal(kind: str) -> None:
    for rewards in ([0.3, 0.1 + 0.2], [0.0, 1.0 - 0.9 - 0.1], [-0.0, 0.0]):
        assert not has_signal(rewards)
        assert advantages([rewards], kind) == [[0.0, 0.0]]  # type: ignore[arg-type]
    assert has_signal([0.3, 0.3 + 1e-9])


def test_one_known_reward_is_no_signal() -> None:
    assert not has_signal([1.0, None, None])
    assert advantages([[1.0, None]], "leave_one_out") == [[0.0, None]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-8, 8).map(float), min_size=2, max_size=16))
def test_advantages_of_a_group_add_up_to_zero(rewards: list[float]) -> None:
    for kind in ("leave_one_out", "mean", "group_std", "batch_std"):
        found = advantages([rewards], kind)[0]  # type: ignore[arg-type]
        assert math.fsum(a for a in found if a is not None) == pytest.approx(0, abs=1e-9)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(Unsupported, match=r"'median'.*leave_one_out"):
        advantages([[1.0, 0.0]], "median")  # type: ignore[arg-type]
