"""What a run's ledger knows of its work, and when: each piece as it ends, and all of it once."""

import io
from pathlib import Path

import pytest
from tests.tiny import tiny_engine
from tests.train.tiny_run import TEMPLATE, recipe, write_task

from groschen.ledger import Ledger, LedgerLine
from groschen.model.flops import generation_flops, scoring_flops
from groschen.records import Completion, SamplingParams, Split
from groschen.rollout import Sampler, draw, verify
from groschen.runs.journal import read_journal
from groschen.runs.rollouts import RolloutJournal
from groschen.tasks.load import load_task
from groschen.text.bundle import Text
from groschen.text.chat import ChatTemplate
from groschen.train.grpo import train
from groschen.train.opening import new_session
from groschen.train.recipe import EvaluationSettings, GrpoRecipe, PolicySettings
from groschen.train.session import Session

NO_EVALUATION = EvaluationSettings(every=1, dev_problems=1, dev_samples=1, test_problems=0)


@pytest.fixture
def sampler() -> Sampler:
    engine = tiny_engine()
    text = Text(tokenizer=engine.tokenizer, template=ChatTemplate(TEMPLATE))
    return Sampler(engine, text, SamplingParams(max_tokens=12, seed=1))


def eager_ledger(folder: Path) -> Ledger:
    """A ledger that writes a line whenever it is told something."""
    return Ledger(folder / "ledger.jsonl", part_s=0.0)


def test_a_completion_is_paid_when_it_has_ended_and_a_prompt_with_the_first_of_its_group(
    sampler: Sampler, tmp_path: Path
) -> None:
    problems, ledger = load_task(str(write_task(tmp_path))).of(Split.TRAIN)[:3], eager_ledger(tmp_path)
    ended: list[int] = []

    def compare(completion: Completion) -> None:
        ended.append(len(completion.token_ids))
        assert sum(line.generated_tokens for line in ledger.lines) == sum(ended)

    with ledger.span("generation") as span:
        drawn = draw(sampler, problems, 4, salt=1, on_completion=compare, span=span)
    assert len(ended) == 12
    groups = [[drawn.completions[each.key, i] for i in range(4)] for each in problems]
    prompts = [len(group[0].prompt_ids) for group in groups]
    assert sum(line.prompt_tokens for line in ledger.lines) == sum(prompts)
    work = [
        generation_flops(sampler.engine.model.config, prompt, [len(each.token_ids) for each in group]).model
        for prompt, group in zip(prompts, groups, strict=True)
    ]
    assert sum(line.flops for line in ledger.lines) == sum(work)


def test_the_ledger_hears_of_every_step_of_the_engine_and_of_every_verdict(
    sampler: Sampler, tmp_path: Path
) -> None:
    task, ledger = load_task(str(write_task(tmp_path))), eager_ledger(tmp_path)
    problems = task.of(Split.TRAIN)[:2]
    with ledger.span("generation") as span:
        drawn = draw(sampler, problems, 2, salt=1, span=span)
    steps = max(len(each.token_ids) for each in drawn.completions.values())
    assert len(ledger.lines) >= steps
    with ledger.span("verification") as span:
        verify(task, problems, drawn, span=span)
    assert [line.phase for line in ledger.lines].count("verification") >= 4


def test_completions_that_a_journal_knows_are_no_new_tokens(sampler: Sampler, tmp_path: Path) -> None:
    """A step taken up after a kill would otherwise be said to draw a million tokens a second."""
    problems = load_task(str(write_task(tmp_path))).of(Split.TRAIN)[:3]
    counts, completions = [], []
    for known in (2, 3, 3):
        journal = RolloutJournal(tmp_path / "rollouts.jsonl")
        drawn = draw(sampler, problems[:known], 4, salt=1, journal=journal)
        journal.close()
        counts.append(drawn.num_new_tokens)
        completions.append(drawn.completions.values())
    lengths = [sum(len(each.token_ids) for each in some) for some in completions]
    assert counts == [lengths[0], lengths[1] - lengths[0], 0]


def trained(made: GrpoRecipe, folder: Path) -> tuple[Session, list[LedgerLine]]:
    """A session that has ended, and what its ledger says of training."""
    session = new_session(made, folder, io.StringIO())
    session.ledger = eager_ledger(folder)
    try:
        train(session)
    finally:
        session.close()
    return session, [line for line in session.ledger.lines if line.phase == "training"]


def test_an_update_is_paid_micro_batch_by_micro_batch(tmp_path: Path) -> None:
    made = recipe(tmp_path, num_steps=1, evaluation=NO_EVALUATION)
    session, lines = trained(made, tmp_path / "run")
    paid = [line for line in lines if line.trained_tokens]
    assert len(paid) > 1
    (step,) = [line for line in read_journal(session.run.paths.metrics, dict) if line["kind"] == "step"]
    assert sum(line.trained_tokens for line in paid) == step["tokens/trained"]
    assert all(line.flops > line.recomputed_flops > 0 for line in paid)


def test_layers_that_are_computed_again_raise_hfu_and_not_mfu(tmp_path: Path) -> None:
    sums = []
    for word in ("never", "always"):
        made = recipe(tmp_path, num_steps=1, evaluation=NO_EVALUATION, recompute_layers=word)
        lines = trained(made, tmp_path / word)[1]
        sums.append((sum(line.flops for line in lines), sum(line.recomputed_flops for line in lines)))
    (kept, little), (again, much) = sums
    assert kept == again
    assert much > little + kept / 5


def test_logprobs_of_the_base_are_paid_as_what_they_are(tmp_path: Path) -> None:
    policy = PolicySettings(divergence="k2")
    made = recipe(tmp_path, num_steps=1, evaluation=NO_EVALUATION, policy=policy)
    session, lines = trained(made, tmp_path / "run")
    journal = RolloutJournal(session.run.paths.rollouts(1))
    journal.close()
    groups: dict[str, list[Completion]] = {}
    for (key, _), completion in journal.completions().items():
        groups.setdefault(key, []).append(completion)
    work = sum(
        scoring_flops(
            session.model.config, len(group[0].prompt_ids), [len(each.token_ids) for each in group]
        ).model
        for group in groups.values()
    )
    assert sum(line.flops for line in lines if not line.trained_tokens) == pytest.approx(work)
