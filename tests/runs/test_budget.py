import pytest

from groschen.errors import BadRequest, UsageError
from groschen.runs.budget import Spent, parse_budget


@pytest.mark.parametrize(
    ("text", "kind", "size", "currency"),
    [
        ("10min", "time", 600, None), ("2h", "time", 7200, None), ("90s", "time", 90, None),
        ("1.5 h", "time", 5400, None), ("1d", "time", 86_400, None), ("1e2s", "time", 100, None),
        ("5e14FLOP", "flops", 5e14, None), ("3PFLOP", "flops", 3e15, None), ("2 gflops", "flops", 2e9, None),
        ("2EUR", "money", 2, "EUR"), ("3USD", "money", 3, "USD"), (".5eur", "money", 0.5, "EUR"),
    ],
)  # fmt: skip
def test_budgets_are_read(text: str, kind: str, size: float, currency: str | None) -> None:
    budget = parse_budget(text)
    assert (budget.kind, budget.amount, budget.currency) == (kind, size, currency)
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize(
    "text", ["", "10", "min", "ten min", "-3EUR", "0s", "1e999s", "3CHF", "5xFLOP", "nanEUR", "1h 3"]
)
def test_what_is_no_budget_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no budget; write a time|must be above zero"):
        parse_budget(text)


def test_a_budget_is_used_up_when_nothing_is_left() -> None:
    assert parse_budget("10min").share(Spent(seconds=599.9, flops=1e30, money=1e9)) < 1
    assert parse_budget("10min").share(Spent(seconds=600.0)) == 1
    assert parse_budget("5e14FLOP").share(Spent(flops=5e14)) == 1
    assert parse_budget("5e14FLOP").share(Spent(seconds=1e9)) == 0
    assert parse_budget("2EUR").share(Spent(money=0.5, currency="EUR")) == 0.25


def test_a_budget_in_another_currency_than_the_prices_is_refused() -> None:
    with pytest.raises(BadRequest, match="the budget is 2USD and the price file counts in EUR"):
        parse_budget("2USD").share(Spent(money=1.0, currency="EUR"))
