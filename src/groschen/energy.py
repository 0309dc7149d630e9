"""Joules that the machine has taken: read from its counters where it lets us, else estimated and marked so.

Measured are whole devices, also what other programs cause on them. Leaves out disks, fans, network and the
loss of the power supply, and what a joule costs (prices.py).
Sources: the kernel's "Power Capping Framework" (powercap, RAPL); NVML's nvmlDeviceGetTotalEnergyConsumption;
the estimate's watts from Cloud Carbon Footprint's methodology page (constants below).
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from groschen import machine

MEASURED, ESTIMATED, NONE = "measured", "estimated", "none"

# Of one logical CPU, idle and busy, over the processors of a large cloud; of one GB of memory. Cloud
# Carbon Footprint, "Methodology", appendix: AWS 0.74 and 3.5 W, memory 0.000392 kWh a GB and hour. A laptop
# takes less, a desktop up to twice as much: an order of magnitude, not a measurement.
IDLE_WATTS_PER_CPU = 0.74
BUSY_WATTS_PER_CPU = 3.5
WATTS_PER_MEMORY_GB = 0.392

# No package takes more for long. A counter that was not read for longer than this power needs to fill it may
# have wrapped more than once: AMD's 65 kJ hold for two minutes at 500 W.
_HIGHEST_PACKAGE_WATTS = 500.0


def process_cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended, all threads together."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass(frozen=True)
class Clock:
    """Two clocks that never go back, in seconds; a test puts its own hands in."""

    wall: Callable[[], float] = machine.seconds
    cpu: Callable[[], float] = process_cpu_seconds


@dataclass(frozen=True, slots=True)
class Reading:
    """Joules since the meter was opened, and how they are known."""

    joules: float
    method: str  # "measured"; "estimated" as soon as one part is


class Source(Protocol):
    """One part of the machine whose energy is counted."""

    method: str
    description: str

    def read(self) -> float:
        """Joules since the source was opened."""


class Meter:
    """The sum of its sources. `notes` says for people what is counted, how, and what is not."""

    def __init__(self, sources: Sequence[Source], not_counted: Sequence[str] = ()) -> None:
        self._sources, self._not_counted = tuple(sources), tuple(not_counted)

    def read(self) -> Reading:
        """Joules since the meter was opened. Read at least each minute: counters wrap."""
        if not self._sources:
            return Reading(0.0, NONE)
        joules = sum(source.read() for source in self._sources)
        methods = {source.method for source in self._sources}
        return Reading(joules, MEASURED if methods == {MEASURED} else ESTIMATED)

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for each part."""
        counted = [f"{source.description} ({source.method})" for source in self._sources]
        return (*counted, *(f"not counted: {reason}" for reason in self._not_counted))


def open_meter(
    device: torch.device | None = None, root: Path = machine.ROOT, clock: Clock | None = None
) -> Meter:
    """The best meter that this machine allows: RAPL for the processor, else the estimate; NVML for `device`.

    device: the CUDA device that computes; None or the CPU: no GPU is counted.
    """
    clock = clock or Clock()
    zones, why_not = rapl_zones(root)
    cpu: Source = RaplSource(zones, clock) if zones else EstimatedSource(clock, why_not=why_not)
    if device is None or device.type != "cuda":
        return Meter([cpu])
    gpu = _open_nvml(device)
    return Meter([cpu], [f"GPU ({gpu})"]) if isinstance(gpu, str) else Meter([cpu, gpu])


@dataclass(frozen=True, slots=True)
class Zone:
    """One counter of powercap."""

    name: str  # "package-0", "dram", "psys", ...
    folder: Path
    range_microjoules: int  # it starts again at 0 above this

    def microjoules(self) -> int:
        """The counter now. Raises OSError where it cannot be read."""
        return int((self.folder / "energy_uj").read_text())


def rapl_zones(root: Path) -> tuple[tuple[Zone, ...], str]:
    """The counters to add up, or none and the reason.

    Zones nest: psys holds the packages, a package holds its cores. Packages count, with the memory beside
    them where the machine has a counter for it; psys alone where there is no package. The same package may be
    offered twice, by register and by memory mapping: the second is preferred, as the kernel does.
    """
    folder = root / "sys/class/powercap"
    found: dict[str, Zone] = {}  # "package-0", "package-0/dram", "psys", ...
    try:
        for path in sorted(folder.glob("intel-rapl*:*")):  # intel-rapl-mmio:0 sorts before intel-rapl:0
            zone, parent = _zone(path), path.name.rpartition(":")[0]
            above = f"{(folder / parent / 'name').read_text().strip()}/" if ":" in parent else ""
            found.setdefault(above + zone.name, zone)
        packages = [zone for name, zone in found.items() if re.fullmatch(r"package[^/]*(/dram)?", name)]
        chosen = packages or [zone for name, zone in found.items() if name == "psys"]
        for zone in chosen:
            zone.microjoules()  # readable by root only on most systems: all of them or none
    except PermissionError:
        return (), "the RAPL counters are readable by root only"
    except (OSError, ValueError) as unreadable:
        return (), f"the RAPL counters cannot be read ({unreadable})"
    if not chosen:
        return (), "no RAPL counters: usual in virtual machines and containers"
    return tuple(chosen), ""


