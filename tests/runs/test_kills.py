"""Real processes are killed with SIGKILL while they append and save; what they called done must be there."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.runs.samples import Recipe, manifest_for

from groschen.runs.checkpoints import find_fault
from groschen.runs.folder import create_run, open_run
from groschen.runs.journal import read_journal

# Large lines and files, so that a kill finds a write under way. A number is printed once its work is done.
APPENDER = """
import sys
from pathlib import Path
from groschen.runs.folder import open_run
run = open_run(Path(sys.argv[1]))
journal = run.journal(run.paths.metrics)
number = len(journal.read())
TEXT = "x" * 3_000_000
while True:
    journal.append({"n": number, "text": TEXT})
    print(number, flush=True)
    number += 1
"""
SAVER = """
import sys
from pathlib import Path
from groschen.runs.folder import open_run
run = open_run(Path(sys.argv[1]))
store = run.checkpoints(keep_last=2)
found = store.latest_whole()
assert not found.warnings, found.warnings
step = found.checkpoint.step if found.checkpoint else 0
if step and step % 3 == 0:
    store.mark_best(step)  # the kill may have come before it
def write(folder):
    (folder / "deep").mkdir()
    for name in ("model.safetensors", "deep/trainer.safetensors"):
        (folder / name).write_bytes(bytes([step % 256]) * 2_000_000)
while True:
    step += 1
    store.save(step, write)
    if step % 3 == 0:
        store.mark_best(step)
    print(step, flush=True)
"""


def last_word_of_a_killed(program: str, folder: Path, after_s: float) -> int | None:
    """Start the program, kill it some time after its first word, and give the last number that it said."""
    arguments = [sys.executable, "-c", program, folder]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        words = [process.stdout.readline()]
        time.sleep(after_s)
        process.kill()
        words += process.stdout.readlines()
        assert process.stderr.read() == ""
    said = [int(word) for word in words if word.endswith("\n")]
    return said[-1] if said else None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_run(tmp_path / "run", manifest_for(Recipe()), Recipe()).close()
    return tmp_path / "run"


def test_ten_kills_of_an_appending_process_lose_no_line_and_double_none(folder: Path) -> None:
    chance = random.Random(1)
    for _ in range(10):
        said = last_word_of_a_killed(APPENDER, folder, chance.uniform(0.0, 0.01))
        assert said is not None
        numbers = [line["n"] for line in read_journal(folder / "metrics.jsonl")]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > said
    with open_run(folder) as run, run.journal(run.paths.metrics) as journal:
        lines = journal.read()
        assert journal.truncate_after(lambda line: line["n"] == 7) == len(lines) - 7
    assert all(line["text"] == "x" * 3_000_000 for line in lines)
    assert [line["n"] for line in read_journal(folder / "metrics.jsonl")] == list(range(7))


def test_ten_kills_of_a_saving_process_lose_no_checkpoint_and_leave_none_half(folder: Path) -> None:
    chance = random.Random(2)
    for _ in range(10):
        said = last_word_of_a_killed(SAVER, folder, chance.uniform(0.0, 0.05))
        assert said is not None
        with open_run(folder) as run:
            store = run.checkpoints()
            assert [path.name for path in run.paths.checkpoints.iterdir() if path.name.startswith(".")] == []
            assert [find_fault(checkpoint.folder) for checkpoint in store.all()] == [None] * len(store.all())
            checkpoint, warnings = store.latest_whole()
            assert warnings == ()
            assert checkpoint is not None
            assert said <= checkpoint.step <= said + 1
            content = (checkpoint.folder / "model.safetensors").read_bytes()
            assert content == bytes([checkpoint.step % 256]) * 2_000_000
            best = store.best()
            if said >= 3:
                assert best is not None
                assert best.step % 3 == 0
                assert best.step >= said - said % 3
