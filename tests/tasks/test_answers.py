import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groschen.errors import BadRequest
from groschen.tasks.answers import Exact, Number, Percent
from groschen.tasks.choice import Choice
from groschen.tasks.json_schema import Json
from groschen.tasks.judging import InSlot
from groschen.tasks.numbers import Locale
from groschen.tasks.slots import Slot
from verifier_samples import assert_keeps_its_own_key, inside, passes, problem


def test_an_exact_answer_is_the_reference_but_for_white_space() -> None:
    assert passes(Exact(), "New York", " New \n York ")
    assert passes(Exact(), "é", "e\u0301")
    assert not passes(Exact(), "New York", "new york")
    assert passes(Exact(ignore_case=True), "New York", "new york")
    assert not passes(Exact(), "New York", "New York or Boston")


@pytest.mark.parametrize("verifier", [Exact(), Json(whole=True, slot=Slot.ANSWER)])
def test_a_letter_with_a_hundred_thousand_marks_takes_no_quadratic_time(verifier: InSlot) -> None:
    start = time.perf_counter()
    assert not verifier(problem("é"), inside('"e' + "\u0301\u0323" * 50_000 + '"')).passed
    assert time.perf_counter() - start < 2  # hundredths of a second; 7 s if it were normalized


@pytest.mark.parametrize("answer", ["", "  ", None, 3, ["a"]])
def test_a_reference_that_is_no_text_is_refused(answer: object) -> None:
    with pytest.raises(BadRequest, match="p1"):
        Exact().check(problem(answer))
    with pytest.raises(BadRequest, match="p1"):
        Exact()(problem(answer), inside("3"))


def test_the_verdict_says_format_answer_and_why() -> None:
    verdict = Exact()(problem("a"), "the answer is a")
    assert verdict.parts == {
        "format": False,
        "lenient": True,
        "answer": None,
        "why": "no answer stands where it was asked for",
    }
    assert not verdict.passed and verdict.reward == 0.0
    assert Exact()(problem("a"), inside("b")).parts["why"] == "not the reference"


def test_the_format_is_rewarded_only_if_that_is_configured() -> None:
    for text, without, with_format in ((inside("a"), 1.0, 1.25), (inside("b"), 0.0, 0.25), ("a", 0.0, 0.0)):
        assert Exact()(problem("a"), text).reward == without
        assert Exact(format_reward=0.25)(problem("a"), text).reward == with_format


def test_a_reward_for_the_format_that_is_no_number_is_refused() -> None:
    with pytest.raises(BadRequest, match="format_reward"):
        Exact(format_reward=float("nan"))


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        (42, "42", True),
        (42, "42.0", True),
        (42, "43", False),
        (42, "41 or 42", False),
        (42, "42 apples", True),
        (42, "$42", True),
        (42, "420", False),
        (0.1, "0.1", True),
        (0.5, "1/2", True),
        ("1/3", "0.3333", False),
        (1000, "1,000", True),
        (50, "50%", False),
        ("50%", "50%", True),
        ("50%", "50", False),
        (-3, "−3", True),
        (5, "five", False),
        (5_000_000, "5 million", True),
        (5, "5 million", False),
    ],
)
def test_a_number_is_right_if_its_value_is(reference: object, answer: str, right: bool) -> None:
    assert passes(Number(), reference, answer) == right


def test_the_notation_of_the_task_decides() -> None:
    german, either = Number(locale=Locale.DE), Number(locale=Locale.ANY)
    assert passes(german, 1000, "1.000") and not passes(german, 1, "1.000")
    assert passes(german, 1000.5, "1.000,5") and not passes(german, 1000.5, "1,000.5")
    assert passes(either, 1000, "1.000") and passes(either, 1000, "1,000") and passes(either, 1, "1.000")
    assert not passes(either, 1000, "1.0000")


