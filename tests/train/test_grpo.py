"""The recipe as a whole, on a tiny model: it learns, it is exact, and it ends in the same bits however it
got there.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.train.tiny_run import recipe

from groschen.errors import BadRequest, Unsupported
from groschen.model.safetensors_folder import SafetensorsFile
from groschen.train.grpo import train
from groschen.train.opening import new_session, resumed_session
from groschen.train.recipe import GrpoRecipe, PolicySettings, SamplingSettings
from groschen.train.session import Session


def run(made: GrpoRecipe, folder: Path) -> Session:
    session = new_session(made, folder, io.StringIO())
    try:
        train(session)
    finally:
        session.close()
    return session


def metrics(folder: Path) -> list[dict[str, object]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not k.startswith(("time/", "cost/")) and k != "tokens/per_s"}
        for line in lines
    ]


def tensors(folder: Path, step: int) -> dict[str, torch.Tensor]:
    file = SafetensorsFile(folder / "checkpoints" / f"step-{step:06d}" / "trainer.safetensors")
    return {name: file.read(name) for name in file.names()}


def assert_same_end(one: Path, other: Path, step: int = 4) -> None:
    first, second = tensors(one, step), tensors(other, step)
    assert first.keys() == second.keys() and len(first) > 10
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert metrics(one) == metrics(other)
    for name in ("best-test.jsonl", "base-test.jsonl"):
        assert (one / "evaluations" / name).read_bytes() == (other / "evaluations" / name).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one go, which others are compared with."""
    folder = tmp_path_factory.mktemp("whole")
    run(recipe(folder), folder / "run")
    return folder


def test_the_gap_between_engine_and_trainer_is_zero_at_every_step(whole: Path) -> None:
    steps = [line for line in metrics(whole / "run") if line["kind"] == "step"]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert [line["policy/logprob_gap_max"] for line in steps] == [0.0] * 4
    assert all(line["tokens/trained"] for line in steps)


def test_the_same_recipe_ends_in_the_same_bits(whole: Path, tmp_path: Path) -> None:
    run(recipe(whole), tmp_path / "again")
    assert_same_end(whole / "run", tmp_path / "again")


def test_another_seed_ends_in_other_bits(whole: Path, tmp_path: Path) -> None:
    run(recipe(whole, seed=4), tmp_path / "other")
    assert metrics(tmp_path / "other") != metrics(whole / "run")


class Stop(Exception):
    """What a test raises where a process would have died."""


@pytest.mark.parametrize("progress_calls", [1, 20, 33, 50, 62, 75, 88])
def test_a_run_that_dies_anywhere_goes_on_to_the_same_bits(
    whole: Path, tmp_path: Path, progress_calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = new_session(recipe(whole), tmp_path / "run", io.StringIO())
    left = [progress_calls]
    progress: Callable[..., None] = session.watch.progress

    def die(*arguments: object) -> None:
        left[0] -= 1
        if not left[0]:
            raise Stop
        progress(*arguments)

    monkeypatch.setattr(session.watch, "progress", die)
    with pytest.raises(Stop):
        train(session)
    session.close()
    session = resumed_session(tmp_path / "run", (), io.StringIO())
    train(session)
    session.close()
    assert_same_end(whole / "run", tmp_path / "run")


def test_training_raises_the_reward(tmp_path: Path) -> None:
    made = recipe(
        tmp_path, num_steps=25, sampling=SamplingSettings(problems_per_step=8, group_size=8, max_tokens=16)
    )
    run(made, tmp_path / "run")
    rewards = [line["reward/mean"] for line in metrics(tmp_path / "run") if line["kind"] == "step"]
    assert sum(map(float, rewards[-5:])) > 1.5 * sum(map(float, rewards[:5]))  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", ["grpo", "dr_grpo", "dapo", "rloo", "gspo", "cispo"])
def test_every_published_combination_trains_with_a_gap_of_zero(
    algorithm: str, whole: Path, tmp_path: Path
) -> None:
    policy = PolicySettings(algorithm=algorithm, updates_per_step=2)  # type: ignore[arg-type]
    run(recipe(whole, policy=policy, num_steps=1), tmp_path / "run")
    (step,) = [line for line in metrics(tmp_path / "run") if line["kind"] == "step"]
    assert step["policy/logprob_gap_max"] == 0.0 and step["update/grad_norm"] != 0.0


@pytest.mark.parametrize("divergence", ["k2", "ratio_k3", "k1_reward"])
def test_a_divergence_from_the_base_is_zero_before_the_first_update_and_above_after(
    divergence: str, whole: Path, tmp_path: Path
) -> None:
    policy = PolicySettings(divergence=divergence, divergence_weight=0.1)  # type: ignore[arg-type]
    run(recipe(whole, policy=policy), tmp_path / "run")
    steps = [line for line in metrics(tmp_path / "run") if line["kind"] == "step"]
    assert steps[0]["policy/kl_nat"] == 0.0
    assert float(str(steps[-1]["policy/kl_nat"])) > 0.0


def test_truncated_sampling_is_refused_in_training(tmp_path: Path) -> None:
    for changes in ({"top_p": 0.9}, {"top_k": 50}):
        with pytest.raises(BadRequest, match="another distribution"):
            recipe(tmp_path, sampling=SamplingSettings(**changes))  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="greedy"):
        recipe(tmp_path, sampling=SamplingSettings(temperature=0.0))
    with pytest.raises(Unsupported, match="gradient is zero"):
        recipe(tmp_path, policy=PolicySettings(divergence="k1"))  # type: ignore[arg-type]


def test_a_second_process_is_refused(whole: Path) -> None:
    session = resumed_session(whole / "run", (), io.StringIO())
    with pytest.raises(BadRequest, match=r"another process|in use|held"):
        resumed_session(whole / "run", (), io.StringIO())
    session.close()


def test_a_run_that_ended_goes_on_with_a_larger_budget_to_the_same_bits(whole: Path, tmp_path: Path) -> None:
    run(recipe(whole, budget="1e4FLOP"), tmp_path / "run")
    assert [line for line in metrics(tmp_path / "run") if line["kind"] == "step"] == []
    assert any("budget of 1e4FLOP" in str(line.get("message")) for line in metrics(tmp_path / "run"))
    session = resumed_session(tmp_path / "run", ["budget=1h"], io.StringIO())
    train(session)
    session.close()
    steps = [line["step"] for line in metrics(tmp_path / "run") if line["kind"] == "step"]
    assert steps == [1, 2, 3, 4]
    first, second = tensors(whole / "run", 4), tensors(tmp_path / "run", 4)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_setting_that_decides_bits_cannot_change_on_the_way(whole: Path) -> None:
    with pytest.raises(BadRequest, match=r"optimizer\.learning_rate"):
        resumed_session(whole / "run", ["optimizer.learning_rate=1.0"], io.StringIO())
