"""When an evaluation says nothing because its verifier failed."""

import pytest

from groschen.evals.evaluate import verifier_fault
from groschen.records import EvalRecord, FinishReason


def record(number: int, error: str | None = None, *, is_cut: bool = False) -> EvalRecord:
    return EvalRecord(
        key=f"p{number}", sample=0, prompt="?", text="", answer="1", passed=False, reward=0.0, parts={},
        error=error, num_tokens=3, finish_reason=FinishReason.LENGTH if is_cut else FinishReason.STOP,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cut", "graded", "errors", "said"),
    [
        (0, 0, 5, "failed on 5 of 5"),
        (95, 0, 5, "failed on 5 of 5"),
        (50, 30, 20, "failed on 20 of 50"),
        (0, 8, 2, None),
        (10, 0, 0, None),
        (0, 0, 0, None),
    ],
    ids=["all", "all-but-cut", "beyond", "at-the-limit", "all-cut", "none"],
)
def test_errors_count_among_the_completions_that_the_verifier_was_shown(
    cut: int, graded: int, errors: int, said: str | None
) -> None:
    records = [record(n, is_cut=True) for n in range(cut)] + [record(n + 100) for n in range(graded)]
    records += [record(n + 200, f"ValueError: {n} (task.py:7)") for n in range(errors)]
    fault = verifier_fault(records, 0.2, "penny")
    assert (fault is None) == (said is None)
    assert said is None or (fault is not None and said in fault)
    assert fault is None or "on problem 'p200': ValueError: 0 (task.py:7)" in fault
