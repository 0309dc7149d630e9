"""A few of the inputs of fuzz_runs.py: damaged run folders and task files are read right or refused."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "fuzz_runs.py"


def test_damaged_runs_and_tasks_are_read_right_or_refused_in_one_sentence() -> None:
    command = [sys.executable, str(PROGRAM), "--count", "30", "--first", "100000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {name: int(count) for count, name in (part.split() for part in done.stdout.split(", "))}
    assert counts["loaded"] + counts["refused"] == 30 and min(counts["loaded"], counts["refused"]) > 5
