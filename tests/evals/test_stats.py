"""Every formula against closed forms, published tables, enumeration of all cases, or seeded simulation."""

import math
from itertools import combinations, product

import numpy as np
import pytest

from groschen.errors import BadRequest
from groschen.evals.quantiles import normal_quantile, t_quantile, t_two_sided_p
from groschen.evals.stats import (
    clustered_mean,
    clustered_share,
    maj_at_k,
    mcnemar_p,
    paired_difference,
    pass_at_k,
    problem_means,
    rule_of_three,
    sign_flip_p,
    smallest_detectable_gain,
    wilson_interval,
)


def samples_of_problems(
    generator: np.random.Generator, num_problems: int, k: int, mean: float = 0.5, spread: float = 0.3
) -> np.ndarray:
    """[n, k] of 0 and 1: each problem has its own chance, drawn around the mean."""
    concentration = mean * (1 - mean) / spread**2 - 1
    chances = generator.beta(mean * concentration, (1 - mean) * concentration, (num_problems, 1))
    return (generator.random((num_problems, k)) < chances).astype(float)


@pytest.mark.parametrize(("probability", "value"), [(0.975, 1.959964), (0.95, 1.644854), (0.8, 0.841621)])
def test_normal_quantiles_are_those_of_the_printed_table(probability: float, value: float) -> None:
    assert normal_quantile(probability) == pytest.approx(value, abs=5e-7)
    assert normal_quantile(1 - probability) == pytest.approx(-value, abs=5e-7)


# Student's t for two-sided 5 % and one-sided 20 %, as printed in textbooks.
PRINTED = [(1, 12.706, 1.376), (2, 4.303, 1.061), (5, 2.571, 0.920), (10, 2.228, 0.879), (30, 2.042, 0.854),
           (120, 1.980, 0.845)]  # fmt: skip


@pytest.mark.parametrize(("degrees", "at_975", "at_80"), PRINTED)
def test_t_quantiles_are_those_of_the_printed_table(degrees: int, at_975: float, at_80: float) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(at_975, abs=5.01e-4)
    assert t_quantile(0.8, degrees) == pytest.approx(at_80, abs=5.01e-4)
    assert t_quantile(0.025, degrees) == pytest.approx(-t_quantile(0.975, degrees), rel=1e-14)


@pytest.mark.parametrize("t", [0.01, 0.5, 1.0, 3.7, 40.0])
def test_t_has_its_closed_form_for_one_and_two_degrees_and_the_normal_for_many(t: float) -> None:
    assert t_two_sided_p(t, 1) == pytest.approx(1 - 2 * math.atan(t) / math.pi, rel=1e-10)
    assert t_two_sided_p(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-10)
    assert t_two_sided_p(t, 1e6) == pytest.approx(math.erfc(t / math.sqrt(2)), abs=1e-6)


@pytest.mark.parametrize("degrees", [1, 3, 17.5, 400, 1e6])
def test_a_t_quantile_leaves_its_probability_beyond(degrees: float) -> None:
    for probability in (0.6, 0.9, 0.975, 0.9999):
        beyond = t_two_sided_p(t_quantile(probability, degrees), degrees) / 2
        assert beyond == pytest.approx(1 - probability, rel=1e-9)


@pytest.mark.parametrize("k", range(1, 7))
def test_pass_at_k_is_the_share_of_all_choices_with_a_passed_one(k: int) -> None:
    for passed in range(7):
        outcomes = [True] * passed + [False] * (6 - passed)
        choices = list(combinations(outcomes, k))
        assert pass_at_k(6, passed, k) == pytest.approx(sum(map(any, choices)) / len(choices), rel=1e-12)


def test_pass_at_k_is_unknown_with_fewer_than_k_completions_and_refuses_nonsense() -> None:
    assert math.isnan(pass_at_k(3, 1, 4))
    for arguments in ((3, 4, 1), (3, -1, 1), (3, 1, 0)):
        with pytest.raises(BadRequest):
            pass_at_k(*arguments)


def test_the_majority_decides_ties_share_and_completions_without_an_answer_do_not_vote() -> None:
    assert maj_at_k(["7", "7", "9"], [True, True, False]) == 1.0
    assert maj_at_k(["9", "9", "7"], [False, False, True]) == 0.0
    assert maj_at_k(["7", "9"], [True, False]) == 0.5
    assert maj_at_k([None, None, "7"], [False, False, True]) == 1.0
    assert maj_at_k([None, None], [False, False]) == 0.0
    assert math.isnan(maj_at_k([], []))


def test_wilson_gives_the_published_intervals_of_the_people_on_math() -> None:
    assert wilson_interval(8, 20) == (pytest.approx(0.2188, abs=1e-4), pytest.approx(0.6134, abs=1e-4))
    assert wilson_interval(18, 20) == (pytest.approx(0.6990, abs=1e-4), pytest.approx(0.9721, abs=1e-4))


