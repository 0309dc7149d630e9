"""What `groschen doctor` finds: the machine, its measured roofs, whether it computes exactly, and what holds
code that a model wrote.

Leaves out how each is found (machine.py, roofs.py, model/exactness.py). docs/json.md describes the JSON.
"""

import platform
from dataclasses import dataclass

import msgspec
import torch
from rich.table import Table

from groschen import __version__, machine, roofs
from groschen.errors import Unsupported
from groschen.model.exactness import Check, probe
from groschen.model.operations import kit_for
from groschen.tasks.sandbox import find_sandbox

# The product that is measured: as many rows as a batch of 256 completions, the widths of a 0.5B model's MLP.
_ROWS, _WIDTH_IN, _WIDTH_OUT = 256, 896, 4864


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRoofs:
    """The roofs of the CPU with `threads` threads: medians, and the lowest and highest of the repeats."""

    threads: int
    bf16_gflops: float
    bf16_gflops_range: tuple[float, float]
    read_gbps: float
    read_gbps_range: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exactness:
    """Whether bf16 models keep their bits on one device, and which operations and product they run there."""

    device: str
    exact: bool
    first_inexact: str | None
    operations: str
    product: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """The wall that code of a model runs behind, and what it can still do there; no wall: it is refused."""

    wall: str | None
    leaves_open: tuple[str, ...]
    why_none: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Everything that was found, in the shape of the JSON."""

    groschen: str
    torch: str
    python: str
    exact: bool  # on every device
    first_inexact: str | None  # on the first device that is not exact
    cores: int
    memory_bytes: int
    total_memory_bytes: int
    roofs: MeasuredRoofs
    exactness: tuple[Exactness, ...]
    sandbox: Protection
    system: str
    cpu: machine.Cpu
    caches: machine.Caches
    cuda_devices: tuple[machine.CudaDevice, ...]


def examine() -> Examination:
    """Look at the machine, measure it and probe it; some ten seconds on two cores."""
    machine.prepare(torch.device("cpu"))
    found = machine.look()
    devices = ["cpu", *(f"cuda:{device.index}" for device in found.cuda_devices)]
    answers = tuple(_probe(device) for device in devices)
    return Examination(
        groschen=__version__,
        torch=str(torch.__version__),  # a subclass of str that msgspec refuses
        python=platform.python_version(),
        exact=all(answer.exact for answer in answers),
        first_inexact=next((answer.first_inexact for answer in answers if not answer.exact), None),
        cores=found.cores,
        memory_bytes=found.memory_bytes,
        total_memory_bytes=found.total_memory_bytes,
        roofs=_measure(),
        exactness=answers,
        sandbox=_protection(),
        system=found.system,
        cpu=found.cpu,
        caches=found.caches,
        cuda_devices=found.cuda_devices,
    )


def as_json(found: Examination) -> str:
    """One JSON object, indented, with a line end; its keys are a contract (docs/json.md)."""
    return msgspec.json.format(msgspec.json.encode(found)).decode() + "\n"


def as_table(found: Examination) -> Table:
    """The same for people."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(found):
        table.add_row(name, value)
    return table


def _probe(device: str) -> Exactness:
    machine.prepare(torch.device(device))
    report = probe(torch.bfloat16, torch.device(device))
    return Exactness(
        device=device,
        exact=report.exact,
        first_inexact=report.first_inexact,
        operations=report.operations,
        product=report.product,
        checks=report.checks,
    )


def _protection() -> Protection:
    try:
        wall = find_sandbox().wall
    except Unsupported as unsupported:
        return Protection(wall=None, leaves_open=(), why_none=str(unsupported))
    return Protection(wall=wall.name, leaves_open=wall.leaves_open(), why_none=None)


def _measure() -> MeasuredRoofs:
    read = roofs.measure_read_roof()
    kit = kit_for(torch.device("cpu"), torch.bfloat16)
    weight = torch.linspace(-1, 1, _WIDTH_OUT * _WIDTH_IN).reshape(_WIDTH_OUT, _WIDTH_IN).bfloat16()
    packed = kit.product.pack(weight)
    product = roofs.measure_product_roof(
        lambda rows: kit.product.multiply(rows, packed, _WIDTH_OUT, None),
        rows=_ROWS,
        width_in=_WIDTH_IN,
        width_out=_WIDTH_OUT,
        dtype=kit.operations.activation_dtype,
    )
    return MeasuredRoofs(
        threads=read.threads,
        bf16_gflops=round(product.median, 1),
        bf16_gflops_range=(round(product.lowest, 1), round(product.best, 1)),
        read_gbps=round(read.median, 1),
        read_gbps_range=(round(read.lowest, 1), round(read.best, 1)),
    )


def _rows(found: Examination) -> list[tuple[str, str]]:
    roof = found.roofs
    rows = [
        *((f"exact on {answer.device}", _verdict(answer)) for answer in found.exactness),
        ("cores", f"{found.cores} usable, {roof.threads} threads"),
        ("memory", f"{_gib(found.memory_bytes)} usable now of {_gib(found.total_memory_bytes)}"),
        ("bf16 product", f"{roof.bf16_gflops:.1f} GFLOP/s ({_span(roof.bf16_gflops_range)})"),
        ("reading", f"{roof.read_gbps:.1f} GB/s ({_span(roof.read_gbps_range)})"),
        ("cpu", f"{found.cpu.name}; {', '.join(found.cpu.flags) or 'no known extension'}"),
        ("bf16", "in hardware" if found.cpu.fast_bf16 else "not in hardware: multiplied as float32"),
        ("caches", f"L2 {_mib(found.caches.l2_bytes)} a core, L3 {_mib(found.caches.l3_bytes)} in all"),
    ]
    for device in found.cuda_devices:
        major, minor = device.capability
        facts = f"{device.name}, {_gib(device.memory_bytes)}, compute capability {major}.{minor}"
        rows.append((f"cuda:{device.index}", facts))
    if not found.cuda_devices:
        rows.append(("cuda", "no device that torch can use"))
    rows.append(("code sandbox", _sandbox(found.sandbox)))
    software = f"groschen {found.groschen}, torch {found.torch}, Python {found.python}, {found.system}"
    return [*rows, ("software", software)]


def _verdict(answer: Exactness) -> str:
    ways = f"{answer.operations} operations, {answer.product} product"
    if answer.exact:
        compared = sum(check.num_compared for check in answer.checks)
        return f"yes: {compared} rows kept their bits in any company ({ways})"
    differing = [
        f"{check.operation} ({check.num_differing} of {check.num_compared} rows)"
        for check in answer.checks
        if check.num_differing
    ]
    return f"no: {', '.join(differing)} ({ways})"


def _sandbox(protection: Protection) -> str:
    if protection.wall is None:
        return f"none: {protection.why_none}"
    return "; ".join((f"holds by {protection.wall}", *(f"but {words}" for words in protection.leaves_open)))


def _span(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.1f} to {ends[1]:.1f}"


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def _mib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / (1 << 20):g} MiB"
