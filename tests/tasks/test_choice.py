import time
from dataclasses import replace

import pytest

from groschen.errors import BadRequest
from groschen.tasks.choice import Choice
from groschen.tasks.slots import Slot
from verifier_samples import inside, passes, problem


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("B", True),
        ("b", True),
        ("(B)", True),
        ("B.", True),
        ("**B**", True),
        ("B) a cat", True),
        ("B: A cat", True),  # an article
        ("B: A", False),
        ("B: A is wrong", False),
        ("B) not A", False),
        ("B. I think so", True),
        ("B) or D", False),
        (r"\text{B}", True),
        (r"\textbf{(B)}", True),
        (r"\mathrm{B}", True),
        (r"\textbf{(B)}\ 26", True),
        (r"\text{B. }26", True),
        (r"\text{B} or \text{C}", False),
        (r"\text{C}", False),
        ("$B$", True),
        ("[B]", True),
        ("**B**: a cat", True),
        ("B - a cat", True),
        ("Option B", True),
        ("Answer: B", True),
        ("option (B)", True),
        ("options B", False),
        ("B cat", False),
        ("B-", False),
        ("A or B", False),
        ("A, B", False),
        ("B or C", False),
        ("C", False),
        ("Because", False),
        ("E", False),
        ("", False),
    ],
)
def test_a_choice_is_one_label(answer: str, right: bool) -> None:
    assert passes(Choice(), "B", answer) == right


@pytest.mark.parametrize(
    ("content", "right"),
    [
        (r"\text{E}", True),
        ("E: A polygenic risk score", True),
        (r"\text{E: A polygenic risk score}", True),
        ("E", True),
        ("A: E", False),
        ("E: A", False),
        ("A polygenic risk score", False),
    ],
)
def test_a_choice_in_a_box_may_be_dressed_and_have_its_text(content: str, right: bool) -> None:
    verifier = Choice(choices=tuple("ABCDE"), slot=Slot.BOXED)
    assert verifier(problem("E"), rf"So it is \boxed{{{content}}}.").passed == right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("B) Vitamin C", True),
        ("B. vitamin  C.", True),
        ("(B) Vitamin C", True),
        ("B) Vitamin D", False),
        ("B) Vitamin", True),  # names no other label
        ("B) C", False),
        ("C) Hepatitis B", False),
        ("B) Hepatitis B", True),  # another text, but no other label
        ("B) Vitamin C or D", False),
    ],
)
def test_a_label_in_the_own_text_of_an_option_is_no_other_choice(answer: str, right: bool) -> None:
    text = "What is it?\nA) Plan B\nB) Vitamin C\nC) Hepatitis B\nD) none"
    one = replace(problem("B"), messages=({"role": "user", "content": text},))
    assert Choice()(one, inside(answer)).passed == right


def test_a_long_answer_to_a_choice_takes_no_quadratic_time() -> None:
    start = time.perf_counter()
    for piece in ("B. ", "A: ", "(", "\\text{", "~", "B) A "):
        Choice()(problem("B"), inside("B) " + piece * 100_000))
    assert time.perf_counter() - start < 10


def test_labels_may_be_words_and_case_may_count() -> None:
    words = Choice(choices=("positive", "negative", "neutral"))
    assert passes(words, "Negative", "negative") and not passes(words, "negative", "not negative")
    assert not passes(Choice(ignore_case=False), "B", "b")


def test_the_last_label_that_stands_alone_is_lenient() -> None:
    assert Choice()(problem("B"), "I am between A and B").parts["lenient"] is True
    assert Choice()(problem("A"), "a cat is B").parts["lenient"] is False


@pytest.mark.parametrize("choices", [(), ("A",), ("A", "a"), ("A", "A"), ("A", " ")])
def test_labels_that_are_not_two_different_ones_are_refused(choices: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest, match="choices"):
        Choice(choices=choices)


def test_a_reference_that_is_none_of_the_labels_is_refused() -> None:
    with pytest.raises(BadRequest, match="expected one of A, B, C, D"):
        Choice().check(problem("E"))