@pytest.mark.parametrize(("passed", "total"), [(0, 10), (3, 10), (10, 10), (0.7, 2.5)])
def test_at_both_ends_of_wilson_the_share_is_z_standard_errors_away(passed: float, total: float) -> None:
    for bound in wilson_interval(passed, total):
        away = (passed / total - bound) ** 2
        assert away == pytest.approx(1.959964**2 * bound * (1 - bound) / total, abs=1e-7)


def test_the_clustered_standard_error_is_millers_with_the_correction_for_few_clusters() -> None:
    scores = samples_of_problems(np.random.default_rng(2), 40, 5)
    residuals = scores - scores.mean()
    within = sum(residual_i * residual_j for row in residuals for residual_i, residual_j in product(row, row))
    miller = math.sqrt(within) / scores.size
    assert clustered_mean(scores.tolist()).se == pytest.approx(miller * math.sqrt(40 / 39), rel=1e-12)


def test_every_problem_weighs_the_same_however_many_of_its_completions_were_graded() -> None:
    assert clustered_mean([[1, 1, 1, 1], [0]]).value == 0.5


def test_with_one_completion_a_problem_the_interval_is_wilsons() -> None:
    share = clustered_share([[1.0]] * 8 + [[0.0]] * 12)
    assert (share.low, share.high) == wilson_interval(8, 20)


def test_completions_that_are_all_alike_count_as_one() -> None:
    alike = clustered_share([[1.0] * 4] * 8 + [[0.0] * 4] * 12)
    assert (alike.low, alike.high) == pytest.approx(wilson_interval(8, 20))


@pytest.mark.parametrize(("n", "k", "mean"), [(50, 4, 0.5), (200, 4, 0.3), (100, 1, 0.8), (300, 8, 0.1)])
def test_the_interval_of_a_share_covers_the_truth_as_often_as_it_says(n: int, k: int, mean: float) -> None:
    generator, spread = np.random.default_rng(7), 0.6 * math.sqrt(mean * (1 - mean))
    hits = 0
    for _ in range(2000):
        share = clustered_share(samples_of_problems(generator, n, k, mean, spread).tolist())
        hits += share.low <= mean <= share.high
    assert 0.93 <= hits / 2000 <= 0.97


def test_the_t_interval_covers_and_one_that_forgets_the_clusters_does_not() -> None:
    generator, clustered, pooled = np.random.default_rng(8), 0, 0
    for _ in range(2000):
        scores = samples_of_problems(generator, 60, 8, 0.5, 0.35)
        mean = clustered_mean(scores.tolist())
        clustered += mean.low <= 0.5 <= mean.high
        low, high = wilson_interval(scores.sum(), scores.size)
        pooled += low <= 0.5 <= high
    assert 0.93 <= clustered / 2000 <= 0.97
    assert pooled / 2000 < 0.8


def test_the_interval_of_a_gain_covers_the_truth_and_its_tests_reject_one_null_in_twenty() -> None:
    generator = np.random.default_rng(9)
    covered = rejected_t = rejected_flip = 0
    for _ in range(1000):
        chances = generator.beta(1.2, 1.5, (50, 1))
        first, second = ((generator.random((50, 4)) < chances).mean(axis=1) for _ in range(2))
        difference = paired_difference(first, second)
        covered += difference.low <= 0 <= difference.high
        rejected_t += difference.p_value < 0.05
        rejected_flip += difference.sign_flip_p < 0.05
    assert 0.93 <= covered / 1000 <= 0.97
    assert covered + rejected_t == 1000
    assert 0.03 <= rejected_flip / 1000 <= 0.07


def test_pairing_is_what_it_is_by_hand() -> None:
    difference = paired_difference(np.array([0.0, 0.5, 0.5, 1.0]), np.array([0.5, 1.0, 0.5, 1.0]))
    # differences 0.5, 0.5, 0, 0: mean 0.25, standard deviation sqrt(1/12), t(3) at 97.5 % is 3.18245
    assert difference.gain == 0.25
    assert difference.se == pytest.approx(math.sqrt(1 / 12) / 2)
    assert difference.high == pytest.approx(0.25 + 3.18245 * math.sqrt(1 / 12) / 2, abs=1e-5)
    assert difference.sign_flip_p == pytest.approx(0.5)  # of 4 signs of the two that moved, 2 are as far out


def test_pairing_makes_the_interval_of_a_gain_narrower_than_two_separate_ones() -> None:
    generator = np.random.default_rng(4)
    chances = generator.beta(0.6, 0.6, (200, 1))
    first, second = ((generator.random((200, 4)) < chances).mean(axis=1) for _ in range(2))
    apart = math.hypot(*(clustered_mean([[value] for value in values]).se for values in (first, second)))
    assert paired_difference(first, second).se < 0.6 * apart


