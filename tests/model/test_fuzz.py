"""A few of the damaged models of `tests/fuzz_models.py`, so that it is always known to run clean."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_damaged_models_load_or_are_refused_in_one_sentence() -> None:
    """In a process of its own: this one has threads, and must not fork."""
    command = [sys.executable, str(TESTS / "fuzz_models.py"), "--count", "100", "--first", "5000"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = done.stdout.splitlines()[0]
    assert "loaded" in counts and "refused" in counts  # neither takes everything nor refuses everything