def _zone(path: Path) -> Zone:
    return Zone(
        name=(path / "name").read_text().strip(),
        folder=path,
        range_microjoules=int((path / "max_energy_range_uj").read_text()),
    )


class RaplSource:
    """Counters of packages, and of memory where there are any; each starts again at 0 above its range."""

    def __init__(self, zones: Sequence[Zone], clock: Clock) -> None:
        self.method = MEASURED
        self.description = f"processor by RAPL: {', '.join(zone.name for zone in zones)}"
        self._zones, self._clock, self._total = tuple(zones), clock, 0
        self._last = [zone.microjoules() for zone in zones]
        self._read_at = clock.wall()

    def read(self) -> float:
        """See Source. A counter that may have wrapped twice unseen, or is gone, makes it an estimate."""
        now = self._clock.wall()
        for index, zone in enumerate(self._zones):
            try:
                new = zone.microjoules()
            except OSError:
                self.method = ESTIMATED
                continue
            wrapped = zone.range_microjoules if new < self._last[index] else 0
            self._total += new - self._last[index] + wrapped
            self._last[index] = new
            if (now - self._read_at) * _HIGHEST_PACKAGE_WATTS * 1e6 > zone.range_microjoules:
                self.method = ESTIMATED
        self._read_at = now
        return self._total / 1e6


class EstimatedSource:
    """Watts of idle processors and memory over time, and the rest of a busy processor for its time.

    cpus, memory_bytes: what this process may use; asked from the machine if None.
    """

    def __init__(
        self, clock: Clock, *, cpus: int | None = None, memory_bytes: int | None = None, why_not: str = ""
    ) -> None:
        self.method = ESTIMATED
        self._clock = clock
        self._cpus = machine.usable_cores() if cpus is None else cpus
        self._memory_bytes = machine.usable_memory_bytes() if memory_bytes is None else memory_bytes
        self.description = (
            f"{self._cpus} processors at {IDLE_WATTS_PER_CPU} W idle and {BUSY_WATTS_PER_CPU} W busy, "
            f"{self._memory_bytes / 1e9:.0f} GB of memory at {WATTS_PER_MEMORY_GB} W (Cloud Carbon Footprint)"
        ) + (f"; {why_not}" if why_not else "")
        self._wall, self._cpu = clock.wall(), clock.cpu()

    def read(self) -> float:
        """See Source."""
        seconds, busy = self._clock.wall() - self._wall, self._clock.cpu() - self._cpu
        idle = self._cpus * IDLE_WATTS_PER_CPU + self._memory_bytes / 1e9 * WATTS_PER_MEMORY_GB
        return seconds * idle + busy * (BUSY_WATTS_PER_CPU - IDLE_WATTS_PER_CPU)


def estimated_watts(busy_cpus: float, memory_bytes: float) -> float:
    """The power that the estimate gives for processors that never rest."""
    return busy_cpus * BUSY_WATTS_PER_CPU + memory_bytes / 1e9 * WATTS_PER_MEMORY_GB


class NvmlSource:
    """The total energy counter of one GPU, in mJ since its driver was loaded (Volta and later).

    millijoules: reads the counter; None where it has stopped being readable.
    """

    def __init__(self, millijoules: Callable[[], int | None], name: str, start: int) -> None:
        self.method, self.description = MEASURED, f"GPU by NVML: {name}"
        self._millijoules, self._start, self._last = millijoules, start, start

    def read(self) -> float:
        """See Source."""
        now = self._millijoules()
        if now is None:
            self.method = ESTIMATED
        else:
            self._last = now
        return (self._last - self._start) / 1e3


def _open_nvml(device: torch.device) -> NvmlSource | str:
    """The counter of a CUDA device, or why there is none. Found by UUID: CUDA and NVML count differently."""
    try:
        import pynvml
    except ImportError:
        return "pynvml is not installed; it comes with the extra [gpu]"
    facts = torch.cuda.get_device_properties(device)

    def millijoules() -> int | None:
        try:
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except pynvml.NVMLError:  # a run must not end because a counter does
            return None

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{facts.uuid}")
    except pynvml.NVMLError as refused:
        return f"NVML does not know {facts.name}: {refused}"
    start = millijoules()
    return (
        f"{facts.name} has no energy counter" if start is None else NvmlSource(millijoules, facts.name, start)
    )
