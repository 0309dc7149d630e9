"""The recipe as a whole, on a tiny model: it learns, it is exact, and it ends in the same bits however it
got there.
"""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_model
from tests.train.samples import scored_groups
from tests.train.tiny_run import recipe

from groschen.errors import BadRequest, Unsupported
from groschen.model.safetensors_folder import SafetensorsFile
from groschen.records import EvalRecord, FinishReason, Split
from groschen.train.alarms import Held, RunStopped
from groschen.train.command import Interrupted, _run
from groschen.train.grpo import train, trained_share
from groschen.train.opening import new_session, resumed_session
from groschen.train.recipe import GrpoRecipe, PolicySettings, SamplingSettings
from groschen.train.session import Session
from groschen.train.state import read_state
from groschen.train.step import StepStats, gradient


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


def test_ctrl_c_between_a_step_and_its_measurement_loses_no_measurement(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: Session) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("groschen.train.grpo.measure_on_dev", interrupt)
    with pytest.raises(Interrupted, match="--resume"):
        _run(new_session(recipe(whole), tmp_path / "run", io.StringIO()), io.StringIO())
    monkeypatch.undo()
    assert (tmp_path / "run" / "checkpoints" / "step-000002").is_dir()
    session = resumed_session(tmp_path / "run", (), io.StringIO())
    train(session)
    session.close()
    assert_same_end(whole / "run", tmp_path / "run")


def test_a_gradient_that_is_not_finite_leaves_the_last_whole_step_to_go_on_from(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = new_session(recipe(whole), tmp_path / "run", io.StringIO())

    def broken(*arguments: Any) -> StepStats:
        found = gradient(*arguments)
        if session.state.step == 2:
            session.optimizer.parameters["norm.weight"].grad[0] = math.nan  # type: ignore[index]
        return found

    monkeypatch.setattr("groschen.train.grpo.gradient", broken)
    with pytest.raises(RunStopped, match="not taken"):
        _run(session, io.StringIO())
    monkeypatch.undo()
    found = [each.name for each in sorted((tmp_path / "run" / "checkpoints").iterdir())]
    assert found == ["step-000001", "step-000002"]
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


def test_so_many_completions_of_a_group_are_trained_as_the_recipe_wants(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def watched(*arguments: Any) -> StepStats:
        seen.extend(len(part.lengths) for part in arguments[1].micro_batches)
        return gradient(*arguments)

    monkeypatch.setattr("groschen.train.grpo.gradient", watched)
    sampling = SamplingSettings(problems_per_step=3, group_size=4, max_tokens=16, trained_per_group=2)
    run(recipe(whole, num_steps=1, sampling=sampling), tmp_path / "run")
    (step,) = [line for line in metrics(tmp_path / "run") if line["kind"] == "step"]
    assert sum(seen) == 2 * int(str(step["update/trained_groups"]).removesuffix(".0")) > 0


def test_a_gradient_looks_for_short_memory_after_each_micro_batch(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr("groschen.heap.give_back_if_short", lambda: looks.append(1))
    pairs: list[tuple[int, int]] = []

    def watched(*arguments: Any) -> StepStats:
        before = len(looks)  # an idle engine looks too
        found = gradient(*arguments)
        pairs.append((len(looks) - before, len(arguments[1].micro_batches)))
        return found

    monkeypatch.setattr("groschen.train.grpo.gradient", watched)
    run(recipe(whole, num_steps=1), tmp_path / "run")
    assert all(num_looks == num_parts for num_looks, num_parts in pairs)
    assert sum(num_parts for _, num_parts in pairs) > 1


def test_a_run_that_goes_on_knows_what_was_measured_before(whole: Path) -> None:
    session = resumed_session(whole / "run", (), io.StringIO())
    (history,) = [value for value in vars(session.watch).values() if hasattr(value, "evaluations")]
    session.close()
    assert [line["step"] for line in history.evaluations] == [2, 4] and history.base is not None


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


@pytest.mark.parametrize(
    ("algorithm", "share"), [("groschen", 1.0), ("dapo", 1.0), ("grpo", 0.2), ("rloo", 0.2)]
)
def test_a_papers_denominator_counts_completions_without_signal_too(
    algorithm: str, share: float, whole: Path
) -> None:
    made = recipe(whole, policy=PolicySettings(algorithm=algorithm))  # type: ignore[arg-type]
    rewards = [[1.0, 0.0, None], [1.0, 1.0, 1.0], [0.0, 0.0], [0.0, 0.0, 0.0]]
    trained = scored_groups(tiny_model(), prompt_lengths=(5,), group_size=2)
    assert trained_share(made, rewards, trained) == share
    assert trained_share(made, [[None, None]], []) == 1.0


def test_a_run_whose_format_no_verdict_tells_is_resumed(tmp_path: Path) -> None:
    # Completions long enough to end: one that is cut has a verdict of its own, which tells its format.
    made = recipe(
        tmp_path, num_steps=2, sampling=SamplingSettings(problems_per_step=3, group_size=4, max_tokens=90)
    )
    task = (tmp_path / "task.py").read_text().replace('"format": True, ', "")
    (tmp_path / "task.py").write_text(task)
    run(made, tmp_path / "run")
    assert None in [line.get("format/share", 0) for line in metrics(tmp_path / "run")], "JSON's NaN"
    session = resumed_session(tmp_path / "run", (), io.StringIO())
    session.close()
    assert session.state.step == 2


def test_an_evaluation_that_could_not_be_graded_is_read_back(whole: Path, tmp_path: Path) -> None:
    session = new_session(recipe(whole), tmp_path / "run", io.StringIO())
    broken = EvalRecord(
        key="p1", sample=0, prompt="say 1", text="x", answer=None, passed=False, reward=0.0, parts={},
        error="it broke", num_tokens=1, finish_reason=FinishReason.STOP,
    )  # fmt: skip
    session.state.step = 1
    session.state.held = [session.log_evaluation([broken], Split.DEV, "policy")]
    session.save()
    session.close()
    found = read_state(session.checkpoints.path(1), session.optimizer)
    assert found.held == session.state.held == [Held(1, None, None)]


def test_an_alarm_remembers_for_how_many_steps_nothing_was_trained(whole: Path, tmp_path: Path) -> None:
    session = new_session(recipe(whole), tmp_path / "run", io.StringIO())
    remembered = []
    for trained_groups in [0.0] * 20 + [1.0, 0.0]:
        session.log_step({"update/trained_groups": trained_groups, "accuracy/train": 0.5})
        remembered.append(session.state.steps_without_signal)
    session.close()
    assert remembered == [*range(1, 21), 0, 1]


def test_a_last_measurement_that_was_begun_is_set_aside_with_its_completions(
    whole: Path, tmp_path: Path
) -> None:
    session = new_session(recipe(whole), tmp_path / "run", io.StringIO())
    folder = session.run.paths.evaluation("best-test").parent
    for name in ("best-test.jsonl", "best-test.rollouts.jsonl"):
        (folder / name).write_text(name)
    session.forget("best-test")
    session.close()
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "best-test.until-step-000000.jsonl": "best-test.jsonl",
        "best-test.rollouts.until-step-000000.jsonl": "best-test.rollouts.jsonl",
    }
