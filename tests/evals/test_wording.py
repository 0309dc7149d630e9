"""Figures in words for a terminal."""

import math
from dataclasses import replace

from tests.evals.test_comparison import broken, problems

from groschen.evals import wording
from groschen.evals.comparison import compare, summarise


def test_a_comparison_of_which_nothing_was_graded_has_no_figure_in_it() -> None:
    base = problems((1, 0), (0, 0))
    compared = compare(base, [broken(record) for record in base])
    assert wording.comparison(compared) == "no gain can be told: no problem was graded for both"
    assert wording.with_interval(compared.trained.pass_at_1) == "-"


def test_what_so_many_problems_could_show_is_told_where_it_is_known() -> None:
    base = problems((1, 0), (0, 0), (1, 1))
    better = [replace(record, passed=record.passed or record.key == "p1") for record in base]
    sentence = wording.comparison(compare(base, better))
    assert sentence.startswith("gain +33.3 points (95 % interval ") and "four times in five" in sentence
    assert "nan" not in wording.comparison(compare(base, base))


def test_every_number_of_samples_has_its_own_pass_at_k() -> None:
    for k in range(1, 10):
        shares = summarise(problems((1,) * k, (0,) * k)).pass_at_k
        assert shares[k] == 0.5 and not any(map(math.isnan, shares.values()))
        assert set(shares) - {k} == {size for size in (1, 2, 4, 8) if size < k}
