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


PAIRS = [  # reference, answer, whether it is right
    (r"6.63 \times 10^{-34}", r"6.63 \times 10^{-19}", False),
    (r"6.63 \times 10^{-34}", r"6.63 \times 10^{-34}", True),
    (r"6.63 \times 10^{-34}", "6.63e-34", True),
    (r"6.63 \times 10^{-34}", r"66.3 \cdot 10^{-35}", True),
    (r"6.63 \times 10^{-34}", "6.63e-35", False),
    (r"6.63 \times 10^{-34}", "0", False),
    ("1/2^{99}", "1/2^{98}", False),
    ("1/2^{99}", "2^{-99}", True),
    ("1/2^{99}", r"1.57772 \times 10^{-30}", True),
    ("1/2^{99}", r"1.57773 \times 10^{-30}", True),  # within one of the last digit
    ("1/2^{99}", r"1.57775 \times 10^{-30}", False),
    ("0.00012345", "0.000123", False),
    ("0.00012345", "0.0001235", False),
    ("0.00012345", "1.2345e-4", True),
    ("0.00012345", r"\frac{12345}{100000000}", True),
    ("0.5", r"\frac{1}{2}", True),
    ("1/3", "0.333333", True),
    ("1/3", "0.3333", False),
    ("0.333", r"\frac13", False),
    (r"\sqrt{2}", "1.414214", True),
    (r"\sqrt{2}", "1.41421", True),
    (r"\sqrt{2}", "1.4142", False),
    (r"\sqrt{2}", "1.414224", False),
    (r"\pi", "3.141592653589793", True),
    (r"\pi", r"\frac{22}{7}", False),
    ("1234567.891", "1234567.9", False),
    ("2^{100}", "1.26765e30", True),
    ("100000000", "100000001", False),
    ("10^{30}", "10^{30}+1", False),
    (r"\sqrt{10^{40}+1}", "10^{20}", False),
    ("101_2", "101_3", False),
    ("101_2", "101_2", True),
    ("101_2", "101_{2}", True),
    ("101_2", "101", True),  # the question names the base
    ("101_2", "5", False),  # what was to be written in base 2
    ("101_2", "5_{10}", False),
    ("101_2", "110_2", False),
    ("2A_{16}", "2A_{16}", True),
    ("2A_{16}", "2B_{16}", False),
    ("5", "101_2", False),
    ("42", "42_{10}", True),
    ("x_1", "x_2", False),
    ("x_1", "x_1", True),
    ("(1,2)", r"\{1,2\}", False),
    (r"\{1,2\}", "(2,1)", False),
    (r"\{1,2\}", "(1,2)", False),
    (r"\{1,2\}", r"\{2,1\}", True),
    (r"\{1,2\}", r"\left\{2, 1\right\}", True),
    (r"\{1,2\}", "1, 2", True),
    (r"\{1,2\}", r"\{1,2,3\}", False),
    (r"\{1,1,2\}", r"\{1,2,2\}", False),
    ("(1,2)", "(1, 2)", True),
    ("(1,2)", "(2,1)", False),
    ("(1,2)", "1, 2", True),
    ("(1,2)", "2, 1", False),
    ("(1,2)", "[1,2]", False),
    ("(1,2)", r"\left(1, \frac{4}{2}\right)", True),
    ("1,2", "2,1", True),
    ("1,2", r"1 \text{ or } 2", True),
    ("1,2", "x = 1 or x = 2", True),
    ("(1,2,3)", r"\{1,2,3\}", False),
    ("(1,2),(3,4)", "(3,4),(1,2)", True),
    ("(1,2),(3,4)", "(2,1),(3,4)", False),
    (r"(1,2)\cup(3,4)", r"(3,4)\cup(1,2)", True),
    ("(0.1,2)", r"(\frac{1}{10},2)", True),
    (r"[10^{-20},2]", r"[10^{-21},2]", False),
    ("42", "43 = 42", False),
    ("42", "1 = 2 = 3 = 42", False),
    ("42", r"0 \cdot x = 42", False),
    ("42", "42 = 43", False),
    ("42", "x = 42", True),
    ("42", "42 = x", True),
    ("42", "x_1 = 42", True),
    ("42", "f(2) = 42", True),
    ("42", r"\angle A = 42", True),
    ("42", "AB = 42", True),
    ("42", "P(X=3) = 42", True),
    ("42", r"6 \cdot 7 = 42", True),
    ("42", r"x = 6 \cdot 7 = 42", True),
    ("42", r"x = 6 \cdot 8 = 42", False),
    ("42", "x = 43 = 42", False),
    ("42", "2x = 42", False),
    ("42", "x = y = 42", False),
    ("42", r"\pi = 42", False),
    ("x=5", "y=5", False),
    ("x=5", "x=5", True),
    ("x=5", "5=x", True),
    ("x=1, y=2", "y=2, x=1", True),
    ("x=1, y=2", "x=2, y=1", False),
    ("y=2x+3", "2x+3", True),
    ("y=2x+3", "y-2x=3", True),
    ("y=2x+3", "y=2x+4", False),
    ("x+y=5", "y+x=5", True),
    ("x+y=5", "5", False),
    (r"\begin{pmatrix} 0.5 \\ 2 \end{pmatrix}", r"\begin{pmatrix} \frac{1}{2} \\ 2 \end{pmatrix}", True),
    (r"\begin{pmatrix} 10^{-9} \\ 2 \end{pmatrix}", r"\begin{pmatrix} 10^{-8} \\ 2 \end{pmatrix}", False),
    ("0.5x", r"\frac{x}{2}", True),
    ("0.5x", "0.5000001x", False),
    (r"\sqrt{x^2}", "x", False),
    (r"\sin^2 x + \cos^2 x", "1", True),
    ("3+4i", "4i+3", True),
    ("x > 2", "2 < x", True),
    ("[1,2]", r"1 \le x \le 2", True),
    ("[1,2]", r"1 < x \le 2", False),
    (r"(2,\infty)", "x > 2", True),
    (r"\pm 2", "2, -2", True),
    ("2, -2", r"x = \pm 2", True),
    ("2, -2", r"\pm 3", False),
    (r"\pm 2", "2", False),
    (r"3 \pm \sqrt{2}", r"3+\sqrt{2}, 3-\sqrt{2}", True),
    (r"\pm 1, \pm 2", "1, 2, -1, -2", True),
    (r"\frac{1}{3}", r"0.\overline{3}", True),
    (r"\frac{1}{6}", r"0.1\overline{6}", True),
    (r"\frac{1}{6}", r"0.1\overline{5}", False),
    ("x > 0.0000001", "x > 0.0000002", False),
]


@pytest.mark.parametrize(("gold", "answer", "right"), PAIRS)
def test_an_answer_means_what_the_reference_means_or_fails(gold: str, answer: str, right: bool) -> None:
    assert judged(gold, answer).passed == right


def test_a_base_inside_of_an_expression_is_refused() -> None:
    with pytest.raises(BadRequest, match="a number with a base"):
        PLAIN.check(problem("101_2 + 11_2"))


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
