"""Summaries and comparisons of made-up records, counted by hand."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from groschen.errors import BadFile, BadRequest
from groschen.evals.comparison import (
    Finding,
    Solved,
    compare,
    comparison_json,
    share_explained,
    summarise,
    summary_json,
)
from groschen.evals.stats import wilson_interval
from groschen.records import EvalRecord, FinishReason

Part = Mapping[str, float | bool | str | None]


def record(key: str, sample: int, passed: bool, parts: Part | None = None, tokens: int = 10) -> EvalRecord:
    return EvalRecord(
        key=key,
        sample=sample,
        prompt="?",
        text="text",
        answer="7",
        passed=passed,
        reward=0.5 * passed,
        parts=parts or {},
        error=None,
        num_tokens=tokens,
        finish_reason=FinishReason.STOP,
    )


def problem(key: str, *passed: bool) -> list[EvalRecord]:
    return [record(key, sample, each) for sample, each in enumerate(passed)]


def problems(*rows: Sequence[int]) -> list[EvalRecord]:
    return [each for i, row in enumerate(rows) for each in problem(f"p{i}", *map(bool, row))]


def broken(found: EvalRecord) -> EvalRecord:
    return replace(found, error="TimeoutError", passed=False)


def test_a_summary_counts_what_can_be_counted_by_hand() -> None:
    records = problems((1, 1, 0, 0), (0, 0, 0, 0), (1, 1, 1, 1))
    records[0] = replace(records[0], finish_reason=FinishReason.LENGTH, num_tokens=40)
    summary = summarise(records)
    assert (summary.num_problems, summary.num_completions, summary.k) == (3, 12, 4)
    assert summary.pass_at_1.value == 0.5
    assert summary.pass_at_k == {1: 0.5, 2: pytest.approx((5 / 6 + 0 + 1) / 3), 4: pytest.approx(2 / 3)}
    assert summary.truncated == 1 / 12
    assert (summary.mean_tokens, summary.median_tokens) == (12.5, 10)
    assert summary.mean_reward == 0.25


def test_a_broken_verifier_is_neither_right_nor_wrong() -> None:
    records = problems((1, 1), (0, 0), (1, 0))
    records[1], records[4], records[5] = (broken(records[i]) for i in (1, 4, 5))
    summary = summarise(records)
    assert summary.pass_at_1.value == 0.5  # p0 passed once of one graded, p1 failed, p2 has no grade
    assert (summary.num_problems, summary.num_ungraded_problems, summary.num_errors) == (2, 1, 3)
    assert summary.errors == 0.5
    assert summary.pass_at_k[2] == 0.0  # only p1 has two graded completions


def test_a_passed_flag_beside_an_error_is_not_believed() -> None:
    assert (
        summarise([replace(broken(record("a", 0, True)), passed=True), record("b", 0, False)]).pass_at_1.value
        == 0
    )


def test_pass_at_1_of_single_completions_has_wilsons_interval() -> None:
    estimate = summarise(problems(*[(1,)] * 8, *[(0,)] * 12)).pass_at_1
    assert (estimate.low, estimate.high) == wilson_interval(8, 20)


def test_an_empty_evaluation_is_all_nan_and_becomes_null_in_json() -> None:
    summary = summarise([])
    assert math.isnan(summary.pass_at_1.value)
    shown = json.loads(json.dumps(summary_json(summary), allow_nan=False))
    assert shown["pass_at_1"] is None and shown["ci95"] == [None, None] and shown["n"] == 0


def test_lenient_format_and_majority_come_from_the_parts() -> None:
    parts: list[Part] = [
        {"lenient": True, "format": True, "answer": "7"},
        {"lenient": True, "format": False, "answer": "7"},
        {"lenient": False, "format": True, "answer": "8"},
        {"lenient": False, "format": False, "answer": None},
    ]
    summary = summarise([record("a", i, i == 0, each) for i, each in enumerate(parts)])
    assert summary.lenient is not None and summary.lenient.value == 0.5
    assert summary.format is not None and summary.format.value == 0.5
    assert summary.maj_at_k == 0.5  # "7" wins with two votes, one of which passed


def test_parts_that_one_record_lacks_are_not_made_up() -> None:
    summary = summarise([record("a", 0, True, {"lenient": True}), record("b", 0, True)])
    assert summary.lenient is None and summary.format is None
    assert math.isnan(summary.maj_at_k)


def test_the_order_of_the_records_changes_nothing() -> None:
    records = problems((1, 0, 1), (0, 0, 1), (1, 1, 1))
    assert summarise(records[::-1]) == summarise(records)


def test_a_sample_that_occurs_twice_is_refused() -> None:
    with pytest.raises(BadFile, match="sample 0 of problem 'a' is recorded 2 times"):
        summarise([record("a", 0, True), record("a", 0, True)])


def test_other_problems_are_refused_by_name() -> None:
    with pytest.raises(
        BadRequest, match="'x1', 'x2', 'x3' and 1 more only in the first, 'y' only in the second"
    ):
        compare(
            [*problem("a", True), *(record(f"x{i}", 0, True) for i in range(1, 5))],
            [*problem("a", True), *problem("y", True)],
        )


def test_a_comparison_pairs_by_key_and_not_by_place() -> None:
    base, trained = problems((1,), (0,), (0,), (0,)), problems((1,), (1,), (0,), (0,))
    found = compare(base, trained[::-1])
    assert found.paired.gain == 0.25
    assert found.solved == Solved(both=1, only_base=0, only_trained=1, neither=2)
    assert found.mcnemar_p == 1.0


def test_a_problem_is_solved_by_more_than_half_of_its_graded_completions() -> None:
    base = problems((1, 1, 0, 0), (1, 1, 1, 0))
    trained = problems((1, 1, 1, 0), (1, 0, 0, 0))
    trained[1] = broken(trained[1])
    assert compare(base, trained).solved == Solved(both=0, only_base=1, only_trained=1, neither=0)


def test_a_problem_without_a_grade_on_one_side_is_left_out_and_counted() -> None:
    base, trained = problems((0,), (0,), (1,)), problems((1,), (1,), (1,))
    trained[0] = broken(trained[0])
    found = compare(base, trained)
    assert (found.num_unpaired, found.paired.num_problems, found.paired.gain) == (1, 2, 0.5)


@pytest.mark.parametrize(
    ("moved", "finding"), [(5, Finding.NONE), (6, Finding.GAIN), (-6, Finding.LOSS), (0, Finding.NONE)]
)
def test_a_change_is_called_significant_only_where_random_signs_agree(moved: int, finding: Finding) -> None:
    # Of the 2^5 signs of five equal differences two are as far out: p = 0.0625. Of 2^6: 0.031.
    low, high = problems(*[(0,)] * 6), problems(*[(int(i < abs(moved)),) for i in range(6)])
    found = compare(low, high) if moved >= 0 else compare(high, low)
    assert found.finding is finding


def test_the_part_of_a_gain_that_is_format_is_what_the_lenient_reading_does_not_see() -> None:
    def evaluation(passed: int, lenient: int) -> list[EvalRecord]:
        return [record(f"p{i}", 0, i < passed, {"lenient": i < lenient}) for i in range(20)]

    found = compare(evaluation(2, 8), evaluation(12, 14))
    assert found.lenient is not None
    assert (found.paired.gain, found.lenient.gain) == (0.5, pytest.approx(0.3))
    assert share_explained(found.paired.gain, found.lenient.gain) == pytest.approx(0.4)


def test_a_control_explains_between_nothing_and_all_and_only_gains() -> None:
    assert share_explained(0.2, 0.3) == 0.0
    assert share_explained(0.2, -0.1) == 1.0
    assert math.isnan(share_explained(-0.1, 0.1)) and math.isnan(share_explained(0.0, 0.1))
    assert math.isnan(share_explained(0.2, math.nan))


def test_the_json_of_both_has_the_promised_keys_and_no_nan() -> None:
    found = compare(problems((1,), (0,)), problems((1,), (0,)))
    paired = json.loads(json.dumps(comparison_json(found), allow_nan=False))
    assert {"gain", "ci95", "p_value"} <= paired.keys()
    assert paired["smallest_detectable"] is None  # no spread
    model = json.loads(json.dumps(summary_json(found.base), allow_nan=False))
    assert {"n", "k", "pass_at_1", "ci95", "truncated", "errors", "mean_tokens"} <= model.keys()
    assert model["pass_at_k"] == {"1": 0.5}
