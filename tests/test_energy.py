"""energy.py on made-up trees of /sys, with made-up clocks and a made-up NVML."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from groschen import energy
from groschen.energy import Clock, EstimatedSource, Meter, RaplSource, open_meter, rapl_zones

RANGE = 262_143_328_850  # microjoules, as Intel's packages have


class Hands:
    """A clock whose hands a test moves."""

    def __init__(self) -> None:
        self.wall, self.cpu = 100.0, 7.0
        self.clock = Clock(wall=lambda: self.wall, cpu=lambda: self.cpu)


def zone(root: Path, folder: str, name: str, microjoules: int, limit: int = RANGE) -> Path:
    path = root / "sys/class/powercap" / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text(f"{limit}\n")
    return path / "energy_uj"


def names(root: Path) -> list[str]:
    return [found.folder.name for found in rapl_zones(root)[0]]


def test_packages_are_added_up_without_their_cores_and_without_psys(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    zone(tmp_path, "intel-rapl:0:0", "core", 1)
    zone(tmp_path, "intel-rapl:0:1", "uncore", 1)
    zone(tmp_path, "intel-rapl:1", "package-1", 1)
    zone(tmp_path, "intel-rapl:2", "psys", 1)
    assert names(tmp_path) == ["intel-rapl:0", "intel-rapl:1"]


def test_memory_beside_a_package_counts_and_memory_elsewhere_does_not(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    zone(tmp_path, "intel-rapl:0:0", "dram", 1)
    zone(tmp_path, "intel-rapl:1", "psys", 1)
    zone(tmp_path, "intel-rapl:1:0", "dram", 1)
    assert names(tmp_path) == ["intel-rapl:0", "intel-rapl:0:0"]


def test_psys_alone_is_taken_where_there_is_no_package(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "psys", 1)
    assert names(tmp_path) == ["intel-rapl:0"]


def test_a_package_that_is_offered_twice_counts_once(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    zone(tmp_path, "intel-rapl:0:0", "dram", 1)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1)
    assert sorted(names(tmp_path)) == ["intel-rapl-mmio:0", "intel-rapl:0:0"]


def test_joules_are_the_sum_of_what_the_counters_rose(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 500_000)
    meter = open_meter(root=tmp_path, clock=Hands().clock)
    first.write_text("3500000")
    second.write_text("600000")
    assert meter.read() == energy.Reading(pytest.approx(2.6), "measured")


def test_a_counter_that_began_again_has_passed_its_range(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 900, limit=1000)
    hands = Hands()
    source = RaplSource(rapl_zones(tmp_path)[0], hands.clock)
    counter.write_text("50")
    assert source.read() == pytest.approx(150e-6)
    counter.write_text("80")
    assert source.read() == pytest.approx(180e-6)
    counter.write_text("10")
    assert source.read() == pytest.approx(180e-6 + 930e-6)


def test_a_counter_that_may_have_wrapped_twice_is_an_estimate(tmp_path: Path) -> None:
    """65 kJ are 131 s at 500 W."""
    zone(tmp_path, "intel-rapl:0", "package-0", 1, limit=65_532_610_987)
    hands = Hands()
    meter = open_meter(root=tmp_path, clock=hands.clock)
    hands.wall += 120
    assert meter.read().method == "measured"
    hands.wall += 140
    assert meter.read().method == "estimated"


def test_a_counter_that_disappears_stops_the_count_and_not_the_run(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = open_meter(root=tmp_path, clock=Hands().clock)
    counter.write_text("7000000")
    meter.read()
    counter.unlink()
    assert meter.read() == energy.Reading(7.0, "estimated")


def test_counters_for_root_only_lead_to_the_estimate_with_that_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    read_text = Path.read_text

    def refuse(self: Path, *args: object, **kwargs: object) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read_text(self)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert rapl_zones(tmp_path)[0] == ()
    meter = open_meter(root=tmp_path, clock=Hands().clock)
    assert meter.read().method == "estimated"
    assert "readable by root only" in meter.notes[0]


def test_a_machine_without_counters_is_estimated_and_says_so(tmp_path: Path) -> None:
    meter = open_meter(root=tmp_path, clock=Hands().clock)
    assert meter.read() == energy.Reading(0.0, "estimated")
    assert "no RAPL counters" in meter.notes[0] and "3.5 W busy" in meter.notes[0]


def test_a_damaged_counter_is_not_read_as_a_number(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1).write_text("much\n")
    assert "cannot be read" in rapl_zones(tmp_path)[1]


def test_the_estimate_is_idle_power_over_time_and_the_rest_over_processor_time() -> None:
    hands = Hands()
    source = EstimatedSource(hands.clock, cpus=4, memory_bytes=10_000_000_000)
    hands.wall += 100
    idle = 100 * (4 * 0.74 + 10 * 0.392)
    assert source.read() == pytest.approx(idle)
    hands.cpu += 400  # all four processors, all the time
    assert source.read() == pytest.approx(100 * energy.estimated_watts(4, 10e9))


def test_a_meter_without_sources_knows_nothing() -> None:
    assert Meter([]).read() == energy.Reading(0.0, "none")


def test_processor_time_grows_with_work_and_not_with_waiting() -> None:
    start = energy.process_cpu_seconds()
    total = sum(number * number for number in range(1_000_000))
    assert total > 0 and energy.process_cpu_seconds() > start


class NvmlError(Exception):
    pass


def made_up_nvml(monkeypatch: pytest.MonkeyPatch, counter: list[int], why_not: str = "") -> list[str]:
    """A pynvml whose counter is the list's last number; asked for: the UUIDs."""
    asked: list[str] = []
    module = ModuleType("pynvml")

    def energy_of(handle: str) -> int:
        if why_not:
            raise NvmlError(why_not)
        return counter[-1]

    def handle_of(uuid: str) -> str:
        asked.append(uuid)
        return uuid

    for name, value in {
        "NVMLError": NvmlError, "nvmlInit": lambda: None, "nvmlDeviceGetHandleByUUID": handle_of,
        "nvmlDeviceGetTotalEnergyConsumption": energy_of,
    }.items():  # fmt: skip
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    facts = SimpleNamespace(uuid="ab-12", name="A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    return asked


CUDA = torch.device("cuda", 0)


def test_the_gpu_that_computes_is_found_by_its_uuid_and_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = [5_000]
    asked = made_up_nvml(monkeypatch, counter)
    package = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = open_meter(CUDA, root=tmp_path, clock=Hands().clock)
    counter.append(8_000)
    package.write_text("2000000")
    assert asked == ["GPU-ab-12"]
    assert meter.read() == energy.Reading(pytest.approx(5.0), "measured")


def test_a_measured_gpu_beside_an_estimated_processor_is_an_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up_nvml(monkeypatch, [0])
    assert open_meter(CUDA, root=tmp_path, clock=Hands().clock).read().method == "estimated"


def test_a_gpu_without_a_counter_is_named_as_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up_nvml(monkeypatch, [0], why_not="Not Supported")
    assert "not counted: GPU (A GPU has no energy counter)" in open_meter(CUDA, root=tmp_path).notes


def test_without_pynvml_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "the extra [gpu]" in open_meter(CUDA, root=tmp_path).notes[-1]
