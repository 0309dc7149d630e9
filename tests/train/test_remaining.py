"""A run ends within its budget, whole: what has to follow is kept back, judged by what was paid so far."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.train.tiny_run import recipe

from groschen.ledger import LedgerLine, read_ledger
from groschen.prices import load_prices
from groschen.runs.journal import read_journal
from groschen.train.grpo import train
from groschen.train.opening import new_session, resumed_session
from groschen.train.recipe import EvaluationSettings, GrpoRecipe, SamplingSettings
from groschen.train.remaining import Counts, Remaining
from groschen.train.session import Session

COUNTS = Counts(step=10, dev=4, test=20, base=24)


def run(made: GrpoRecipe, folder: Path) -> Session:
    session = new_session(made, folder, io.StringIO())
    try:
        train(session)
    finally:
        session.close()
    return session


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[GrpoRecipe, Session]:
    """A run whose steps are dear and whose measurements are cheap, without a budget."""
    folder = tmp_path_factory.mktemp("whole")
    made = recipe(
        folder,
        num_steps=4,
        sampling=SamplingSettings(problems_per_step=12, group_size=8, max_tokens=16),
        evaluation=EvaluationSettings(
            every=2, dev_problems=2, dev_samples=1, test_problems=4, test_samples=1, prompt_problems=0
        ),
    )
    return made, run(made, folder / "run")


@pytest.mark.parametrize("share", [0.7, 0.85, 0.95])
def test_a_budget_is_kept_and_the_run_is_whole(
    whole: tuple[GrpoRecipe, Session], share: float, tmp_path: Path
) -> None:
    made, unbounded = whole
    budget = share * unbounded.spent().flops
    session = run(replace(made, budget=f"{budget:.6e}FLOP"), tmp_path / "run")
    assert 0 < session.state.step < made.num_steps
    assert session.spent().flops <= budget
    assert session.run.paths.evaluation("best-test").exists()
    assert session.run.paths.best.exists()


def test_a_budget_that_is_ample_takes_no_step_away(whole: tuple[GrpoRecipe, Session], tmp_path: Path) -> None:
    made, unbounded = whole
    budget = 1.5 * unbounded.spent().flops
    session = run(replace(made, budget=f"{budget:.6e}FLOP"), tmp_path / "run")
    assert session.state.step == made.num_steps


def test_the_time_before_the_ledger_and_of_earlier_lives_is_spent(
    whole: tuple[GrpoRecipe, Session], tmp_path: Path
) -> None:
    made, _ = whole
    session = new_session(made, tmp_path / "run", io.StringIO(), started_s=-1e6)
    session.close()
    first = read_ledger(tmp_path / "run" / "ledger.jsonl")
    assert first[0].phase == "loading" and first[0].gap_wall_s > 1e6
    again = resumed_session(tmp_path / "run", (), io.StringIO())
    again.close()
    assert again.spent().seconds > 1e6 + first[0].wall_s
    assert again.ledger.lines[-1].attempt == 2


def line(phase: str, step: int, seconds: float, **more: float) -> LedgerLine:
    return LedgerLine(phase=phase, step=step, wall_s=seconds, cpu_s=0.0, flops=1e6 * seconds, **more)  # type: ignore[arg-type]


BASE = [line("loading", 0, 5.0), line("evaluation", 0, 48.0), line("verification", 0, 2.4)]


def remaining(lines: Sequence[LedgerLine], step: int, whole: tuple[GrpoRecipe, Session]) -> Remaining:
    return Remaining(lines, step, COUNTS, whole[1].planned, load_prices())


def test_before_the_first_step_the_base_tells_what_a_completion_costs(
    whole: tuple[GrpoRecipe, Session],
) -> None:
    left = remaining(BASE, 0, whole)
    phases = {each.phase: each.seconds.expected for each in whole[1].planned.phases}
    each = 50.4 / 24
    assert left.next_step().seconds == pytest.approx(
        1.2 * 10 * each * (1 + phases["training"] / phases["generation"])
    )
    assert left.end().seconds == pytest.approx(1.2 * 20 * each + left._checkpoint().seconds + 5.0)


def test_completions_that_grew_longer_make_the_end_dearer(whole: tuple[GrpoRecipe, Session]) -> None:
    lines = [*BASE]
    ends = []
    for step, seconds in enumerate((20.0, 30.0, 60.0), start=1):
        lines += [line("generation", step, seconds), line("training", step, 40.0, gap_wall_s=1.0)]
        ends.append(remaining(lines, step, whole).end().seconds)
    assert ends[2] > ends[1] > ends[0]
    left = remaining(lines, 3, whole)
    assert left.next_step().seconds == pytest.approx(1.2 * (60.0 + 41.0))
    assert left.mean_step_s() == pytest.approx((110 + 3 + 120) / 3)
    assert left.next_step().flops == pytest.approx(1.2e6 * 100)


def test_a_step_line_says_how_long_it_will_take(whole: tuple[GrpoRecipe, Session]) -> None:
    steps = [each for each in read_journal(whole[1].run.paths.metrics, dict) if each["kind"] == "step"]
    left = [each["time/left_s"] for each in steps]
    assert len(left) == 4 and all(value > 5.0 for value in left)
    assert left[-1] < left[0]
