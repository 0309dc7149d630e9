"""Which sizes are chosen for a budget: they fit it, and what the user set stays."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.train.tiny_run import write_model, write_task

from groschen.errors import BadRequest
from groschen.model.checkpoint import open_checkpoint
from groschen.model.config import ModelConfig
from groschen.runs.budget import parse_budget
from groschen.tasks.load import load_task
from groschen.text.load import load_text
from groschen.train import advice
from groschen.train.calibration import Calibration
from groschen.train.known import Known
from groschen.train.planning import PromptTokens
from groschen.train.sizing import FEWEST_STEPS, Sized, choose, refuse_without_a_step

HALF_BILLION = {
    "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
    "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "max_position_embeddings": 32768, "tie_word_embeddings": True,
}  # fmt: skip
ROOFS = {"bf16_gflops": 400.0, "read_gbps": 30.0}
SEEN = Calibration(
    lengths=tuple(range(100, 260, 5)), open_lengths=(), limit=512, num_graded=32, num_passed=8,
    tokens_per_s=300.0, trained_tokens_per_s=100.0, generation_factor=0.8, training_factor=1.2,
    gradient_overhead_s=0.0, verify_s=0.001, seconds=30.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """A 0.5B model on two fast cores, and the tiny run's task of 60 problems."""
    folder = tmp_path_factory.mktemp("sizes")
    task = load_task(str(write_task(folder)))
    text = load_text(open_checkpoint(str(write_model(folder / "model"))).source)
    return Known(
        named={"task": task.name, "model": "half"}, overrides=(), task=task, text=text,
        config=ModelConfig.from_json(HALF_BILLION), device=torch.device("cpu"), roofs=ROOFS,
        prompts=PromptTokens(mean=100.0, longest=250), calibration=SEEN,
    )  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def memory() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("groschen.machine.free_memory_bytes", lambda device: 64 << 30)
        yield


def chosen(known: Known, budget: str, *overrides: str, **changes: Any) -> Sized:
    return choose(replace(known, overrides=overrides, **changes), parse_budget(budget))


@pytest.fixture(scope="module")
def night(known: Known) -> Sized:
    """What is chosen for eight hours."""
    return chosen(known, "8h")


@pytest.mark.parametrize("budget", ["1h", "8h", "60h", "0.3EUR", "5e16FLOP"])
def test_the_high_end_of_the_plan_lies_within_the_budget_and_uses_it(known: Known, budget: str) -> None:
    sized = chosen(known, budget)
    plan, limit = sized.plan, parse_budget(budget)
    high = {"time": plan.total.seconds.high, "money": plan.total.cost.high, "flops": 1.2 * plan.total.flops}
    assert sized.fits and sized.recipe.budget == budget
    assert 0.8 < high[limit.kind] / limit.amount <= 1.0


def test_a_larger_budget_buys_updates_first_and_then_larger_ones(known: Known) -> None:
    sizes = [chosen(known, budget).recipe for budget in ("2h", "8h", "60h")]
    steps = [each.num_steps for each in sizes]
    completions = [each.sampling.problems_per_step * each.sampling.group_size for each in sizes]
    assert min(steps) >= FEWEST_STEPS and max(steps) <= 400
    assert completions == sorted(completions) and completions[0] < completions[-1]


def test_a_budget_below_forty_updates_says_so_and_names_one_that_has_them(known: Known) -> None:
    small = chosen(known, "20min")
    assert small.recipe.num_steps < FEWEST_STEPS and small.least_budget is not None
    assert "TOO SMALL" in advice.explain(known, small)[-1]
    enough = chosen(known, small.least_budget)
    assert enough.recipe.num_steps >= FEWEST_STEPS and enough.least_budget is None


def test_a_budget_that_has_no_step_is_refused_with_one_that_gives_a_result(known: Known) -> None:
    with pytest.raises(BadRequest, match=r"budget of 60s is too small.*--budget \d"):
        refuse_without_a_step(chosen(known, "60s"))
    refuse_without_a_step(chosen(known, "60s", "num_steps=50"))  # the budget will stop it


