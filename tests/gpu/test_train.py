"""Training on a CUDA device: it starts, its gap is zero, and it ends in the same bits, interrupted or not."""

import dataclasses
import io
from pathlib import Path

import pytest
import torch
from tests.fake_cuda import DEVICE, FakeCuda
from tests.gpu.conftest import HAS_CUDA
from tests.gpu.models import model_on
from tests.tiny import tiny_model
from tests.train.samples import scored_groups
from tests.train.test_grpo import assert_same_end, metrics
from tests.train.tiny_run import recipe

from groschen import heap
from groschen.model.exactness import ExactnessReport
from groschen.model.transformer import Transformer
from groschen.train import origin
from groschen.train.batch import Groups, batch
from groschen.train.grpo import train
from groschen.train.opening import new_session, resumed_session
from groschen.train.recipe import EvaluationSettings, GrpoRecipe, SamplingSettings
from groschen.train.step import Objective, gradient


def small(folder: Path) -> GrpoRecipe:
    return recipe(
        folder,
        num_steps=2,
        sampling=SamplingSettings(problems_per_step=2, group_size=3, max_tokens=8),
        evaluation=EvaluationSettings(
            every=2, dev_problems=2, dev_samples=1, test_problems=2, test_samples=1, prompt_problems=0
        ),
    )


def run(made: GrpoRecipe, folder: Path) -> Path:
    session = new_session(made, folder, io.StringIO())
    try:
        train(session)
    finally:
        session.close()
    return folder


class Stop(Exception):
    """Where a process would have died."""


def die_in_the_second_step(made: GrpoRecipe, folder: Path) -> Path:
    session = new_session(made, folder, io.StringIO())
    progress = session.watch.progress

    def die(*arguments: object) -> None:
        if (folder / "checkpoints" / "step-000001").exists():
            raise Stop
        progress(*arguments)  # type: ignore[arg-type]

    session.watch.progress = die  # type: ignore[method-assign, assignment]
    with pytest.raises(Stop):
        train(session)
    session.close()
    return folder


@pytest.fixture(autouse=True)
def _probed_elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe of the stand-in takes seconds and has its own test."""
    if not HAS_CUDA:
        exact = ExactnessReport(True, None, "portable", "plain", ())
        monkeypatch.setattr(origin, "probe", lambda dtype, device: exact)


def gradients(model: Transformer, groups: Groups, device: torch.device) -> dict[str, torch.Tensor]:
    """Of one update, in two micro-batches."""
    model.requires_grad_(True)
    for parameter in model.parameters():
        parameter.grad, parameter.grad_dtype = None, torch.float32
    gradient(model, batch(groups, "token", 1, 64, device), Objective())
    return {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}


def test_a_gradient_has_the_same_bits_each_time_and_the_value_of_a_cpus(device: torch.device) -> None:
    model, groups = model_on(device, "smollm"), scored_groups(tiny_model("smollm"), (5, 33), 4, 12)
    first, second = (gradients(model, groups, device) for _ in range(2))
    assert first.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    right = gradients(tiny_model("smollm"), groups, torch.device("cpu"))
    for name, grad in first.items():
        assert (grad - right[name]).norm() < 0.05 * right[name].norm(), name


def test_a_run_ends_in_the_same_bits_in_one_go_and_interrupted(device: torch.device, tmp_path: Path) -> None:
    whole = run(small(tmp_path), tmp_path / "whole")
    steps = [line for line in metrics(whole) if line["kind"] == "step"]
    assert [line["policy/logprob_gap_max"] for line in steps] == [0.0, 0.0]
    died = die_in_the_second_step(small(tmp_path), tmp_path / "died")
    session = resumed_session(died, (), io.StringIO())
    try:
        train(session)
    finally:
        session.close()
    assert_same_end(whole, died, step=2)


def test_the_heap_of_the_host_is_left_alone(
    stand_in: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is set for tensors that come and go there, by taking all the memory that is free."""
    called: list[str] = []
    for name in ("keep_freed_memory", "give_back_if_short"):
        monkeypatch.setattr(heap, name, lambda name=name: called.append(name))
    run(dataclasses.replace(small(tmp_path), num_steps=1), tmp_path / "run")
    assert called == []


def test_a_gradient_stays_within_its_budget_of_launches_and_reads(stand_in: FakeCuda) -> None:
    """Of 2 groups of 4 in 3 layers. The host reads four sums of each part that is scored, none by row."""
    model = model_on(DEVICE, "smollm").requires_grad_(True)
    for parameter in model.parameters():
        parameter.grad_dtype = torch.float32
    made = batch(scored_groups(tiny_model("smollm"), (5, 33), 4, 12), "token", 1, 2048, DEVICE)
    assert len(made.micro_batches) == 1
    stand_in.forget()
    gradient(model, made, Objective())
    assert sum(stand_in.reads.values()) == 4, stand_in.reads
    assert sum(stand_in.launches.values()) <= 3000, stand_in.launches
