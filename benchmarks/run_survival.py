"""Kills real `groschen train` processes with SIGKILL at random moments, resumes them, and counts equal ends.

    python benchmarks/run_survival.py [--kills 100] [--seed 0]

A run of penny is made in one go; then as many runs are begun, killed at a random moment of that duration
(start-up included) and resumed with `groschen train --resume`. An end is equal if weights, masters, both
moments, metrics (times aside) and test records are, byte for byte.
"""

import argparse
import datetime as dt
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from run_engine import HERE, commit, is_dirty, machine_words
from tests.train.test_survival import OVERRIDES, STEPS, differences


def command(folder: Path) -> list[str]:
    base = [sys.executable, "-m", "groschen", "train"]
    if (folder / "manifest.json").exists():
        return [*base, "--resume", str(folder)]
    return [*base, "countdown", "--out", str(folder), *(f"--set={word}" for word in OVERRIDES)]


def finish(folder: Path) -> float:
    """Let the run come to its end; seconds."""
    started = time.monotonic()
    done = subprocess.run(command(folder), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command(folder))} failed:\n{done.stderr[-2000:]}")
    return time.monotonic() - started


def kill(folder: Path, after: float) -> bool:
    """Begin the run and kill it after so many seconds; whether it was still alive."""
    process = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


@dataclass
class Found:
    """What has been seen so far."""

    commit: str
    dirty: bool
    seconds_in_one_go: float
    moments: list[float] = field(default_factory=list)  # seconds from a begin to its kill
    alive: int = 0  # at the moment of the kill
    equal: int = 0

    def write(self, kills: int, seed: int) -> None:
        """The result, with as many repeats as there were."""
        repeats = len(self.moments)
        result = {
            "name": "survival", "commit": self.commit, "dirty": self.dirty,
            "date": dt.date.today().isoformat(), "machine": machine_words(),
            "command": f"python benchmarks/run_survival.py --kills {kills} --seed {seed}",
            "unit": "share of killed runs that ended in the bits of the run in one go", "repeats": repeats,
            "median": self.equal / repeats, "min": float(self.equal == repeats), "max": 1.0,
            "equal": self.equal, "killed_alive": self.alive, "steps": STEPS,
            "seconds_in_one_go": self.seconds_in_one_go, "median_kill_s": statistics.median(self.moments),
        }  # fmt: skip
        (HERE / "results" / "survival.json").write_text(json.dumps(result, indent=2) + "\n")


def main() -> None:
    given = argparse.ArgumentParser(description="kill -9 and resume, many times")
    given.add_argument("--kills", type=int, default=100)
    given.add_argument("--seed", type=int, default=0)
    given.add_argument("--allow-dirty", action="store_true")
    flags = given.parse_args()
    dirty = is_dirty()
    if dirty and not flags.allow_dirty:
        raise SystemExit("there are uncommitted changes: commit them, or mark the result with --allow-dirty")
    with tempfile.TemporaryDirectory() as place:
        finish(Path(place) / "warm")
        whole = Path(place) / "whole"
        found = Found(commit(dirty), dirty, finish(whole))
        generator = random.Random(flags.seed)
        for number in range(flags.kills):
            folder = Path(place) / f"run-{number}"
            found.moments.append(generator.uniform(0.0, 1.0) * found.seconds_in_one_go)
            found.alive += kill(folder, found.moments[-1])
            finish(folder)
            differing = differences(whole, folder)
            found.equal += not differing
            shutil.rmtree(folder)
            words = f"{number + 1}/{flags.kills} killed after {found.moments[-1]:.1f} s: "
            print(words + (", ".join(differing) or "equal"), flush=True)
            found.write(flags.kills, flags.seed)  # each time: a script that is stopped has counted so far
    print(f"{found.equal} of {flags.kills} equal")


if __name__ == "__main__":
    main()
