"""How fast this machine can be at best, measured: bytes read and bf16 operations per second.

Leaves out what any one model reaches of it (a benchmark's roof share) and the kernel of the bf16 product,
which is the model's business and is passed in.
Sources: the roofline model, Williams, Waterman, Patterson, CACM 52(4), 2009; reading as in STREAM, McCalpin
1995, but without its writes, because a decode step reads weights and writes next to nothing.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from groschen import machine
from groschen.errors import BadRequest

_ASSUMED_L3_BYTES = 64 << 20  # where the system does not say
_MINIMUM_BUFFER_BYTES = 256 << 20
_CUDA_BUFFER_BYTES = 1 << 30  # over eight times the second-level cache of the largest device
_SUMS = 1024  # rows that are summed one by one, so that threads share them evenly


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """One measured limit: the rates of all repeats, in `unit`, in the order they were taken."""

    unit: str
    threads: int
    rates: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle rate: what to expect."""
        return statistics.median(self.rates)

    @property
    def best(self) -> float:
        """The highest rate: the limit itself, where other work on the machine disturbed some repeats."""
        return max(self.rates)

    @property
    def lowest(self) -> float:
        """The lowest rate; far below the median, something else was running."""
        return min(self.rates)


def read_buffer_bytes(l3_bytes: int | None) -> int:
    """Size of a buffer that no cache can hold: over four times the third level's, at least 256 MiB."""
    return max(_MINIMUM_BUFFER_BYTES, 5 * (l3_bytes or _ASSUMED_L3_BYTES))


def measure_read_roof(
    *, repeats: int = 21, buffer_bytes: int | None = None, device: torch.device | None = None
) -> Roof:
    """Bytes read from the memory of `device`, a CPU's if None, in GB/s (1e9 bytes), there by the threads that
    torch has now.

    Float32 sums of many long rows: each byte is read once, nothing is written. Medians on two idle Zen 3
    cores with 256 MiB: 37 this way, 28 as one sum, 26 as a matrix times a vector, 27 to 31 in a C loop with
    AVX2 and OpenMP. With other work on the machine, all of these fell to a third.
    """
    device = device or torch.device("cpu")
    is_cpu = device.type == "cpu"
    size = buffer_bytes or (read_buffer_bytes(machine.caches().l3_bytes) if is_cpu else _CUDA_BUFFER_BYTES)
    buffer = torch.ones(_SUMS, size // (4 * _SUMS), device=device)
    rates = _rates(lambda: buffer.sum(dim=1), buffer.numel() * 4 / 1e9, repeats, device)
    return Roof(unit="GB/s", threads=torch.get_num_threads(), rates=rates)


def measure_product_roof(
    product: Callable[[Tensor], Tensor],
    *,
    rows: int,
    width_in: int,
    width_out: int,
    dtype: torch.dtype = torch.bfloat16,
    repeats: int = 9,
    device: torch.device | None = None,
) -> Roof:
    """Multiply-adds in GFLOP/s (two operations each) of a product with weights that the caller has prepared.

    product: takes [rows, width_in] of `dtype` on `device`, the CPU if None, and returns [rows, width_out].
    Raises BadRequest if what it returns has another shape: the rate would be of something else.
    """
    device = device or torch.device("cpu")
    rows_in = torch.linspace(-1, 1, rows * width_in).reshape(rows, width_in).to(dtype).to(device)
    found = tuple(product(rows_in).shape)
    if found != (rows, width_out):
        raise BadRequest(f"the product to be measured returned shape {found}, expected {(rows, width_out)}")
    rates = _rates(lambda: product(rows_in), 2 * rows * width_in * width_out / 1e9, repeats, device)
    return Roof(unit="GFLOP/s", threads=torch.get_num_threads(), rates=rates)


def _rates(
    work: Callable[[], object], amount: float, repeats: int, device: torch.device
) -> tuple[float, ...]:
    if repeats < 1:
        raise BadRequest(f"a roof needs 1 repeat or more, not {repeats}")
    work()  # the first call pays for page faults, thread start and packing
    machine.wait_for(device)
    rates = []
    for _ in range(repeats):
        start = machine.seconds()
        work()
        machine.wait_for(device)
        rates.append(amount / (machine.seconds() - start))
    return tuple(rates)
