"""What exactness costs: all products of one step of a real model, by every way, at several numbers of rows.

    python benchmarks/run_products.py --model FILE.gguf [--rows 1,8,64,512] [--repeats 7]

Distinct weights in every layer, so that no cache helps. The ways take turns within each repeat. `paired` is
what the engine runs on a CPU with AVX512_BF16, `compiled` on one without bfloat16 products (both exact by
definition), `widened` where there is no compiler. The others are torch's own, whose bits depend on the
number of rows: the price is the time of the engine's way over the fastest of those, minus one.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from run_engine import commit, is_dirty, machine_words
from torch import Tensor

from groschen.model.load import load_model
from groschen.model.operations import kit_for
from groschen.model.products import Product, WidenedProduct
from groschen.model.transformer import Linear

HERE = Path(__file__).parent


class Torch:
    """torch's own product with weights of one type, nothing padded: fast or not, not exact."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.name = f"torch {str(dtype).removeprefix('torch.')}"
        self.dtype = dtype

    def pack(self, weight: Tensor, into: Tensor | None = None) -> Tensor:
        """The weight in the product's type."""
        return weight.detach().to(self.dtype)

    def multiply(
        self, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, is_wide: bool = False
    ) -> Tensor:
        """x: [N, inputs] of the product's type."""
        return F.linear(x, packed)


class Way(NamedTuple):
    """One product with all weights of the model packed for it."""

    name: str
    product: Product
    dtype: torch.dtype
    weights: list[tuple[Tensor, int, int]]  # packed, outputs, inputs


class AtRows(NamedTuple):
    """Every way at one number of rows; times are medians, lowest and highest of the repeats."""

    price: float
    ms: dict[str, float]
    ms_range: dict[str, tuple[float, float]]
    gflops: dict[str, float]


@torch.inference_mode()
def step_seconds(way: Way, rows: int) -> float:
    """Seconds of all products of one step."""
    inputs = {width: torch.ones(rows, width, dtype=way.dtype) for _, _, width in way.weights}
    start = time.perf_counter()
    for packed, outputs, width in way.weights:
        way.product.multiply(inputs[width], packed, outputs, None)
    return time.perf_counter() - start


def measure(model: str, counts: list[int], repeats: int) -> tuple[str, dict[str, AtRows]]:
    """The name of the engine's own way, and every way at every number of rows."""
    kit = kit_for(torch.device("cpu"), torch.bfloat16)
    linears = [module for module in load_model(model).modules() if isinstance(module, Linear)]
    flops = 2 * sum(linear.weight.numel() for linear in linears)
    exact: list[tuple[Product, torch.dtype]] = [
        (kit.product, kit.operations.activation_dtype),
        (WidenedProduct(), torch.float32),
    ]
    inexact: list[tuple[Product, torch.dtype]] = [
        (Torch(dtype), dtype) for dtype in (torch.float32, torch.bfloat16)
    ]
    ways = [
        Way(product.name, product, dtype, [(product.pack(m.weight), *m.weight.shape) for m in linears])
        for product, dtype in (*exact, *inexact)
    ]
    table: dict[str, AtRows] = {}
    for count in counts:
        taken: dict[str, list[float]] = {way.name: [] for way in ways}
        for repeat in range(repeats + 1):
            for way in ways:
                seconds = step_seconds(way, count)
                if repeat:
                    taken[way.name].append(seconds)
        medians = {name: statistics.median(times) for name, times in taken.items()}
        fastest = min(medians[product.name] for product, _ in inexact)
        table[str(count)] = AtRows(
            price=medians[kit.product.name] / fastest - 1,
            ms={name: 1e3 * seconds for name, seconds in medians.items()},
            ms_range={name: (1e3 * min(times), 1e3 * max(times)) for name, times in taken.items()},
            gflops={name: flops * count / seconds / 1e9 for name, seconds in medians.items()},
        )
        figures = ", ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in medians.items())
        print(
            f"{count:4} rows: {figures}; price {100 * (medians[kit.product.name] / fastest - 1):+.0f} %",
            flush=True,
        )
    return kit.product.name, table


def main() -> None:
    """Measure, print, keep the result."""
    made = argparse.ArgumentParser(description="the price of exactness")
    made.add_argument("--model", required=True)
    made.add_argument("--rows", default="1,2,4,8,16,32,64,128,512")
    made.add_argument("--repeats", type=int, default=7)
    made.add_argument("--allow-dirty", action="store_true")
    given = made.parse_args()
    dirty = is_dirty()
    if dirty and not given.allow_dirty:
        raise SystemExit("there are uncommitted changes: commit them, or mark the result with --allow-dirty")
    own, table = measure(given.model, [int(count) for count in given.rows.split(",")], given.repeats)
    rows = "64" if "64" in table else next(iter(table))
    low, high = table[rows].ms_range[own]
    result = {
        "name": "products",
        "commit": commit(dirty),
        "machine": machine_words(),
        "unit": "ms for all products of one step",
        "command": f"python benchmarks/run_products.py --model FILE.gguf --rows {given.rows} "
        f"--repeats {given.repeats}",
        "repeats": given.repeats,
        "median": table[rows].ms[own],
        "min": low,
        "max": high,
        "way": own,
        "by_rows": {name: each._asdict() for name, each in table.items()},
    }
    (HERE / "results" / "products.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
