"""Five bugs of this field that crash nothing and bend the curve a little. Each guard is taken out once, and
that shows.

1. Micro-batches that divide by their own token count: test_batch.py, the update is the same for every split.
2. Sampling from one distribution, training on another. 3. A prefix cache that survives an update. 4. A
verifier that raises and is read as a reward of 0. 5. Text that is encoded again.
"""

import dataclasses
import io
from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_model
from tests.train.samples import scored_groups
from tests.train.test_grpo import metrics, run
from tests.train.tiny_run import recipe

from groschen.engine.engine import Engine
from groschen.records import Split
from groschen.train.alarms import RunStopped
from groschen.train.batch import MicroBatch, TrainBatch, batch
from groschen.train.grpo import scored
from groschen.train.opening import new_session
from groschen.train.optimizer import Optimizer, OptimizerSettings
from groschen.train.recipe import GrpoRecipe, SamplingSettings
from groschen.train.rewards import RewardSettings, shaped_rewards
from groschen.train.step import Objective, gradient


def gaps(folder: Path) -> list[float]:
    return [float(str(line["policy/logprob_gap_max"])) for line in metrics(folder) if line["kind"] == "step"]


def gradient_of(made: TrainBatch, divides_each: bool) -> torch.Tensor:
    model = tiny_model("qwen3", torch.float32)
    optimizer = Optimizer(model, OptimizerSettings())
    for micro_batch in made.micro_batches:
        denominator = float(len(micro_batch.targets_M)) if divides_each else made.denominator
        gradient(model, TrainBatch((micro_batch,), denominator, 1, 1, 1), Objective())
    found = optimizer.parameters["norm.weight"].grad
    assert found is not None
    return found


def test_1_dividing_each_micro_batch_by_its_own_count_would_change_the_update() -> None:
    groups = scored_groups(tiny_model("qwen3", torch.float32))
    whole, parts = (batch(groups, "token", 30, size, torch.device("cpu")) for size in (10**9, 120))
    assert isinstance(parts.micro_batches[0], MicroBatch) and len(parts.micro_batches) > 2
    right = gradient_of(whole, divides_each=False)
    assert torch.allclose(gradient_of(parts, divides_each=False), right, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(gradient_of(parts, divides_each=True), right, rtol=1e-2, atol=1e-7)


def test_2_the_gap_shows_a_trainer_that_forgets_the_temperature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = SamplingSettings(problems_per_step=3, group_size=4, max_tokens=16, temperature=0.8)
    run(recipe(tmp_path, sampling=warm, num_steps=2), tmp_path / "right")
    assert gaps(tmp_path / "right") == [0.0, 0.0]
    forgetful = lambda **settings: Objective(**{**settings, "temperature": 1.0})  # noqa: E731
    monkeypatch.setattr("groschen.train.grpo.Objective", forgetful)
    run(recipe(tmp_path, sampling=warm, num_steps=2), tmp_path / "wrong")
    assert min(gaps(tmp_path / "wrong")) > 0.01


def test_3_the_gap_shows_a_prefix_cache_that_survives_an_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(tmp_path, num_steps=3)
    long_prompts = (
        (tmp_path / "task.py").read_text().replace('f"say {number}"', 'f"say {number} " + "please " * 6')
    )
    (tmp_path / "task.py").write_text(long_prompts.replace("range(60)", "range(24)"))
    every = dataclasses.replace(
        made, sampling=SamplingSettings(problems_per_step=16, group_size=4, max_tokens=16, put_aside_after=0)
    )
    run(every, tmp_path / "right")
    assert gaps(tmp_path / "right") == [0.0] * 3
    monkeypatch.setattr(Engine, "weights_changed", lambda self, policy_version: None)
    run(every, tmp_path / "wrong")
    assert gaps(tmp_path / "wrong")[0] == 0.0 and max(gaps(tmp_path / "wrong")) > 1e-4


BREAKS = """
def verify(problem, text):
    if sum(map(ord, text)) % 3 == 0 and text not in ("AEIOU", ""):
        raise ValueError("signal only works in main thread")
    return checked(problem, text)
"""


def broken_task(folder: Path) -> GrpoRecipe:
    """A verifier that raises on a third of the completions, but not on its own key."""
    made = recipe(folder)
    source = (folder / "task.py").read_text().replace("def verify(", "def checked(") + BREAKS
    (folder / "task.py").write_text(source)
    return made


def test_4_a_verifier_that_raises_is_an_error_that_is_neither_trained_nor_graded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groschen.train.opening.refuse_broken", lambda checked: None)
    made = broken_task(tmp_path)
    tolerant = dataclasses.replace(made, alarms=dataclasses.replace(made.alarms, max_error_share=0.0))
    session = new_session(tolerant, tmp_path / "run", io.StringIO())
    groups, _ = session.roll_out(session.task.of(Split.TRAIN)[:12], 1)
    errors = {id(r.completion) for g in groups for r in g.rollouts if r.verdict.error is not None}
    assert 3 < len(errors) < 40
    rewards = [shaped_rewards(group, 16, RewardSettings()) for group in groups]
    trained = [each for group in scored(session, groups, rewards) for each in group]
    assert trained and not errors & {id(each.completion) for each in trained}
    session.close()
    stopped = r"verifier failed on \d+ of \d+ completions of the evaluation base-\w+ .*task\.py"
    with pytest.raises(RunStopped, match=stopped):
        run(broken_task(tmp_path), tmp_path / "strict")


def test_5_ids_travel_and_text_is_never_encoded_again(tmp_path: Path) -> None:
    session = new_session(recipe(tmp_path), tmp_path / "run", io.StringIO())
    groups, _ = session.roll_out(session.task.of(Split.TRAIN)[:6], 1)
    completions = [rollout.completion for group in groups for rollout in group.rollouts]
    encoded = [session.text.tokenizer.encode(each.text) for each in completions]
    assert any(list(c.token_ids[:-1]) != ids for c, ids in zip(completions, encoded, strict=True))
    session.close()
    run(recipe(tmp_path), tmp_path / "whole")
    assert gaps(tmp_path / "whole") == [0.0] * 4, "random bytes would not survive a second encoding"
