import signal
import threading
import time

import pytest

from groschen.errors import BadRequest
from groschen.records import Verdict
from groschen.tasks import worker_loop, workers
from groschen.tasks.mathematics import Expression
from groschen.tasks.numbers import Locale
from groschen.tasks.slots import Slot
from verifier_samples import assert_keeps_its_own_key, inside, problem

PLAIN = Expression(slot=Slot.ANSWER, seconds=20)  # one comparison may be slow on a busy machine


def judged(gold: str, answer: str, verifier: Expression = PLAIN) -> Verdict:
    verdict = verifier(problem(gold), inside(answer))
    assert verdict.error is None
    return verdict


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("1/2", "0.5"),
        (r"\frac{1}{2}", "$1/2$"),
        ("5", "x=5"),
        ("x=5", "5"),
        ("x^2+2x+1", "(x+1)^2"),
        ("2^{100}", "1267650600228229401496703205376"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        ("x>2", r"(2,\infty)"),  # the other way round math-verify says no
        (r"\{1,2\}", "2, 1"),
        ("1000", "1,000"),
        ("50%", r"50\%"),
        (r"\text{Evelyn}", "evelyn"),
        (r"\text{Evelyn}", r"\text{Evelyn}"),
    ],
)
def test_answers_that_mean_the_same_pass(gold: str, answer: str) -> None:
    assert judged(gold, answer).passed


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("2^{100}", "2"),
        ("50", "50%"),
        ("50%", "50"),
        ("50", "$50 dollars"),
        ("50", r"\$50"),
        ("42", "41 or 42"),
        ("42", "41, 42"),
        ("42", "1 2 3 42"),
        ("42", "the answer is 42"),
        ("12", r"12 \boxed{13}"),
        (r"(2,\infty)", "x>3"),
        ("3.5", "3,5"),
        ("6", "6 cm"),
        ("silent", "listen"),
        (r"\text{silent}", "listen"),
        ("45", "10:45"),
        ("1", "2024-05-01"),
        ("x", "y"),
    ],
)
def test_answers_that_mean_something_else_fail(gold: str, answer: str) -> None:
    if gold != "silent":
        assert not judged(gold, answer).passed
    else:
        with pytest.raises(BadRequest, match="silent"):
            PLAIN.check(problem(gold))


def test_the_last_box_counts_and_only_it() -> None:
    boxed = Expression(seconds=20)
    assert boxed(problem("13"), r"\boxed{12} \boxed{13}").passed
    assert not boxed(problem("12"), r"\boxed{12} \boxed{13}").passed
    assert not boxed(problem("12"), "12").passed


@pytest.mark.parametrize(
    ("gold", "words"),
    [
        ("10:30", "a time or a ratio"),
        ("3:4", "a time or a ratio"),
        ("2024-05-01", "a date"),
        ("1.5.2024", "a date"),
        ("5/1/2024", "a date"),
        (r"\$50", "sign of money"),
        ("50 dollars", "'dollars'"),
        ("it is even", "'even'"),
        (r"\frac{1}{", "reads no expression"),
        ("9^{9^{9^9}}", "exponent above"),
        ("1" * 121, "digits"),
        ("", "expected a text"),
        (42, "expected a text"),
    ],
)
def test_a_reference_that_can_not_be_judged_is_refused_at_load(gold: object, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        PLAIN.check(problem(gold))


@pytest.mark.parametrize(
    "gold", ["2^{100}", r"\frac{3}{4}", "A", "x^2", r"\sin x", r"\left(1,2\right)", r"\text{red}"]
)
def test_a_reference_that_is_equal_to_itself_is_accepted(gold: str) -> None:
    PLAIN.check(problem(gold))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("9^{9^{9^9}}", "exponent above"),
        ("9**9**9**9", "exponent above"),
        ("9^{9^9}", "exponent above"),
        ("9^(9^9)", "exponent above"),
        ("2^{99999}", "exponent above"),
        ("10000000!", "factorial above"),
        ("(1000)!", "factorial above"),
        ("5!!!", "factorial above"),
        ("(" * 400 + "9" + ")" * 400, "characters"),
        ("(" * 100 + "9" + ")" * 100, "brackets"),
        ("7" * 200, "digits"),
    ],
)
def test_an_answer_beyond_the_limits_fails_before_anything_computes(answer: str, words: str) -> None:
    start = time.perf_counter()
    verdict = judged("9", answer)
    assert not verdict.passed and words in str(verdict.parts["why"])
    assert time.perf_counter() - start < 5  # milliseconds; no worker was asked


