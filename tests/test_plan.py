"""plan.py and plan_time.py: work to seconds and money, intervals, and what came of it."""

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import msgspec
import pytest
import torch
from rich.console import Console
from tests.tiny import FAMILIES, tiny_model

from groschen.bill import Roofs, summarise
from groschen.errors import BadRequest, DoesNotFit
from groschen.ledger import LedgerLine
from groschen.model.config import ModelConfig
from groschen.model.flops import generation_flops, scoring_flops, training_flops
from groschen.plan import Plan, as_json, as_table, compare, figure, plan
from groschen.plan_memory import Layout
from groschen.plan_time import Interval, Rates, RecipeFacts
from groschen.prices import Prices, load_prices

CONFIG = ModelConfig.from_json(FAMILIES["qwen2"])
LAYOUT = Layout(weight_bytes=2, activation_dtype=torch.float32, product="compiled")
FACTS = RecipeFacts(
    steps=10, problems_per_step=4, group_size=8,
    prompt_tokens=50, completion_tokens=100, max_completion_tokens=200,
    evaluations=2, evaluation_problems=20, evaluation_samples=2, final_problems=50, final_samples=4,
)  # fmt: skip
ROOFS = Roofs(flops_per_s=1e9, read_bytes_per_s=1e9)  # so slow that products decide


@pytest.fixture(autouse=True)
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.delenv("GROSCHEN_PRICES", raising=False)
    folder = tmp_path_factory.mktemp("config")
    monkeypatch.setattr("groschen.prices.user_config_path", lambda name: folder / name)


def made(facts: RecipeFacts = FACTS, roofs: Roofs = ROOFS, prices: Prices | None = None, **more: Any) -> Plan:
    chosen = {"available_bytes": 8 << 30, "cpus": 2, **more}
    return plan(CONFIG, facts, roofs, prices or load_prices(), LAYOUT, **chosen)


def in_dollars(prices: Prices) -> Prices:
    return msgspec.structs.replace(prices, currency="USD")


def phase(found: Plan, name: str) -> Any:
    return next(each for each in found.phases if each.phase == name)


def test_the_flops_of_a_plan_are_those_of_the_formulas_times_the_recipe() -> None:
    found = made()
    lengths = [100] * 8
    assert phase(found, "generation").flops == 40 * generation_flops(CONFIG, 50, lengths).model
    trained = training_flops(CONFIG, 50, lengths, recomputes_head=False)
    assert phase(found, "training").flops == 40 * trained.model
    assert phase(found, "training").recomputed_flops == 40 * trained.recomputed
    sampled = 2 * 20 * generation_flops(CONFIG, 50, [100] * 2).model
    tested = 2 * 50 * generation_flops(CONFIG, 50, [100] * 4).model
    assert phase(found, "evaluation").flops == sampled + tested
    assert found.samples == 320


def test_the_total_is_the_sum_of_the_phases() -> None:
    found = made()
    for ends in ("low", "expected", "high"):
        assert getattr(found.total.seconds, ends) == pytest.approx(
            sum(getattr(each.seconds, ends) for each in found.phases)
        )
    assert found.total.flops == sum(each.flops for each in found.phases)
    assert found.total.cost.expected == pytest.approx(sum(each.cost.expected for each in found.phases))


def test_twice_the_steps_take_twice_the_training_and_the_same_evaluation() -> None:
    once, twice = made(), made(replace(FACTS, steps=20))
    for name, factor in (("training", 2), ("generation", 2), ("verification", 2), ("evaluation", 1)):
        ratio = phase(twice, name).seconds.expected / phase(once, name).seconds.expected
        assert ratio == pytest.approx(factor)


def test_a_recipe_without_evaluations_has_no_such_phase() -> None:
    found = made(replace(FACTS, evaluations=0, final_problems=0))
    assert "evaluation" not in [each.phase for each in found.phases]


def test_other_wordings_are_tried_on_dev_and_the_best_of_them_perhaps_on_test() -> None:
    none = phase(made(), "evaluation")
    some = phase(made(replace(FACTS, wordings=3, wording_problems=15)), "evaluation")
    tried = 4 * 15 * generation_flops(CONFIG, 50, [100]).model
    tested = 50 * generation_flops(CONFIG, 50, [100] * 4).model
    assert some.flops == pytest.approx(none.flops + tried + 0.75 * tested)
    roof = 0.6 * ROOFS.flops_per_s
    assert some.seconds.low - none.seconds.low < tried / roof
    assert some.seconds.high - none.seconds.high > (tried + tested) / roof
    assert phase(made(replace(FACTS, wordings=3)), "evaluation") == none  # wording_problems is 0


