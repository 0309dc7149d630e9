"""What stands twice is found, and problems of one template are not taken for copies."""

import random
import time
from collections.abc import Iterable

import pytest

from groschen.errors import BadRequest
from groschen.records import Problem, Split
from groschen.tasks.overlap import Overlap, find_overlap, refuse_copies

WORDS = [
    f"{first}{last}" for first in "bdfgklmnprstvw" for last in ("alo", "eni", "iru", "oma", "uda", "anke")
]
ASK = "Please reason step by step, and put your final answer within the box below, nothing else."


def story(seed: int, length: int = 40) -> str:
    """Words and a few numbers, other ones for each seed."""
    draw = random.Random(seed)
    return " ".join(
        str(draw.randrange(2, 999)) if draw.random() < 0.1 else draw.choice(WORDS) for _ in range(length)
    )


def problems(texts: Iterable[str], split: Split) -> tuple[Problem, ...]:
    return tuple(
        Problem(key=f"{split}{n}", messages=({"role": "user", "content": f"{text}\n\n{ASK}"},))
        for n, text in enumerate(texts)
    )


def overlap(train: Iterable[str], test: Iterable[str], dev: Iterable[str] = ()) -> Overlap:
    parts = {Split.TRAIN: train, Split.DEV: dev, Split.TEST: test}
    return find_overlap({split: problems(texts, split) for split, texts in parts.items()})


def test_different_stories_with_one_instruction_are_not_near() -> None:
    found = overlap(map(story, range(200)), map(story, range(200, 240)))
    assert (found.copies, found.near, found.repeated) == ((), (), ())


def test_a_copy_is_found_whatever_its_white_space() -> None:
    found = overlap(map(story, range(50)), [story(100), "  " + story(7).replace(" ", "  ")])
    assert [(pair.key, pair.other_key) for pair in found.copies] == [("train7", "test1")]
    assert found.near == ()


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_text_with_one_changed_word_is_near(split: str) -> None:
    words = story(7).split()
    place = next(n for n in range(20, 30) if not words[n].isdigit())
    changed = " ".join([*words[:place], "otherwise", *words[place + 1 :]])
    held_out = {"dev": [], "test": [], split: [changed]}
    found = overlap(map(story, range(50)), **held_out)
    (pair,) = found.near
    assert (pair.key, pair.other_key, pair.other_split) == ("train7", f"{split}0", Split(split))
    # 40 words begin 40 runs, 7 of which end in the instruction. A changed word in the middle costs 8.
    assert pair.similarity == pytest.approx(1 - 8 / 40, abs=0.01)


def test_a_text_that_another_one_holds_is_near() -> None:
    found = overlap([*map(story, range(50)), f"{story(300)} {story(301)} {story(302)}"], [story(301)])
    assert [pair.key for pair in found.near] == ["train50"]


def test_capitals_and_punctuation_do_not_hide_a_copy() -> None:
    found = overlap(map(story, range(50)), [story(7).upper().replace(" ", ", ")])
    assert [(pair.key, pair.similarity) for pair in found.near] == [("train7", 1.0)]


def template(draw: random.Random) -> str:
    first, second = draw.randrange(2, 900), draw.randrange(2, 900)
    return (
        f"A shop sells {first} apples in the morning and {second} apples in the afternoon of the same day to "
        "people from the village. How many apples does it sell on that day in all?"
    )


@pytest.mark.parametrize("count", [8, 60, 600])
def test_a_template_with_other_numbers_is_not_reported_wholesale(count: int) -> None:
    draw = random.Random(count)
    texts = list(dict.fromkeys(template(draw) for _ in range(count)))
    found = overlap(texts[: -count // 4], texts[-count // 4 :])
    assert found.near == ()


def test_a_template_without_numbers_is_not_reported_wholesale() -> None:
    asked = (
        "Read the following word letter by letter and say whether it is the same when read from its end: {}"
    )
    texts = [asked.format(first + second) for first in WORDS[:20] for second in WORDS[:10]]
    assert overlap(texts[:150], texts[150:]).near == ()


def test_a_single_pair_of_one_template_with_other_numbers_is_not_near() -> None:
    draw = random.Random(1)
    assert overlap([*map(story, range(30)), template(draw)], [template(draw)]).near == ()


def test_the_same_numbers_in_the_same_template_are_near() -> None:
    text = template(random.Random(1))
    found = overlap([*map(story, range(30)), text], [text.replace("village", "town")])
    assert [pair.key for pair in found.near] == ["train30"]


def test_short_texts_are_compared_as_a_whole() -> None:
    found = overlap(["2 + 3 =", "2 + 4 =", "7 - 1"], ["2 * 3 =", "2 + 5 ="])
    assert found.near == ()


def test_a_text_that_stands_twice_in_one_split_is_told() -> None:
    found = overlap([*map(story, range(20)), story(3), story(3)], map(story, range(50, 60)))
    assert [(pair.key, pair.other_key) for pair in found.repeated] == [
        ("train3", "train20"),
        ("train3", "train21"),
    ]
    assert found.copies == () and found.near == ()


def test_an_empty_split_has_no_overlap() -> None:
    assert overlap(map(story, range(5)), []) == overlap([], map(story, range(5))) == overlap([], [])


def test_copies_in_two_splits_are_refused_with_their_keys() -> None:
    parts = {split: problems(map(story, numbers), split) for split, numbers in
             ((Split.TRAIN, range(10)), (Split.DEV, range(20, 25)), (Split.TEST, (24, 30, 5)))}  # fmt: skip
    with pytest.raises(BadRequest) as caught:
        refuse_copies(parts, "stories")
    assert "2 problem(s)" in str(caught.value)
    assert "'test0' (test) is 'dev4' (dev)" in str(caught.value)
    assert "'test2' (test) is 'train5' (train)" in str(caught.value)
    refuse_copies({**parts, Split.TEST: ()}, "stories")


def test_ten_thousand_problems_against_a_thousand_take_seconds() -> None:
    train, test = (problems((story(n, 60) for n in numbers), split) for numbers, split in
                   ((range(10_000), Split.TRAIN), (range(20_000, 21_000), Split.TEST)))  # fmt: skip
    start = time.process_time()
    found = find_overlap({Split.TRAIN: train, Split.DEV: (), Split.TEST: test})
    assert time.process_time() - start < 30  # 3 to 7 s on one core of 2020
    assert found.near == ()