def test_references_in_english_notation_are_compared_with_german_texts() -> None:
    mgsm = Number(locale=Locale.DE, reference_locale=Locale.EN)
    assert passes(mgsm, "114,200", "114.200")
    assert not passes(mgsm, "114,200", "114,2")
    assert mgsm.gold(problem("114,200.5")) == inside("114200,5")


@pytest.mark.parametrize("answer", ["1.000", "1,000"])
def test_a_reference_with_two_readings_is_refused(answer: str) -> None:
    with pytest.raises(BadRequest, match=r"two numbers.*reference_locale"):
        Number(locale=Locale.ANY).check(problem(answer))


@pytest.mark.parametrize("answer", ["", "a", "41 or 42", None, True, [1], float("inf"), float("nan")])
def test_a_reference_that_is_no_number_is_refused(answer: object) -> None:
    with pytest.raises(BadRequest, match="not one number"):
        Number().check(problem(answer))


def test_a_unit_is_required_where_the_task_says_so() -> None:
    verifier = Number(units=("km", "Kilometer"))
    assert passes(verifier, 5, "5 km") and passes(verifier, 5, "5 Kilometer")
    assert not passes(verifier, 5, "5") and not passes(verifier, 5, "5 m")
    assert verifier(problem(5), inside("5 m")).parts["why"] == "the unit is 'm', not 'km' or 'Kilometer'"


def test_percent_signs_are_dropped_or_divide_if_the_task_says_so() -> None:
    assert passes(Number(percent=Percent.IGNORE), 50, "50%")
    fraction = Number(percent=Percent.FRACTION)
    assert passes(fraction, 0.5, "50%") and passes(fraction, "50%", "0.5") and not passes(fraction, 50, "50%")


def test_tolerances_are_sizes_of_the_difference() -> None:
    assert passes(Number(absolute=0.1), 1, "1.1") and not passes(Number(absolute=0.1), 1, "1.11")
    assert passes(Number(relative=0.01), 200, "198") and not passes(Number(relative=0.01), 200, "197.9")
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(BadRequest, match="relative"):
            Number(relative=wrong)


def test_a_right_number_outside_of_its_slot_is_lenient_only() -> None:
    verdict = Number()(problem(42), "So we have 41 and then 42 apples.")
    assert not verdict.passed and verdict.parts["lenient"] is True and verdict.parts["format"] is False
    verdict = Number()(problem(41), "So we have 41 and then 42 apples.")
    assert verdict.parts["lenient"] is False


@given(
    value=st.fractions(max_denominator=1000) | st.integers(-(10**12), 10**12).map(Fraction),
    locale=st.sampled_from([Locale.EN, Locale.DE]),
    units=st.sampled_from([(), ("km",), ("€",)]),
    percent=st.sampled_from(list(Percent)),
    tolerance=st.sampled_from([0.0, 0.5]),
)
def test_a_number_keeps_its_own_key(
    value: Fraction, locale: Locale, units: tuple[str, ...], percent: Percent, tolerance: float
) -> None:
    verifier = Number(locale=locale, units=units, percent=percent, relative=tolerance)
    assert_keeps_its_own_key(verifier, problem(str(value)))


@pytest.mark.parametrize("slot", list(Slot))
@pytest.mark.parametrize(
    ("verifier", "answer"),
    [(Exact, "yes"), (Exact, "a {b} c"), (Number, 7), (Number, "12%"), (Choice, "C")],
)
def test_every_slot_keeps_the_key_of_every_kind(verifier: type[InSlot], slot: Slot, answer: object) -> None:
    assert_keeps_its_own_key(verifier(slot=slot), problem(answer))


def test_texts_that_the_author_calls_gold_and_wrong_are_used() -> None:
    one = problem("yes", gold="yes", wrong=["no", "never"])
    assert Exact().gold(one) == inside("yes")
    assert {inside("no"), inside("never")} <= set(Exact().wrong(one))
    with pytest.raises(BadRequest, match="list of texts"):
        Exact().wrong(problem("yes", wrong="no"))
