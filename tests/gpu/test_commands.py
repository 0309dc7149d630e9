"""The commands on a machine with a CUDA device: plan, train, doctor and the server take it and end."""

import io
from pathlib import Path

import pytest
import torch
from tests.fake_cuda import MEMORY_BYTES
from tests.gpu.conftest import HAS_CUDA
from tests.serve.serving import serving
from tests.train.tiny_run import recipe, write_model

from groschen import doctor, machine
from groschen.engine.open import open_engine
from groschen.model.exactness import CPU, Check, ExactnessReport, probe
from groschen.records import Request, SamplingParams
from groschen.serve.served import Wanted
from groschen.train.command import begin
from groschen.train.measuring import measured_roofs
from groschen.train.planning import plan_of


def test_a_plan_measures_the_device_and_not_the_cpu(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.device] = []

    def measured(config, on):  # type: ignore[no-untyped-def]
        asked.append(on)
        return measured_roofs(config, on)

    monkeypatch.setattr("groschen.train.planning.measured_roofs", measured)
    waited: list[torch.device] = []
    wait = machine.wait_for
    monkeypatch.setattr(machine, "wait_for", lambda on: (waited.append(on), wait(on))[1])
    plan = plan_of(recipe(tmp_path))
    if not HAS_CUDA:
        assert plan.memory.available == MEMORY_BYTES
    assert asked == [device]
    assert len(waited) > 10 and set(waited) == {device}, "a launch returns before its work is done"


def test_train_begins_runs_and_writes_its_report(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not HAS_CUDA:
        exact = ExactnessReport(True, None, "portable", "plain", ())
        monkeypatch.setattr("groschen.train.origin.probe", lambda dtype, on: exact)
    write_model(tmp_path / "model")
    task = recipe(tmp_path).task
    overrides = [
        "num_steps=1", "sampling.problems_per_step=2", "sampling.group_size=2", "sampling.max_tokens=6",
        "evaluation.dev_problems=2", "evaluation.dev_samples=1", "evaluation.test_problems=0",
        "evaluation.prompt_problems=0", "max_rows=4", "alarms.max_truncated_share=0",
    ]  # fmt: skip
    report = begin(task, str(tmp_path / "model"), tmp_path / "run", overrides, io.StringIO())
    assert report.is_file()
    assert str(device) in (tmp_path / "run" / "manifest.json").read_text()


def test_a_model_opens_on_the_device_without_being_told(device: torch.device, tmp_path: Path) -> None:
    opened = open_engine(str(write_model(tmp_path / "model")))
    assert opened.engine.model.device == device
    request = Request(prompt_ids=(65, 66, 67), sampling=SamplingParams(max_tokens=3, seed=1))
    (group,) = opened.engine.generate([request])
    assert 1 <= len(group[0].token_ids) <= 3


def test_doctor_names_the_device_and_probes_it(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    if not HAS_CUDA:
        monkeypatch.setattr(doctor, "probe", _short_probe)
    found = doctor.examine()
    assert [each.device for each in found.exactness] == ["cpu", "cuda:0"]
    assert found.exactness[1].operations == "portable"
    assert found.exactness[1].exact, found.exactness[1].checks
    assert len(found.cuda_devices) == 1


def _short_probe(dtype: torch.dtype, on: torch.device) -> ExactnessReport:
    """Of the stand-in: every operation, at the few shapes of a CPU; of the CPU, nothing."""
    if on.type == "cpu":
        return ExactnessReport(True, None, "compiled", "compiled", (Check("product", 1, 0),))
    return probe(dtype, on, CPU)


def test_the_server_answers_the_same_to_a_seed_alone_and_beside_others(
    device: torch.device, tmp_path: Path
) -> None:
    model = Wanted(name="tiny", source=str(write_model(tmp_path / "model")))
    body = {"model": "tiny", "prompt": "AB", "max_tokens": 5, "seed": 3, "logprobs": 2}
    with serving([model]) as server:
        assert server.host.models[0].opened.engine.model.device == device
        first = server.complete(**body).json()
        both = server.complete(**{**body, "n": 3}).json()
        vector = server.post("/v1/embeddings", {"model": "tiny", "input": "some words"}).json()
    assert first["choices"][0]["text"] == both["choices"][0]["text"]
    assert first["choices"][0]["logprobs"] == both["choices"][0]["logprobs"]
    assert len(vector["data"][0]["embedding"]) == 64