def test_logprobs_of_a_reference_belong_to_training() -> None:
    found = phase(made(replace(FACTS, has_reference=True)), "training")
    scored = 40 * scoring_flops(CONFIG, 50, [100] * 8).model
    assert found.flops == pytest.approx(phase(made(), "training").flops + scored)


def test_logits_are_planned_for_the_longest_completion_and_not_for_fewer_than_are_scored_at_once() -> None:
    one, long = made().memory, made(replace(FACTS, max_completion_tokens=1500)).memory
    assert (one.logits, long.logits) == (12 * CONFIG.vocab_size * 512, 12 * CONFIG.vocab_size * 1500)
    longer = made(replace(FACTS, max_completion_tokens=4000)).memory
    assert longer.logits == 12 * CONFIG.vocab_size * 4000
    assert longer.activations > long.activations


def test_groups_without_signal_save_training_and_no_generation() -> None:
    half = made(replace(FACTS, signal_share=0.5))
    assert phase(half, "training").flops == pytest.approx(phase(made(), "training").flops / 2)
    assert phase(half, "generation").flops == phase(made(), "generation").flops


def test_a_small_model_is_bound_by_engine_steps_and_a_slow_memory_by_reading() -> None:
    fast = Roofs(flops_per_s=1e15, read_bytes_per_s=1e15)
    steps = 32 * 100 / 32  # 32 completions, all at once, 100 tokens each
    seconds = phase(made(roofs=fast), "generation").seconds.expected
    assert seconds == pytest.approx(10 * steps * 0.003, rel=0.01)
    slow_memory = Roofs(flops_per_s=1e15, read_bytes_per_s=1e6)
    assert phase(made(roofs=slow_memory), "generation").seconds.expected > 10 * seconds


def test_fewer_rows_at_once_take_more_engine_steps() -> None:
    fast = Roofs(flops_per_s=1e15, read_bytes_per_s=1e15)
    few, many = (
        phase(made(replace(FACTS, max_rows=n), fast), "generation").seconds.expected for n in (8, 32)
    )
    assert few / many == pytest.approx(4, rel=0.01)


def test_completions_that_cannot_grow_are_not_expected_to() -> None:
    fixed = replace(FACTS, max_completion_tokens=100)
    can_grow, cannot = (phase(made(facts), "generation").seconds for facts in (FACTS, fixed))
    assert cannot.high < can_grow.high
    assert cannot.low == can_grow.low


def test_money_is_electricity_and_the_machine_s_share_of_the_time() -> None:
    prices = load_prices()
    found = phase(made(prices=prices), "training")
    seconds = found.seconds.expected
    assert found.cost.expected == pytest.approx(prices.of_energy(found.joules) + prices.of_machine(seconds))
    assert found.cost.low < found.cost.expected < found.cost.high
    dollars = phase(made(prices=in_dollars(prices)), "training")
    assert dollars.cost.expected > found.cost.expected


