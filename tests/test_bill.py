"""bill.py: sums of a ledger by hand, MFU, money, repeated work, and what others would have charged."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groschen.bill import (
    Roofs,
    as_hosted_training_would_charge,
    as_what_closed_apis_would_charge,
    break_even_calls,
    cost_per_point,
    summarise,
)
from groschen.ledger import PHASES, LedgerLine
from groschen.prices import Prices, load_prices

_FROM = {"currency": "EUR", "date": "2026-11-01", "source": "a test"}
ROOFS = Roofs(flops_per_s=1e9, read_bytes_per_s=1e9)


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Prices:
    """An hour of the machine is 1 euro, a kWh 0.36, so a joule is 1e-7; one dollar is one euro."""
    own = {
        "kwh": {**_FROM, "value": 0.36},
        "machine": {**_FROM, "kind": "owned", "value": 10, "lifetime_hours": 10},
        "rates": {"USD": {"per_euro": 1.0, "date": "2026-11-01", "source": "a test"}},
        "apis": {"a": {**_FROM, "input": 1.0, "cached_input": 0.1, "output": 10.0}},
    }
    path: Path = tmp_path_factory.mktemp("prices") / "own.json"
    path.write_text(json.dumps(own))
    return load_prices(path)


def line(phase: str, step: int = 1, wall_s: float = 1.0, **more: Any) -> LedgerLine:
    return LedgerLine(phase=phase, step=step, wall_s=wall_s, cpu_s=wall_s, **more)


def test_a_phase_is_the_sum_of_its_lines(prices: Prices) -> None:
    lines = [
        line("generation", 1, 4, generated_tokens=10, flops=1e9, joules=5.0, joules_method="measured"),
        line("training", 1, 3600, trained_tokens=7, flops=9e11, recomputed_flops=9e11),
        line("generation", 2, 6, generated_tokens=20, flops=4e9, joules=7.0, joules_method="measured"),
    ]
    bill = summarise(lines, ROOFS, prices)
    generation, training = bill.phases
    assert (generation.phase, generation.wall_s, generation.generated_tokens) == ("generation", 10, 30)
    assert (generation.flops, generation.mfu, generation.hfu) == (5e9, 0.5, 0.5)
    assert (generation.joules, generation.joules_method) == (12.0, "measured")
    assert generation.energy_cost == pytest.approx(12e-7)
    assert (training.mfu, training.hfu) == (0.25, 0.5)
    assert training.machine_cost == pytest.approx(1.0)
    assert bill.total.wall_s == 3610
    assert bill.total.cost == pytest.approx(generation.cost + training.cost)
    assert generation.tokens_per_s == 3.0


def test_phases_stand_in_the_order_of_a_recipe_and_only_those_that_occurred(prices: Prices) -> None:
    bill = summarise([line("evaluation"), line("loading"), line("generation")], None, prices)
    assert [phase.phase for phase in bill.phases] == ["loading", "generation", "evaluation"]


def test_time_between_spans_is_a_phase_with_its_own_cost(prices: Prices) -> None:
    lines = [
        line("training", wall_s=1, gap_wall_s=3600, gap_joules=1e7, joules=1.0, joules_method="estimated"),
        line("training", wall_s=1, gap_wall_s=0, gap_joules=0.0, joules=1.0, joules_method="estimated"),
    ]
    bill = summarise(lines, ROOFS, prices)
    assert bill.unaccounted_s == 3600
    assert bill.phases[-1].phase == "unaccounted"
    assert bill.phases[-1].cost == pytest.approx(1.0 + 1.0)
    assert bill.total.wall_s == 3602


def test_without_a_roof_or_without_flops_there_is_no_mfu(prices: Prices) -> None:
    assert summarise([line("training", flops=1e9)], None, prices).total.mfu is None
    assert summarise([line("verification")], ROOFS, prices).total.mfu is None


@pytest.mark.parametrize(
    ("methods", "whole"),
    [
        (["measured", "measured"], "measured"), (["measured", "estimated"], "estimated"),
        (["none", "none"], "none"), (["measured", "none"], "incomplete"), ([], "none"),
    ],
)  # fmt: skip
def test_a_sum_is_measured_only_if_every_part_is(methods: list[str], whole: str, prices: Prices) -> None:
    lines = [
        line("training", joules_method=method, joules=None if method == "none" else 1.0) for method in methods
    ]
    assert summarise(lines, None, prices).total.joules_method == whole


def test_repeated_steps_are_paid_twice_and_named(prices: Prices) -> None:
    lines = [
        line("generation", 1, 10), line("training", 1, 10),
        line("generation", 2, 10), line("training", 2, 7),  # killed here
        line("loading", 0, 3, attempt=2), line("training", 2, 10, attempt=2),
        line("generation", 3, 10, attempt=2),
    ]  # fmt: skip
    bill = summarise(lines, None, prices)
    assert bill.total.wall_s == 60
    assert (bill.attempts, bill.repeated_s) == (2, 7)  # generation 2 was kept, training 2 was done again
    assert bill.repeated_cost == pytest.approx(7 / 3600)


@given(
    st.lists(
        st.tuples(st.sampled_from(PHASES), st.integers(0, 5), st.floats(0, 1e4), st.floats(0, 1e4)),
        max_size=30,
    )
)
def test_nothing_vanishes_the_phases_add_up_to_the_total(rows: list[tuple[str, int, float, float]]) -> None:
    prices = load_prices()
    lines = [
        line(phase, step, wall, gap_wall_s=gap, joules=wall, gap_joules=gap, joules_method="estimated")
        for phase, step, wall, gap in rows
    ]
    bill = summarise(lines, ROOFS, prices)
    spent = sum(wall + gap for _, _, wall, gap in rows)
    assert bill.total.wall_s == pytest.approx(spent)
    assert sum(phase.wall_s for phase in bill.phases) == pytest.approx(spent)
    assert sum(phase.joules for phase in bill.phases) == pytest.approx(bill.total.joules)
    assert sum(phase.cost for phase in bill.phases) == pytest.approx(bill.total.cost)
    assert bill.repeated_s == 0


def test_closed_apis_charge_prompts_and_every_generated_token_of_sampling(prices: Prices) -> None:
    lines = [
        line("generation", prompt_tokens=1_000_000, generated_tokens=2_000_000),
        line("evaluation", prompt_tokens=1_000_000, generated_tokens=0),
        line("training", prompt_tokens=5, trained_tokens=2_000_000),
    ]
    charge = {each.name: each for each in as_what_closed_apis_would_charge(lines, prices)}["a"]
    assert (charge.input_tokens, charge.output_tokens) == (2_000_000, 2_000_000)
    assert charge.cost == pytest.approx(2 * 1.0 + 2 * 10.0)
    assert (charge.price_date, charge.price_source) == ("2026-11-01", "a test")
    only = as_what_closed_apis_would_charge(lines, prices, phases=["evaluation"])
    assert {each.name: each for each in only}["a"].cost == pytest.approx(1.0)


def test_hosted_training_charges_the_hours_of_the_loop(prices: Prices) -> None:
    lines = [line("generation", wall_s=1800), line("training", wall_s=1800), line("evaluation", wall_s=3600)]
    hosted = as_hosted_training_would_charge(lines, prices)
    assert hosted.loop_hours == 1.0
    assert hosted.cost_at_our_pace == pytest.approx(100.0)
    assert hosted.equal_hours == pytest.approx(2.0 / 100.0)  # our two hours cost two euros


def test_derived_costs_are_undefined_rather_than_infinite() -> None:
    assert cost_per_point(3.0, 0.06) == pytest.approx(0.5)
    assert cost_per_point(3.0, 0.0) is None
    assert cost_per_point(3.0, -0.02) is None


def test_an_own_model_breaks_even_after_so_many_calls_or_never() -> None:
    assert break_even_calls(10.0, own_per_call=0.001, api_per_call=0.011) in (
        1000,
        1001,
    )  # 0.01 is no binary number
    assert break_even_calls(10.0, own_per_call=0.02, api_per_call=0.02) is None
    assert break_even_calls(0.0, own_per_call=0.0, api_per_call=0.5) == 0


def test_a_bill_is_json(prices: Prices) -> None:
    bill = summarise([line("training", flops=1e9)], ROOFS, prices)
    shown = json.loads(msgspec.json.encode(bill))
    assert shown["total"]["mfu"] == 1.0
    assert shown["currency"] == "EUR"


def test_an_empty_ledger_is_an_empty_bill(prices: Prices) -> None:
    bill = summarise([], ROOFS, prices)
    assert (bill.phases, bill.total.cost, bill.attempts) == ((), 0.0, 0)
