"""A problem has one place and keeps it."""

import pytest

from groschen.errors import BadRequest
from groschen.records import Problem, Split
from groschen.tasks.splits import Shares, content, position, sample, shares_from, split_problems


def problem(number: int, split: Split | None = None, answer: object = None) -> Problem:
    prompt = {"role": "user", "content": f"What is {number} + 1?"}
    return Problem(key=f"p{number}", messages=(prompt,), answer=answer, split=split)


def places(problems: list[Problem], shares: Shares | None = None) -> dict[str, Split]:
    return {p.key: split for split, part in split_problems(problems, shares).items() for p in part}


def test_adding_problems_moves_no_other_problem() -> None:
    few = [problem(number) for number in range(300)]
    many = [problem(number) for number in range(2000, 0, -1)]
    before, after = places(few), places(many)
    assert [key for key in before if key in after and before[key] != after[key]] == []
    assert len(set(before) & set(after)) == 299


def test_the_parts_have_their_shares() -> None:
    found = list(places([problem(number) for number in range(5000)]).values())
    # Binomial: 500 plus or minus 21; five such deviations have odds of less than one in a million.
    assert abs(found.count(Split.DEV) - 500) < 106
    assert abs(found.count(Split.TEST) - 500) < 106


def test_the_place_of_a_problem_is_the_same_in_every_version() -> None:
    # Where these numbers change, the test problems of every task have changed. Do not adjust them.
    assert [round(position(problem(number)), 6) for number in (1, 2, 3)] == [0.550492, 0.356189, 0.682845]


def test_neither_key_nor_answer_nor_white_space_decides() -> None:
    first = problem(7, answer=8)
    prompt = {"content": " What is  7 + 1?\n", "role": "user"}
    second = Problem(key="another", messages=(prompt,), answer="eight", meta={"page": 3})
    assert position(first) == position(second)
    assert content(first) == content(second)


def test_the_unicode_form_of_a_letter_does_not_decide() -> None:
    composed, decomposed = (
        {"role": "user", "content": f"Stra\u00dfe in M{u}nchen"} for u in ("\u00fc", "u\u0308")
    )
    first, second = (Problem(key="a", messages=(prompt,)) for prompt in (composed, decomposed))
    assert position(first) == position(second)


def test_upper_and_lower_case_are_two_problems() -> None:
    first, second = (
        Problem(key="a", messages=({"role": "user", "content": t},)) for t in ("Spell aB", "Spell ab")
    )
    assert content(first) != content(second)


def test_a_split_that_the_author_named_is_kept() -> None:
    named = [problem(number, list(Split)[number % 3]) for number in range(90)]
    assert places(named) == {p.key: p.split for p in named}


def test_with_train_and_test_named_dev_is_cut_from_train() -> None:
    named = [problem(number, Split.TEST if number < 100 else Split.TRAIN) for number in range(1000)]
    found = places(named)
    assert {found[p.key] for p in named[:100]} == {Split.TEST}
    num_dev = list(found.values()).count(Split.DEV)
    assert 50 < num_dev < 140  # 900 at one tenth: 90, standard deviation 9
    assert found == {**found, **places(named[:500])}  # the cut does not depend on the other rows either


def test_a_named_test_split_takes_no_unnamed_problem() -> None:
    mixed = [problem(number, Split.TEST if number < 10 else None) for number in range(500)]
    found = places(mixed)
    assert sorted(key for key in found if found[key] is Split.TEST) == sorted(f"p{n}" for n in range(10))
    assert Split.DEV in found.values()


def test_a_larger_dev_takes_nothing_from_test_and_keeps_what_it_had() -> None:
    problems = [problem(number) for number in range(1000)]
    small, large = (places(problems, Shares(dev=dev)) for dev in (0.05, 0.3))
    assert all(large[key] == place for key, place in small.items() if place != Split.TRAIN)
    assert {small[key] for key in small if small[key] != large[key]} == {Split.TRAIN}


def test_a_sample_does_not_depend_on_the_order_and_a_larger_one_holds_a_smaller_one() -> None:
    problems = [problem(number) for number in range(200)]
    some, turned = sample(problems, 20), sample(problems[::-1], 20)
    assert {p.key for p in some} == {p.key for p in turned}
    assert len(some) == 20 and {p.key for p in some} <= {p.key for p in sample(problems, 50)}
    assert sample(problems, None) == tuple(problems)


def test_a_sample_is_not_the_test_split() -> None:
    problems = [problem(number) for number in range(1000)]
    found = places(problems)
    assert {found[p.key] for p in sample(problems, 60)} == set(Split)  # odds of luck: 0.9 ** 60 each


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"dev": 0.6, "test": 0.6}, "at most 1"),
        ({"dev": -0.1}, "not possible"),
        ({"dve": 0.1}, "did you mean 'dev'?"),
        ({"train": 0.8}, "train takes the rest"),
        ({"dev": "much"}, "expected a number"),
        ({"dev": True}, "expected a number"),
        ([0.1, 0.1], "expected shares"),
    ],
)
def test_impossible_shares_are_refused(table: object, said: str) -> None:
    with pytest.raises(BadRequest, match=r"here|not possible") as caught:
        shares_from(table, "here")
    assert said in str(caught.value)
