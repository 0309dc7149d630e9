"""A thousand streams at once, a third of whose clients vanish: nothing hangs, nothing leaks, no text changes.

The same with 150 is in `test_app.py`, in every run.
"""

import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from groschen import machine
from serve.serving import Server, serving

COUNT, TOKENS, WAVES = 1000, 32, 4
MEGABYTE = 1024 * 1024


def wave(server: Server, seed: int) -> dict[str, Any]:
    """One crowd, until all of it is gone and the server is empty again."""
    program = Path(__file__).parent / "crowd.py"
    command = [sys.executable, str(program), *map(str, (server.port, COUNT, seed, TOKENS))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert server.is_empty(10), f"{len(server.host.tickets)} requests are still open"
    assert server.host.num_running == server.host.queue_depth == 0
    return found


def resident_bytes() -> int:
    """After what can be freed has been."""
    gc.collect()
    time.sleep(0.5)
    return machine.resident_bytes()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_thousand_streams_of_which_a_third_vanish_leave_nothing_behind() -> None:
    with serving() as server:
        texts: dict[str, str] = {}
        memory = []
        for seed in range(WAVES):
            found = wave(server, seed)
            assert found["most_open"] >= COUNT * 0.95, "they were not there at the same time"
            assert COUNT * 2 // 3 <= len(found["texts"]) <= COUNT * 0.75, (
                "some vanished, the others were answered"
            )
            for number, text in found["texts"].items():
                assert not text.startswith("broken"), text
                assert texts.setdefault(number, text) == text, (
                    f"seed {number} wrote something else in company"
                )
            memory.append(resident_bytes())
            print(f"{found['seconds']:.1f} s, {len(found['texts'])} stayed, {memory[-1] / MEGABYTE:.1f} MB")  # noqa: T201
        assert len(set(texts.values())) > 100, "seeds that differ write different texts"
        assert memory[-1] - memory[0] < 12 * MEGABYTE, memory
        assert server.get("/health").json()["running"] == 0
