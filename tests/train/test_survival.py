"""A run of penny is killed with SIGKILL at random moments and goes on: every end has the bits of the run in
one go.
"""

import json
import multiprocessing as mp
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from groschen.model.safetensors_folder import SafetensorsFile

KILLS = 20
STEPS = 4
OVERRIDES = (
    "seed=11", f"num_steps={STEPS}", "save_every=1", "max_rows=32", "sampling.problems_per_step=6",
    "sampling.group_size=4", "sampling.max_tokens=96", "evaluation.every=2", "evaluation.dev_problems=6",
    "evaluation.dev_samples=2", "evaluation.test_problems=6", "evaluation.test_samples=2",
    "alarms.max_truncated_share=0",
)  # fmt: skip


def work(folder: str) -> None:
    """What a child process does: begin the run, or go on with it."""

    from groschen.train.command import begin, go_on

    with open(os.devnull, "w") as nowhere:
        if (Path(folder) / "manifest.json").exists():
            go_on(Path(folder), (), nowhere)
        else:
            begin("countdown", None, Path(folder), OVERRIDES, nowhere)


def start(context: mp.context.ForkServerContext, folder: Path) -> mp.process.BaseProcess:
    process = context.Process(target=work, args=(str(folder),))
    process.start()
    return process


def finish(context: mp.context.ForkServerContext, folder: Path) -> None:
    process = start(context, folder)
    process.join(timeout=240)
    assert process.exitcode == 0, process.exitcode


def lines(folder: Path) -> list[dict[str, object]]:
    """metrics.jsonl without what depends on the clock."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not k.startswith(("time/", "cost/")) and k != "tokens/per_s"}
        for line in found
    ]


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two runs, by name: weights, masters, moments, metrics, records."""
    files = (
        f"checkpoints/step-{STEPS:06d}/model.safetensors",
        "evaluations/best-test.jsonl",
        "config.toml",
    )
    found = [name for name in files if (one / name).read_bytes() != (other / name).read_bytes()]
    tensors = [
        SafetensorsFile(run / f"checkpoints/step-{STEPS:06d}/trainer.safetensors") for run in (one, other)
    ]
    if tensors[0].names() != tensors[1].names():
        return [*found, "names of tensors"]
    for name in tensors[0].names():
        first, second = (each.read(name) for each in tensors)
        if first.numpy().tobytes() != second.numpy().tobytes():
            found.append(name)
    return found if lines(one) == lines(other) else [*found, "metrics.jsonl"]


@pytest.mark.skipif(sys.platform != "linux", reason="run folders are locked with flock")
@pytest.mark.timeout(900)
def test_a_run_killed_at_twenty_random_moments_ends_in_the_same_bits_each_time(tmp_path: Path) -> None:
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["groschen.train.command"])
    finish(context, tmp_path / "warm")  # compiles what a first run compiles
    started = time.monotonic()
    finish(context, tmp_path / "whole")
    seconds = time.monotonic() - started
    generator = random.Random(0)
    died = number = 0
    while died < KILLS:
        folder, started = tmp_path / f"run-{number}", time.monotonic()
        process = start(context, folder)
        process.join(timeout=generator.uniform(0.1, 0.95) * seconds)
        if process.exitcode is None:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            died += 1
        else:
            seconds = time.monotonic() - started  # the machine has less to do than at first
        process.join()
        finish(context, folder)
        assert differences(tmp_path / "whole", folder) == [], f"kill {number}"
        number += 1
        assert number < 3 * KILLS, "most runs have ended before they could be killed"
