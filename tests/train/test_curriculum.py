"""Which problems a step gets: every one in turn, none twice, and the useless ones rest."""

import copy
from collections.abc import Sequence

from tests.train.verdicts import group

from groschen.records import Group, Problem
from groschen.train.curriculum import Curriculum
from groschen.train.rewards import RewardSettings, shaped_rewards

PROBLEMS = [Problem(key=f"p{n}", messages=({"role": "user", "content": str(n)},)) for n in range(10)]


def observe(curriculum: Curriculum, groups: Sequence[Group]) -> None:
    """As a run without shaping does."""
    curriculum.observe(groups, [shaped_rewards(each, 100, RewardSettings()) for each in groups])


def keys(curriculum: Curriculum, count: int) -> list[str]:
    return [problem.key for problem in curriculum.next(count)]


def test_a_pass_asks_every_problem_once_in_an_order_of_the_seed() -> None:
    one, same, other = (Curriculum(PROBLEMS, seed, 0) for seed in (1, 1, 2))
    first = keys(one, 5) + keys(one, 5)
    assert sorted(first) == sorted(problem.key for problem in PROBLEMS)
    assert keys(same, 5) + keys(same, 5) == first
    assert keys(other, 5) + keys(other, 5) != first
    assert keys(one, 10) != first, "the second pass is shuffled anew"


def test_a_step_never_has_a_problem_twice_even_across_passes() -> None:
    curriculum = Curriculum(PROBLEMS, 1, 0)
    for _ in range(20):
        step = keys(curriculum, 7)
        assert len(set(step)) == 7


def test_a_problem_without_signal_rests_and_comes_back() -> None:
    curriculum = Curriculum(PROBLEMS, 1, 2)
    dull = PROBLEMS[3]
    for _ in range(2):
        observe(curriculum, [group(dull, [0.0, 0.0, 0.0])])
    assert curriculum.num_aside == 1
    asked = [key for _ in range(3) for key in keys(curriculum, 9)]
    assert dull.key not in asked[:9]
    later = [key for _ in range(10) for key in keys(curriculum, 9)]
    assert dull.key in later


def test_a_group_with_signal_ends_the_streak() -> None:
    curriculum = Curriculum(PROBLEMS, 1, 2)
    for rewards in ([1.0, 1.0], [1.0, 0.0], [1.0, 1.0]):
        observe(curriculum, [group(PROBLEMS[0], rewards)])
    assert curriculum.num_aside == 0
    observe(curriculum, [group(PROBLEMS[0], [0.0, 0.0])])
    assert curriculum.num_aside == 0, "all failed does not go on with a streak of all passed"


def test_a_problem_whose_failures_earn_different_rewards_goes_on() -> None:
    curriculum = Curriculum(PROBLEMS, 1, 1)
    observe(curriculum, [group(PROBLEMS[0], [0.0, 0.4])])
    assert curriculum.num_aside == 0, "this group was trained"
    curriculum.observe([group(PROBLEMS[1], [0.0, 0.4])], [[0.2, 0.2]])
    assert curriculum.num_aside == 1, "the rewards of training decide"


def test_a_verifier_that_broke_says_nothing_about_a_problem() -> None:
    curriculum = Curriculum(PROBLEMS, 1, 1)
    observe(curriculum, [group(PROBLEMS[0], [None, None])])
    assert curriculum.num_aside == 0


def test_a_step_is_full_even_if_everything_rests() -> None:
    curriculum = Curriculum(PROBLEMS, 1, 1)
    observe(curriculum, [group(problem, [0.0, 0.0]) for problem in PROBLEMS])
    assert curriculum.num_aside == 10
    assert len(set(keys(curriculum, 6))) == 6


def test_a_saved_state_goes_on_as_if_it_had_never_stopped() -> None:
    curriculum = Curriculum(PROBLEMS, 1, 1)
    keys(curriculum, 4)
    observe(curriculum, [group(PROBLEMS[2], [1.0, 1.0])])
    resumed = Curriculum(PROBLEMS, 1, 1, copy.deepcopy(curriculum.state))
    assert [keys(curriculum, 4) for _ in range(6)] == [keys(resumed, 4) for _ in range(6)]


def test_a_problem_that_is_added_moves_no_other() -> None:
    more = [*PROBLEMS, Problem(key="new", messages=({"role": "user", "content": "new"},))]
    before = keys(Curriculum(PROBLEMS, 1, 0), 10)
    after = [key for key in keys(Curriculum(more, 1, 0), 11) if key != "new"]
    assert before == after