def test_an_exponent_within_the_limits_is_computed() -> None:
    assert judged("2^{2^{10}}", "2^{1024}").passed


@pytest.mark.parametrize("answer", ["(500!)^{5000}", r"\prod_{n=1}^{5000} (n^{n}+1)"])
def test_an_answer_that_takes_too_long_is_wrong_and_no_error(answer: str) -> None:
    limited = Expression(slot=Slot.ANSWER, seconds=2)
    start = time.perf_counter()
    verdict = judged("9", answer, limited)
    assert not verdict.passed and verdict.parts["why"] == "it takes longer than 2 s"
    assert time.perf_counter() - start < 30  # with the start of a worker before it
    assert judged("9", "9").passed  # the next answer does not suffer


def test_german_numbers_are_read_where_the_task_is_german() -> None:
    german = Expression(slot=Slot.ANSWER, locale=Locale.DE, seconds=20)
    assert judged("3.5", "3,5", german).passed and judged("1000", "1.000", german).passed
    assert judged("1000.5", "1.000,5", german).passed
    assert not judged("1", "1.000", german).passed
    assert judged(r"\{1,2\}", r"\{1; 2\}", german).passed
    either = Expression(slot=Slot.ANSWER, locale=Locale.ANY, seconds=20)
    assert judged("3.5", "3,5", either).passed and judged("3.5", "3.5", either).passed
    with pytest.raises(BadRequest, match="reference_locale"):
        Expression(reference_locale=Locale.ANY)


def test_units_are_dropped_if_the_task_says_so() -> None:
    verifier = Expression(slot=Slot.ANSWER, ignore_units=True, seconds=20)
    assert judged("6", "6 cm", verifier).passed and judged("6", r"6\text{ cm}", verifier).passed


def test_it_works_from_a_thread_and_leaves_the_callers_alarm_alone() -> None:
    found: list[Verdict] = []
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        thread = threading.Thread(target=lambda: found.append(judged("1/2", "0.5")))
        thread.start()
        thread.join()
        assert judged("1/3", r"\frac{2}{6}").passed
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 900
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert found[0].passed


def test_a_broken_worker_is_an_error_and_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    PLAIN.check(problem("17"))

    def broken(self: object, job: object, seconds: float) -> object:
        raise workers.Broke("gone")

    monkeypatch.setattr(workers.Workers, "ask", broken)
    verdict = PLAIN(problem("17"), inside("17"))
    assert verdict.error == "the comparison broke: gone" and not verdict.passed


def test_a_worker_of_mathematics_takes_no_more_than_a_gigabyte() -> None:
    assert worker_loop.MEMORY_BYTES <= 1 << 30
    assert judged(
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"
    ).passed


def test_a_long_answer_takes_no_quadratic_time() -> None:
    PLAIN.check(problem("9"))
    start = time.perf_counter()
    for piece in ("1 : ", "1/", "12.", "^{", "\\frac{", "%", "\\text{", "1 ", "=", "x=", "$"):
        assert not PLAIN(problem("9"), inside(piece * 100_000)).passed
    assert time.perf_counter() - start < 10  # tenths of a second


@pytest.mark.parametrize("gold", ["7", r"\frac{3}{4}", "x^2+1", r"\text{red}"])
@pytest.mark.parametrize("slot", [Slot.BOXED, Slot.ANSWER])
def test_an_expression_keeps_its_own_key(gold: str, slot: Slot) -> None:
    assert_keeps_its_own_key(Expression(slot=slot, seconds=20), problem(gold))