SETTINGS = {
    "num_steps": "50", "sampling.problems_per_step": "6", "sampling.group_size": "4",
    "sampling.max_tokens": "99", "tokens_at_once": "1024", "evaluation.every": "3",
    "evaluation.dev_problems": "2", "evaluation.test_problems": "3", "evaluation.test_samples": "1",
    "optimizer.learning_rate": "2e-06", "max_rows": "16",
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_what_the_user_set_stays_and_the_rest_fits_around_it(known: Known, name: str) -> None:
    sized = chosen(known, "8h", f"{name}={SETTINGS[name]}")
    value: Any = sized.recipe
    for part in name.split("."):
        value = getattr(value, part)
    assert value == float(SETTINGS[name])
    assert sized.fits


def test_what_the_user_set_and_cannot_fit_is_said(known: Known) -> None:
    sized = chosen(known, "1h", "num_steps=5000")
    assert (sized.recipe.num_steps, sized.fits) == (5000, False)
    assert any("MORE THAN THE BUDGET" in line for line in advice.explain(known, sized))


def test_the_tokens_of_a_completion_are_what_was_seen_and_half_as_much_and_fit_the_context(
    known: Known, night: Sized
) -> None:
    assert night.recipe.sampling.max_tokens == 384  # 1.5 x 245, in steps of 64
    cut = replace(SEEN, lengths=(10,) * 28, open_lengths=(512,) * 4)
    assert chosen(known, "8h", calibration=cut).recipe.sampling.max_tokens == 512
    narrow = PromptTokens(mean=100.0, longest=32768 - 100)
    assert chosen(known, "8h", prompts=narrow).recipe.sampling.max_tokens == 100


def test_a_base_that_seldom_passes_gets_larger_groups(known: Known, night: Sized) -> None:
    assert night.recipe.sampling.group_size == 8
    seldom = replace(SEEN, num_passed=1)
    assert chosen(known, "8h", calibration=seldom).recipe.sampling.group_size == 16


def test_the_rate_falls_with_the_number_of_updates(known: Known, night: Sized) -> None:
    few, many = night.recipe, chosen(known, "60h", "sampling.problems_per_step=8").recipe
    assert few.num_steps < 166 < many.num_steps
    assert few.optimizer.learning_rate == 3e-6
    assert many.optimizer.learning_rate * many.num_steps == pytest.approx(5e-4, rel=0.06)


@pytest.mark.parametrize("room", [0.999, 1.05])  # of what the larger micro-batches need
def test_memory_without_room_to_spare_gets_smaller_micro_batches(
    room: float, known: Known, night: Sized, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = round(room * night.plan.memory.total)
    monkeypatch.setattr("groschen.machine.free_memory_bytes", lambda device: available)
    less = choose(known, parse_budget("8h"))
    assert less.recipe.tokens_at_once < night.recipe.tokens_at_once
    assert less.plan.memory.total < available


def test_long_prompts_let_fewer_rows_decode_together(known: Known, night: Sized) -> None:
    assert night.recipe.max_rows == 64
    longer = chosen(known, "8h", prompts=PromptTokens(mean=100.0, longest=30_000))
    assert longer.recipe.max_rows in (16, 32)  # in 16 GB, 30 k positions of 24 or 12 KB each, a quarter more


def test_measurements_give_way_where_steps_are_few(known: Known, night: Sized) -> None:
    def share(sized: Sized) -> float:
        seconds = {each.phase: each.seconds.expected for each in sized.plan.phases}
        return seconds["evaluation"] / sized.plan.total.seconds.expected

    assert share(chosen(known, "20min")) < 0.35 and share(night) < 0.4


def test_so_few_test_problems_say_what_they_cannot_show_and_how_many_could(
    known: Known, night: Sized
) -> None:
    words = advice.what_it_shows(known, night)
    assert "problems are needed" in words and "for 5 points" in words
    none = chosen(known, "8h", "evaluation.test_problems=1")
    assert "NO GAIN CAN BE SHOWN" in advice.what_it_shows(known, none)


def test_without_a_calibration_the_interval_is_wider_and_the_base_the_worst(
    known: Known, night: Sized
) -> None:
    blind = chosen(known, "8h", calibration=None)
    widths = [each.plan.total.seconds.high / each.plan.total.seconds.expected for each in (blind, night)]
    assert widths[0] > widths[1] > 1.2
    assert replace(known, calibration=None).base == 0.5 > known.base


def test_completions_left_open_count_as_long_as_their_kind_goes_on() -> None:
    open_ones = replace(SEEN, lengths=(100, 100), open_lengths=(100, 100))
    assert open_ones.mean_tokens(512) == pytest.approx((100 + 100 + 300 + 300) / 4)  # one end in 200 tokens
    assert open_ones.mean_tokens(150) == pytest.approx((100 + 100 + 150 + 150) / 4)
    assert replace(SEEN, lengths=(), open_lengths=(100,)).mean_tokens(512) == 512


def test_the_command_of_a_row_chooses_it_again(known: Known) -> None:
    sized = chosen(known, "8h", "seed=4", 'budget="8h"')
    words = advice.command_of(replace(known, overrides=("seed=4", 'budget="8h"')), sized)
    assert words.split()[:2] == ["groschen", "train"]
    assert words.endswith("--budget 8h --set seed=4")