def test_a_run_that_does_not_fit_is_refused_before_anything_is_predicted() -> None:
    with pytest.raises(DoesNotFit, match="GB are to be had"):
        made(available_bytes=1 << 20)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"steps": 0}, "1 or more"), ({"completion_tokens": 300}, "300 tokens are expected, but 200")],
)
def test_a_recipe_that_contradicts_itself_is_refused(changes: dict[str, int], sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        replace(FACTS, **changes)


def line(name: str, seconds: float, **more: Any) -> LedgerLine:
    return LedgerLine(phase=name, step=1, wall_s=seconds, cpu_s=seconds, **more)


def test_prediction_and_outcome_stand_side_by_side() -> None:
    found = made()
    inside, outside = phase(found, "generation").seconds.expected, 3 * phase(found, "training").seconds.high
    lines = [line("generation", inside, flops=7.0, gap_wall_s=2.0), line("training", outside)]
    table = compare(found, summarise(lines, ROOFS, load_prices()), peak_bytes=123)
    rows = {each.phase: each for each in table.phases}
    assert rows["generation"].is_inside is True
    assert rows["generation"].actual_flops == 7.0
    assert rows["training"].is_inside is False
    assert rows["verification"].actual_s is None and rows["verification"].is_inside is None
    assert rows["unaccounted"].planned_s is None and rows["unaccounted"].actual_s == 2.0
    assert table.phases[-1].phase == "total"
    assert table.phases[-1].actual_s == pytest.approx(inside + outside + 2)
    assert (table.planned_bytes, table.peak_bytes) == (found.memory.total, 123)


def test_a_plan_and_a_bill_in_different_currencies_are_not_compared() -> None:
    bill = summarise([line("training", 1.0)], None, in_dollars(load_prices()))
    with pytest.raises(BadRequest, match="plan is in EUR, the bill in USD"):
        compare(made(), bill)


def test_a_plan_and_a_comparison_are_json_and_a_plan_is_a_table() -> None:
    found = made()
    comparison = compare(found, summarise([line("training", 9.0)], None, load_prices()))
    shown = json.loads(as_json(found))
    assert shown["total"]["seconds"].keys() == {"low", "expected", "high"}
    assert shown["memory"]["weights"] == found.memory.weights
    assert json.loads(as_json(comparison))["phases"][-1]["phase"] == "total"
    console = Console(width=80, record=True, file=StringIO())
    long = replace(
        found.total, seconds=Interval(35_000.0, 350_000.0, 3_500_000.0), joules=1e9, flops=1.703e20,
        cost=Interval(22.911, 1254.3, 17_030.4),
    )  # fmt: skip
    console.print(as_table(replace(found, total=long)))
    text = console.export_text()
    assert "training" in text and "memory" in text and "EUR" in text
    assert "97h 13m" in text and "40d 12h" in text and "22.9 - 17,030" in text
    assert "…" not in text and "1.7e+08" in text and "277,778" in text, "a figure is cut at 80 columns"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.00004, "0.0000"), (0.0123, "0.0123"), (4.564, "4.56"), (99.96, "100.0"),
     (17030.4, "17,030"), (999_998.9, "999,999"), (1_703_000.0, "1.7e+06")],
)  # fmt: skip
def test_a_figure_has_seven_characters_at_most(value: float, shown: str) -> None:
    assert figure(value) == shown and len(shown) <= 7


def test_a_calibration_scales_the_times_and_narrows_their_intervals() -> None:
    blind = made()
    seen = made(replace(FACTS, generation_factor=0.5, training_factor=2.0, is_measured=True))
    ratios = {
        name: phase(seen, name).seconds.expected / phase(blind, name).seconds.expected
        for name in ("generation", "evaluation", "training")
    }
    assert ratios["generation"] == ratios["evaluation"] == pytest.approx(0.5)
    assert 1.9 < ratios["training"] <= 2.0  # the update itself is not scaled
    widths = [phase(each, "training").seconds for each in (blind, seen)]
    assert [round(each.high / each.expected, 4) for each in widths] == [1.9575, 1.38]


def test_a_measured_overhead_is_paid_once_for_each_micro_batch() -> None:
    """A step feeds 4 prompts of 50 tokens and 32 completions of 100: 3,400 tokens."""
    free = phase(made(), "training").seconds.expected
    for size, count in ((8000, 1), (3400, 1), (3399, 2), (500, 7)):
        paid = phase(made(replace(FACTS, micro_batch_tokens=size, gradient_overhead_s=3.0)), "training")
        assert paid.seconds.expected - free == pytest.approx(10 * count * 3.0)


def test_the_low_end_of_training_is_of_a_run_most_of_whose_groups_have_no_signal() -> None:
    found = phase(made(replace(FACTS, is_measured=True)), "training").seconds
    assert found.low / found.expected == pytest.approx(0.4 * 0.85 * 0.8)


def test_the_rates_of_a_real_kit_are_read_from_it() -> None:
    model = tiny_model()
    layout = Layout.of(model.kit, torch.bfloat16)
    assert layout.weight_bytes == 2
    assert Rates(model.config, FACTS, ROOFS, layout).training(1.0)[1].expected > 0


def test_a_measured_generation_of_a_half_billion_model_lies_in_its_interval() -> None:
    """64 completions of 128 tokens of 8 prompts took 72 s: benchmarks/results/avx2/engine-fixed64.json."""
    raw = {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "max_position_embeddings": 32768, "tie_word_embeddings": True,
    }  # fmt: skip
    facts = RecipeFacts(
        steps=1, problems_per_step=8, group_size=8, prompt_tokens=87, completion_tokens=128,
        max_completion_tokens=128,
    )  # fmt: skip
    roofs = Roofs(flops_per_s=167e9, read_bytes_per_s=30e9)
    rates = Rates(ModelConfig.from_json(raw), facts, roofs, LAYOUT)
    seconds = rates.sampling(8, 8)[1]
    assert 72.4 in seconds
    assert seconds.expected == pytest.approx(72.4, rel=0.3)