def test_without_any_difference_the_interval_still_has_the_width_of_the_rule_of_three() -> None:
    same = paired_difference(np.ones(20), np.ones(20))
    assert (same.gain, same.se, same.p_value) == (0.0, 0.0, 1.0)
    assert (same.low, same.high) == pytest.approx((-rule_of_three(20), rule_of_three(20)))
    all_moved = paired_difference(np.zeros(5), np.ones(5))
    assert all_moved.p_value == all_moved.sign_flip_p == 2 / 2**5
    assert all_moved.low == pytest.approx(1 - 2 * rule_of_three(5))


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 1), (1, 6), (3, 3), (2, 9), (0, 0)])
def test_mcnemar_counts_all_ways_in_which_fair_coins_fall(only_first: int, only_second: int) -> None:
    flips = list(product((0, 1), repeat=only_first + only_second))
    away = abs(only_first - only_second)
    as_far = sum(abs(len(flip) - 2 * sum(flip)) >= away for flip in flips) / len(flips)
    beyond = sum(abs(len(flip) - 2 * sum(flip)) > away for flip in flips) / len(flips)
    assert mcnemar_p(only_first, only_second) == pytest.approx(as_far)
    if away:
        assert mcnemar_p(only_first, only_second, mid_p=True) == pytest.approx((as_far + beyond) / 2)


@pytest.mark.parametrize("differences", [[0.25, -0.5, 0.75, 1, 0], [1 / 3, 0.5, -0.25, 1], [0.1, 0.1, 0.1]])
def test_the_sign_flip_test_is_the_share_of_all_signs(differences: list[float]) -> None:
    values = np.array(differences)
    sums = [abs(np.dot(signs, values)) for signs in product((-1, 1), repeat=len(values))]
    expected = sum(total >= abs(values.sum()) - 1e-9 for total in sums) / len(sums)
    assert sign_flip_p(values) == pytest.approx(expected)


def test_the_sign_flip_test_by_chance_is_near_the_exact_one() -> None:
    values = np.sqrt(np.arange(2.0, 16.0)) / 4 * np.array([1, 1, -1, 1, 1, 1, -1] * 2)
    sums = np.array([abs(np.dot(signs, values)) for signs in product((-1, 1), repeat=14)])
    assert sign_flip_p(values) == pytest.approx((sums >= abs(values.sum()) - 1e-9).mean(), abs=0.01)


def test_a_sign_flip_p_by_chance_is_never_zero_and_always_the_same() -> None:
    values = np.sqrt(np.arange(1.0, 200.0)) / 20
    assert sign_flip_p(values) == sign_flip_p(values) == pytest.approx(1 / 20_001)


def test_the_smallest_detectable_gain_is_detected_four_times_out_of_five() -> None:
    gain = smallest_detectable_gain(60, 0.5)
    differences = np.random.default_rng(5).normal(gain, 0.5, (4000, 60))
    t = differences.mean(axis=1) / (differences.std(axis=1, ddof=1) / math.sqrt(60))
    assert 0.78 <= (t > t_quantile(0.975, 59)).mean() <= 0.82


def test_a_thousand_problems_find_the_three_points_of_the_literature() -> None:
    # Miller (arXiv 2411.00640): about 1,000 problems for 3 points with a spread of 1/3.
    assert smallest_detectable_gain(969, 1 / 3) == pytest.approx(0.03, abs=1e-4)


def test_the_rule_of_three_is_the_share_that_stays_unseen_once_in_twenty() -> None:
    for n in (1, 10, 300):
        assert (1 - rule_of_three(n)) ** n == pytest.approx(0.05)
    assert rule_of_three(1000) == pytest.approx(3 / 1000, rel=4e-3)


def test_what_cannot_be_known_is_nan() -> None:
    nothing, one = clustered_share([]), clustered_mean([[1.0, 0.0]])
    assert all(math.isnan(value) for value in (nothing.value, nothing.se, nothing.low, nothing.high))
    assert one.value == 0.5
    assert all(math.isnan(value) for value in (one.se, one.low, one.high))
    assert math.isnan(rule_of_three(0))
    assert all(math.isnan(smallest_detectable_gain(n, spread)) for n, spread in ((1, 0.5), (9, 0.0)))
    assert all(math.isnan(bound) for bound in wilson_interval(0, 0))
    assert math.isnan(sign_flip_p(np.array([])))
    empty = paired_difference(np.array([]), np.array([]))
    assert all(math.isnan(value) for value in (empty.gain, empty.low, empty.high, empty.p_value))


def test_nonsense_is_refused() -> None:
    with pytest.raises(BadRequest, match="same problems"):
        paired_difference(np.ones(3), np.ones(4))
    with pytest.raises(BadRequest, match="without a graded completion"):
        problem_means([[1.0], []])
    with pytest.raises(BadRequest):
        t_quantile(1.0, 5)
    with pytest.raises(BadRequest):
        t_quantile(0.9, 0)
