"""A run folder as training on the countdown task would leave it: seeded, plausible, made by no model."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from groschen.ledger import LedgerLine
from groschen.plan import PhasePlan, Plan
from groschen.plan_memory import MemoryPlan
from groschen.plan_time import Interval
from groschen.records import EvalRecord, FinishReason
from groschen.runs.manifest import Manifest

STEPS, EVERY, BEST = 60, 10, 50
EVIL = '</pre><script>alert("boo")</script><img src=x onerror=alert(1)>\u202e & <b>bold</b>\x00\ud800'

MANIFEST = Manifest(
    groschen="0.2.0",
    commit="638b643",
    created="2026-11-22T14:05:00Z",
    model="penny",
    model_digest="a3" * 32,
    task="countdown",
    task_digest="7c" * 32,
    seed=7,
    machine={
        "system": "Linux x86_64",
        "cpu": {"name": "AMD EPYC", "flags": ["avx2", "fma"]},
        "cores": 2,
        "roofs": {"threads": 2, "bf16_gflops": 167.4, "read_gbps": 29.6},
    },
    exact=True,
    first_inexact=None,
    versions={"torch": "2.13.0+cpu", "python": "3.11.7"},
    num_parameters=3_214_592,
    config_digest="5e" * 32,
)


def records(
    seed: int,
    accuracy: float,
    *,
    num_problems: int = 300,
    k: int = 4,
    length: int = 60,
    format_share: float = 1.0,
) -> list[EvalRecord]:
    """Completions of problems whose difficulty is the same for every seed."""
    difficulty = np.random.default_rng(1).normal(0, 1.2, num_problems)
    generator = np.random.default_rng(seed)
    difficulty += generator.normal(0, 1.0, num_problems)  # what this model finds hard
    shift = math.log(accuracy / (1 - accuracy)) * 1.4
    return [
        _record(generator, i, sample, 1 / (1 + math.exp(difficulty[i] - shift)), length, format_share)
        for i in range(num_problems)
        for sample in range(k)
    ]


def _record(
    generator: np.random.Generator, i: int, sample: int, chance: float, length: int, format_share: float
) -> EvalRecord:
    right = bool(generator.random() < chance)
    in_slot = bool(generator.random() < format_share)
    is_cut = not right and bool(generator.random() < 0.04)
    target, numbers = 20 + i % 60, (3 + i % 7, 5 + i % 5, 8)
    tries = max(1, int(generator.poisson(length / 12)))
    lines = [f"{numbers[0]} + {numbers[1]} * {n} = {numbers[0] + numbers[1] * n}, no" for n in range(tries)]
    answer = f"{numbers[0]}*{numbers[1]}+{numbers[2]}" if right else f"{numbers[0]}+{numbers[1]}+{numbers[2]}"
    ending = "" if is_cut else (f"<answer>{answer}</answer>" if in_slot else answer)
    return EvalRecord(
        key=f"countdown:{i:04d}",
        sample=sample,
        prompt=f"Make {target} from {numbers[0]}, {numbers[1]} and {numbers[2]}. Use each number once.",
        text="\n".join([*lines, ending]),
        answer=f"{numbers[0]}*{numbers[1]}+{numbers[2]}",
        passed=right and in_slot,
        reward=float(right and in_slot),
        parts={"format": in_slot and not is_cut, "lenient": right, "answer": None if is_cut else answer},
        error=None,
        num_tokens=12 * tries + 9,
        finish_reason=FinishReason.LENGTH if is_cut else FinishReason.STOP,
    )


def write_run(folder: Path, *, exact: bool = True) -> Path:
    """A complete run folder; returns it."""
    for name in ("evaluations", "rollouts", "checkpoints"):
        (folder / name).mkdir(parents=True)
    base = records(11, 0.28, length=40, format_share=0.86)
    base[5] = replace(base[5], error="ValueError: no closing bracket", passed=False)
    trained = records(12, 0.74, length=110, format_share=0.99)
    evaluations = {
        "base-test": base,
        "base-best-prompt-test": records(13, 0.31, length=44, format_share=0.95),
        "best-test": trained,
        "base-dev": records(14, 0.28, num_problems=100, k=2, length=40),
        "step-000050-dev": records(15, 0.75, num_problems=100, k=2, length=110),
    }
    for name, found in evaluations.items():
        write_lines(folder / "evaluations" / f"{name}.jsonl", found)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(replace(MANIFEST, exact=exact)))
    (folder / "config.toml").write_text('model = "penny"\nnum_steps = 60\n\n[sampling]\ngroup_size = 8\n')
    write_lines(folder / "metrics.jsonl", list(_metrics(exact)))
    write_lines(folder / "ledger.jsonl", list(_ledger()))
    (folder / "plan.json").write_bytes(msgspec.json.encode(_plan()))
    (folder / "checkpoints" / f"step-{BEST:06d}").mkdir()
    (folder / "best").symlink_to(Path("checkpoints") / f"step-{BEST:06d}")
    return folder


def write_lines(path: Path, lines: list[object] | list[EvalRecord] | list[LedgerLine]) -> None:
    """One JSON object a line."""
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def _metrics(exact: bool) -> Iterator[object]:
    generator = np.random.default_rng(3)
    yield _evaluation(0, "base", 0.29)
    for step in range(1, STEPS + 1):
        progress = 1 / (1 + math.exp(-(step - 22) / 7))
        accuracy = float(np.clip(0.27 + 0.5 * progress + generator.normal(0, 0.035), 0, 1))
        signal = int(generator.binomial(32, 0.75 - 0.3 * progress))
        passed = int((32 - signal) * accuracy)
        yield {
            "kind": "step", "step": step, "reward/mean": accuracy + 0.02, "accuracy/train": accuracy,
            "completion/mean_tokens": 40 + 75 * progress + float(generator.normal(0, 3)),
            "completion/truncated_share": 0.02, "verify/error_share": 0.0, "groups/total": 32,
            "groups/with_signal": signal, "groups/all_passed": passed,
            "groups/all_failed": 32 - signal - passed,
            "policy/logprob_gap_max": 0.0 if exact else 1e-4 * (step % 2), "tokens/per_s": 4100 - 6 * step,
            "policy/entropy_nat": 0.9 - 0.45 * progress + float(generator.normal(0, 0.02)),
        }  # fmt: skip
        if step % EVERY == 0:
            yield _evaluation(step, "policy", accuracy if step != BEST else 0.78)
    yield {"kind": "event", "step": 50, "message": "best checkpoint so far"}


def _evaluation(step: int, model: str, accuracy: float) -> dict[str, object]:
    interval = [accuracy - 0.06, accuracy + 0.06]
    return {"kind": "evaluation", "step": step, "split": "dev", "model": model, "prompt": -1,
            "n": 100, "k": 2, "pass_at_1": accuracy, "ci95": interval}  # fmt: skip


def _ledger() -> Iterator[LedgerLine]:
    generator = np.random.default_rng(4)
    yield _line("loading", 0, 0.8)
    yield _line("evaluation", 0, 14.0, prompt_tokens=9_000, generated_tokens=60_000, flops=4.2e11)
    for step in range(1, STEPS + 1):
        slow = 1 + step / 90 + float(generator.normal(0, 0.03))
        yield _line("generation", step, 1.6 * slow, prompt_tokens=900, generated_tokens=14_000, flops=9e10)
        yield _line("verification", step, 0.05)
        yield _line("training", step, 1.4 * slow, trained_tokens=11_000, flops=2.1e11)
        if step % EVERY == 0:
            yield _line("evaluation", step, 3.1, prompt_tokens=3_000, generated_tokens=16_000, flops=1e11)
            yield _line("checkpoint", step, 0.2)
    yield _line("evaluation", STEPS, 22.0, prompt_tokens=9_000, generated_tokens=150_000, flops=9.7e11)


def _line(phase: str, step: int, wall_s: float, **spent: float) -> LedgerLine:
    return msgspec.convert(
        {"phase": phase, "step": step, "wall_s": wall_s, "cpu_s": 1.9 * wall_s, "joules": 9.4 * wall_s,
         "joules_method": "estimated", "gap_wall_s": 0.01, **spent}, LedgerLine)  # fmt: skip


def _plan() -> Plan:
    def phase(name: str, low: float, high: float) -> PhasePlan:
        middle = (low + high) / 2
        cost = Interval(low * 2e-5, middle * 2e-5, high * 2e-5)
        seconds = Interval(low, middle, high)
        return PhasePlan(phase=name, flops=1e13, recomputed_flops=0.0, seconds=seconds, joules=900.0,
                         energy_cost=0.0001, cost=cost)  # fmt: skip

    memory = MemoryPlan(runtime=300_000_000, weights=6_400_000, packed_weights=6_400_000,
                        master_weights=12_900_000, gradients=12_900_000, optimizer=25_700_000, reference=0,
                        cache=60_000_000, activations=90_000_000, logits=20_000_000,
                        available=20_000_000_000)  # fmt: skip
    phases = (phase("generation", 80, 190), phase("training", 60, 110), phase("evaluation", 30, 90))
    return Plan(phases=phases, total=phase("total", 190, 420), memory=memory, num_parameters=3_214_592,
                samples=15_360, currency="EUR")  # fmt: skip


def catalogue(language: str) -> dict[str, str]:
    """The sentences of one language, as written."""
    page = Path(__file__).parents[2] / "src" / "groschen" / "evals" / "page"
    found: dict[str, str] = json.loads((page / f"{language}.json").read_text(encoding="utf-8"))
    return found
