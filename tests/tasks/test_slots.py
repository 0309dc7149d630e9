import time

import pytest

from groschen.tasks.slots import Slot, after_thinking, anywhere, fill, last_fence, strict


@pytest.mark.parametrize(
    ("slot", "text", "found"),
    [
        (Slot.ANSWER, "so <answer> 42 </answer> done", "42"),
        (Slot.ANSWER, "<answer>41</answer> no: <answer>42</answer>", "42"),
        (Slot.ANSWER, "42", None),
        (Slot.ANSWER, "<answer></answer>", None),
        (Slot.ANSWER, "<answer>42", None),
        (Slot.ANSWER, "</answer><answer>", None),
        (Slot.BOXED, r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (Slot.BOXED, r"\boxed{12} and \boxed{13}", "13"),
        (Slot.BOXED, r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (Slot.BOXED, r"\boxed{\boxed{7}}", "7"),
        (Slot.BOXED, r"\boxed {5}", "5"),
        (Slot.BOXED, "\\boxed\n  {5}", "5"),
        (Slot.BOXED, r"\boxed{4} and \boxed {5}", "5"),
        (Slot.BOXED, r"\boxed {4} and \boxed{5", None),
        (Slot.BOXED, r"\boxed 5", None),  # TeX would box one sign of it
        (Slot.BOXED, r"\boxed (5)", None),
        (Slot.BOXED, r"\boxed{12", None),
        (Slot.BOXED, "boxed{12}", None),
        (Slot.HASHES, "18 - 3 = 15\n#### 15\nbye", "15"),
        (Slot.HASHES, "#### 1\n#### 2", "2"),
        (Slot.HASHES, "15", None),
        (Slot.LAST_LINE, "a\n b \n\n", "b"),
        (Slot.LAST_LINE, "\n \n", None),
        (Slot.WHOLE, " all of it\n", "all of it"),
    ],
)
def test_a_slot_has_the_content_that_was_asked_for(slot: Slot, text: str, found: str | None) -> None:
    assert strict(text, slot) == found


def test_an_answer_that_is_opened_again_and_not_closed_is_no_answer() -> None:
    assert strict("<answer>41</answer> wait <answer>42", Slot.ANSWER) is None


def test_only_what_follows_the_thoughts_counts() -> None:
    assert strict("<think><answer>1</answer></think><answer>2</answer>", Slot.ANSWER) == "2"
    assert strict("<think><answer>1</answer></think> 2", Slot.ANSWER) is None
    assert strict("<answer>1</answer></think> 2", Slot.ANSWER) is None  # opened in the prompt


@pytest.mark.parametrize("slot", list(Slot))
def test_open_thoughts_have_no_answer(slot: Slot) -> None:
    assert strict(f"<think>I think {fill('1', slot)}", slot) is None
    assert strict(f"<think>a</think> b <think>{fill('1', slot)}", slot) is None
    assert after_thinking("<think>") is None


@pytest.mark.parametrize("slot", list(Slot))
@pytest.mark.parametrize("content", ["42", r"\frac{1}{2}", "a b"])
def test_a_filled_slot_has_its_content(slot: Slot, content: str) -> None:
    assert strict(fill(content, slot), slot) == content


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("The answer is 7. I hope so.\nBye", "7. I hope so"),
        ("Die Antwort lautet 7.", "7"),
        (r"well, \boxed{7}", "7"),
        ("<think>a</think>\n7", "7"),
        ("<think> and then 7", "<think> and then 7"),
    ],
)
def test_an_answer_is_looked_for_where_a_person_would(text: str, first: str) -> None:
    assert next(anywhere(text)) == first


def test_the_last_closed_block_of_a_language_is_found() -> None:
    text = "```python\na\n```\ntext\n```\nb\n```\n```json\n{}\n```\n```python\nnot closed"
    assert last_fence(text, frozenset(["python"])) == "a\n"
    assert last_fence(text, frozenset(["python", ""])) == "b\n"
    assert last_fence(text, frozenset(["json"])) == "{}\n"
    assert last_fence(text, frozenset(["rust"])) is None


@pytest.mark.parametrize(
    "mark", ["<answer>", "</answer>", "\\boxed{", "####", "<think>", "</think>", "```\n", "answer is"]
)
def test_a_mark_that_is_repeated_a_hundred_thousand_times_takes_no_quadratic_time(mark: str) -> None:
    text = mark * 100_000
    start = time.perf_counter()
    for slot in Slot:
        strict(text, slot)
    list(anywhere(text))
    last_fence(text, frozenset([""]))
    assert time.perf_counter() - start < 10  # tenths of a second; minutes if a search begins anew at each
