"""What a plan takes from a recipe, and when layers are computed again for the gradient."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny import FAMILIES
from tests.train.tiny_run import recipe

from groschen import machine
from groschen.errors import BadRequest, DoesNotFit
from groschen.model.config import ModelConfig
from groschen.plan import Plan
from groschen.plan_time import RecipeFacts
from groschen.runs.journal import read_journal
from groschen.train import step
from groschen.train.grpo import train
from groschen.train.opening import new_session
from groschen.train.planning import facts, plan_with
from groschen.train.recipe import EvaluationSettings, GrpoRecipe

CONFIG = ModelConfig.from_json({**FAMILIES["qwen2"], "num_hidden_layers": 16})
FACTS = RecipeFacts(
    steps=10, problems_per_step=4, group_size=8, prompt_tokens=50, completion_tokens=100,
    max_completion_tokens=200, evaluations=2, evaluation_problems=20, evaluation_samples=2,
    final_problems=50, final_samples=4, micro_batch_tokens=200_000,
)  # fmt: skip


def planned(recompute_layers: str, available: int, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(machine, "free_memory_bytes", lambda device: available)
    made = GrpoRecipe(recompute_layers=recompute_layers)  # type: ignore[arg-type]
    found = replace(FACTS, recomputes_layers=recompute_layers == "always")
    roofs = {"bf16_gflops": 1.0, "read_gbps": 1.0}
    return plan_with(found, made, CONFIG, torch.device("cpu"), roofs)


def test_layers_are_computed_again_where_memory_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = planned("auto", 1 << 50, monkeypatch)
    again = planned("auto", kept.memory.total - 1, monkeypatch)
    assert (kept.recomputes_layers, again.recomputes_layers) == (False, True)
    assert again.memory.activations < kept.memory.activations / 3
    training = [next(p for p in each.phases if p.phase == "training") for each in (kept, again)]
    assert training[0].flops == training[1].flops
    assert training[1].recomputed_flops > training[0].recomputed_flops + training[0].flops / 5


def test_a_plan_trains_as_many_completions_as_the_recipe() -> None:
    work = {}
    for count in (0, 4, 8):
        roofs = {"bf16_gflops": 1.0, "read_gbps": 1.0}
        found = replace(FACTS, trained_per_group=count)
        plan = plan_with(found, GrpoRecipe(), CONFIG, torch.device("cpu"), roofs)
        work[count] = {each.phase: each.flops for each in plan.phases}
    assert work[0] == work[8] and work[4]["generation"] == work[0]["generation"]
    assert 0.5 < work[4]["training"] / work[0]["training"] < 0.6  # the prompt is computed all the same


def test_a_plan_counts_the_evaluations_that_the_run_makes(tmp_path: Path) -> None:
    settings = EvaluationSettings(
        every=2, dev_problems=4, dev_samples=2, test_problems=3, test_samples=2, prompt_problems=3
    )
    made = recipe(tmp_path, num_steps=3, evaluation=settings)
    with Path(made.task).open("a") as file:
        file.write('\nINSTRUCTIONS = ("Shout.", "Count.")\n')
    session = new_session(made, tmp_path / "run", io.StringIO())
    found = facts(made, session.task, session.text, None)
    train(session)
    session.close()
    drawn = [
        len(read_journal(path)) for path in sorted((tmp_path / "run" / "evaluations").glob("*-dev.jsonl"))
    ]
    dev = found.evaluations * found.evaluation_problems * found.evaluation_samples
    assert sum(drawn) == dev + (found.wordings + 1) * found.wording_problems


def test_as_many_tokens_are_planned_to_have_logits_as_the_trainer_scores_at_once() -> None:
    for lengths in ((40, 600, 300, 212, 100), (300, 212, 100)):
        most = max(part.stop - part.start for part, _ in step._parts(lengths, FACTS.scored_tokens))
        assert most == max(FACTS.scored_tokens, *lengths)


def test_what_fits_neither_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    again = planned("always", 1 << 50, monkeypatch)
    assert again.recomputes_layers
    with pytest.raises(DoesNotFit):
        planned("auto", again.memory.total - 1, monkeypatch)


def test_who_says_never_is_refused_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = planned("never", 1 << 50, monkeypatch)
    with pytest.raises(DoesNotFit):
        planned("never", kept.memory.total - 1, monkeypatch)


def test_another_word_is_named() -> None:
    with pytest.raises(BadRequest, match=r"'yes'.*auto, always, never"):
        GrpoRecipe(recompute_layers="yes")  # type: ignore[arg-type]
