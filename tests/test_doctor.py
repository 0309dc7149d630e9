"""doctor.py: the shapes that scripts rely on, with a made-up probe and once with the real one."""

import json

import pytest
import torch
from rich.console import Console

from groschen import doctor, machine
from groschen.errors import Unsupported
from groschen.model.exactness import Check, ExactnessReport
from groschen.tasks.sandbox import Sandbox
from groschen.tasks.walls import Sandlock


def report(attention_differing: int) -> ExactnessReport:
    checks = (Check("product", 960, 0), Check("attention", 200, attention_differing))
    first = "attention" if attention_differing else None
    return ExactnessReport(first is None, first, "compiled", "widened", checks)


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch):
    """examine() with a probe that answers per device, and a small product so that it takes no time."""

    def with_answers(answers: dict[str, ExactnessReport]) -> doctor.Examination:
        monkeypatch.setattr(doctor, "_ROWS", 2)
        monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
        monkeypatch.setattr(doctor, "probe", lambda dtype, device: answers[str(device)])
        return doctor.examine()

    return with_answers


def as_text(found: doctor.Examination) -> str:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(doctor.as_table(found))
    return captured.get()


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> machine.CudaDevice:
    device = machine.CudaDevice(index=0, name="Some GPU", memory_bytes=80 << 30, capability=(9, 0))
    monkeypatch.setattr(machine, "cuda_devices", lambda: (device,))
    monkeypatch.setattr(machine, "prepare", lambda device: None)  # sets switches of the whole process
    return device


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cuda_devices", lambda: ())


@pytest.mark.usefixtures("no_gpu")
def test_the_keys_that_scripts_rely_on_are_there(examine) -> None:
    found = json.loads(doctor.as_json(examine({"cpu": report(0)})))
    assert found["exact"] is True
    assert found["first_inexact"] is None
    assert found["cores"] == machine.usable_cores()
    assert 0 < found["memory_bytes"] <= found["total_memory_bytes"]
    for roof in ("bf16_gflops", "read_gbps"):
        low, high = found["roofs"][f"{roof}_range"]
        assert 0 < low <= found["roofs"][roof] <= high


@pytest.mark.usefixtures("no_gpu")
def test_the_wall_that_holds_code_is_named_with_what_it_leaves_open(examine, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "find_sandbox", lambda: Sandbox(Sandlock()))
    found = examine({"cpu": report(0)})
    said = json.loads(doctor.as_json(found))["sandbox"]
    assert said == {"wall": "sandlock", "leaves_open": list(Sandlock().leaves_open()), "why_none": None}
    assert "holds by sandlock; but it can ask of any path whether it exists" in " ".join(
        as_text(found).split()
    )


@pytest.mark.usefixtures("no_gpu")
def test_without_a_wall_the_reasons_are_named(examine, monkeypatch) -> None:
    def refuse() -> None:
        raise Unsupported("no wall holds: there is no program bwrap")

    monkeypatch.setattr(doctor, "find_sandbox", refuse)
    found = examine({"cpu": report(0)})
    said = json.loads(doctor.as_json(found))["sandbox"]
    assert said == {"wall": None, "leaves_open": [], "why_none": "no wall holds: there is no program bwrap"}
    assert "none: no wall holds: there is no program bwrap" in " ".join(as_text(found).split())


@pytest.mark.usefixtures("no_gpu")
def test_the_first_inexact_operation_is_named_to_scripts_and_people(examine) -> None:
    found = examine({"cpu": report(7)})
    assert json.loads(doctor.as_json(found))["first_inexact"] == "attention"
    assert "no: attention (7 of 200 rows)" in as_text(found)


@pytest.mark.usefixtures("one_gpu")
def test_a_machine_is_exact_only_if_each_of_its_devices_is(examine) -> None:
    found = examine({"cpu": report(0), "cuda:0": report(3)})
    assert [answer.exact for answer in found.exactness] == [True, False]
    assert (found.exact, found.first_inexact) == (False, "attention")
    assert "Some GPU, 80.0 GiB, compute capability 9.0" in as_text(found)


def test_this_machine_is_probed_and_the_answer_follows_from_its_checks() -> None:
    threads = torch.get_num_threads()
    try:
        found = doctor.examine()
    finally:
        torch.set_num_threads(threads)
    on_cpu = found.exactness[0]
    assert {check.operation for check in on_cpu.checks} >= {"product", "attention", "model"}
    assert on_cpu.exact == all(check.num_differing == 0 for check in on_cpu.checks)
    assert found.exact == all(answer.exact for answer in found.exactness)
