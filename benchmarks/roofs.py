"""What a run could cost at least: the bare matrix products of its steps, or the bytes it has to read.

Neither knows a model: the product is a callable that multiplies by every weight of the model once. Leaves
out the roofs of the machine itself, which `groschen.roofs` measures.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Step(NamedTuple):
    """Rows of one engine step: through the layers, and through the head."""

    rows: int
    head_rows: int


Product = Callable[[Step], object]
"""Runs all products of one step with distinct weights in each layer, and nothing else."""


def product_seconds(steps: Iterable[Step], product: Product, *, repeats: int = 5, kinds: int = 8) -> float:
    """Seconds of the bare products of `steps`: each kind measured alone, counted as often as it came.

    Of more than `kinds` different steps, the commonest are measured; a rarer one costs what the nearest
    measured one costs for each of its rows. The fastest of `repeats`: a roof that noise has lowered would
    flatter the share.
    """
    counted = Counter(steps)
    measured = {step: _least_seconds(step, product, repeats) for step, _ in counted.most_common(kinds)}
    return sum(times * _cost(step, measured) for step, times in counted.items())


def _least_seconds(step: Step, product: Product, repeats: int) -> float:
    product(step)
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(step)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _cost(step: Step, measured: dict[Step, float]) -> float:
    if step in measured:
        return measured[step]
    nearest = min(
        measured, key=lambda other: abs(other.rows - step.rows) + abs(other.head_rows - step.head_rows)
    )
    return measured[nearest] * (step.rows + step.head_rows) / (nearest.rows + nearest.head_rows)


def read_seconds(bytes_read: int, read_gbps: float) -> float:
    """Seconds to read that many bytes at a bandwidth in GB/s (1e9 bytes)."""
    return bytes_read / (read_gbps * 1e9)
