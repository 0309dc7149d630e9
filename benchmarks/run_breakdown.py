"""Where the time of a decoding step goes: products, attention, drawing tokens, and all that is left.

    python benchmarks/run_breakdown.py --model FOLDER --data ROWS.jsonl [--rows 64] [--steps 40]

The whole step is timed as the engine runs it. Its parts are then run alone on what the step before had: the
bare products at the same rows, the attention of every layer on the engine's own cache and tables, and the
draw on logits of the model. What remains is norms, gates, rotations, the bookkeeping in Python and what the
parts cost each other.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ours import bare_products, requests_of
from roofs import Step
from run_engine import commit, is_dirty, machine_words
from workload import Mode, prompt_ids

from groschen.engine.engine import Engine, EngineConfig
from groschen.model.kvcache import KeyValueCache, Rows
from groschen.model.load import load_model
from groschen.model.shapes import AttentionShape
from groschen.text.load import load_text

HERE = Path(__file__).parent
NEW_TOKENS = 160  # the steps in the middle of them are timed: contexts of prompt + 60 to prompt + 100
FIRST = 60


class Watched:
    """Keeps what the model was given in the last step that only decoded."""

    def __init__(self, engine: Engine, rows: int) -> None:
        self.rows: Rows | None = None
        self.cache: KeyValueCache | None = None
        self._count = rows
        engine.model.register_forward_pre_hook(self._see)

    def _see(self, _: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if len(given[0]) == self._count:
            self.rows, self.cache = given[1], given[2]


def median_ms(work: Callable[[], object], repeats: int = 15) -> float:
    """Median of the repeats after one that warms up."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(taken)


@torch.inference_mode()
def parts_of(engine: Engine, watched: Watched, count: int) -> dict[str, float]:
    """Median ms of each part, run alone."""
    model, rows, cache = engine.model, watched.rows, watched.cache
    assert rows is not None and cache is not None
    config, operations = model.config, model.kit.operations
    queries = torch.randn(count, config.num_heads, config.head_width).to(model.activation_dtype)
    shapes = [AttentionShape(config.attention_scale, each.window) for each in config.layers]
    logits = model.logits(torch.randn(count, config.width).to(model.activation_dtype))
    inverses, uniforms = torch.ones(count), torch.rand(count, dtype=torch.float64)

    def attend() -> None:
        for layer, shape in enumerate(shapes):
            operations.attend(queries, cache.layer(layer), rows, shape)

    return {
        "products": median_ms(lambda: bare_products(model, Step(count, count))),
        "attention": median_ms(attend),
        "draw": median_ms(lambda: operations.categorical(logits, inverses, uniforms, None)),
    }


def measure(given: argparse.Namespace) -> dict[str, object]:
    """One generation, its steps timed, then the parts."""
    text = load_text(str(given.model))
    engine = Engine(load_model(str(given.model)), text.tokenizer, EngineConfig(max_rows=given.rows))
    watched = Watched(engine, given.rows)
    mode = Mode(
        prompts=max(1, given.rows // 8), samples=min(8, given.rows), new_tokens=NEW_TOKENS, logprobs=True
    )
    assert mode.completions == given.rows, "rows are 1 to 8, or a multiple of 8"
    prompts = prompt_ids(mode, given.data, text.chat_template().render, text.tokenizer.encode)
    for request in requests_of(mode, prompts, NEW_TOKENS):
        engine.add(request)
    taken: list[float] = []
    while len(taken) < FIRST + given.steps:
        start = time.perf_counter()
        engine.step()
        taken.append(1e3 * (time.perf_counter() - start))
    steps = taken[FIRST:]
    whole, parts = statistics.median(steps), parts_of(engine, watched, given.rows)
    parts["rest"] = whole - sum(parts.values())
    for name, ms in parts.items():
        print(f"{name:10} {ms:7.2f} ms  {100 * ms / whole:5.1f} %")
    return {
        "median": whole, "min": min(steps), "max": max(steps), "parts_ms": parts,
        "shares": {name: ms / whole for name, ms in parts.items()},
    }  # fmt: skip


def main() -> None:
    """Measure, print, keep the result."""
    made = argparse.ArgumentParser(description="where a decoding step's time goes")
    made.add_argument("--model", required=True, type=Path)
    made.add_argument("--data", required=True, type=Path)
    made.add_argument("--rows", type=int, default=64)
    made.add_argument("--steps", type=int, default=40)
    made.add_argument("--allow-dirty", action="store_true")
    given = made.parse_args()
    dirty = is_dirty()
    if dirty and not given.allow_dirty:
        raise SystemExit("there are uncommitted changes: commit them, or mark the result with --allow-dirty")
    result = {
        "name": "breakdown",
        "commit": commit(dirty),
        "machine": machine_words(),
        "unit": "ms for one decoding step",
        "command": f"python benchmarks/run_breakdown.py --model FOLDER --data ROWS.jsonl --rows {given.rows} "
        f"--steps {given.steps}",
        "repeats": given.steps,
        "rows": given.rows,
        **measure(given),
    }
    (HERE / "results" / "breakdown.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
