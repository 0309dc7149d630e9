"""SIGTERM ends a run as Ctrl-C does; neither comes in the middle of what must not part."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from groschen.train.signals import ended_by_sigterm, undisturbed


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    """Both signals as a process in the foreground has them; each test leaves them so."""
    fresh = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in fresh.items()}
    try:
        yield
        assert {number: signal.getsignal(number) for number in fresh} == fresh
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_sigterm_is_an_interrupt_that_names_it() -> None:
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), ended_by_sigterm():
        tell(signal.SIGTERM)


def test_a_handler_of_somebody_else_stays() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: came.append(number))
    try:
        with ended_by_sigterm():
            tell(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_the_block_is_done(number: signal.Signals) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), ended_by_sigterm():  # noqa: PT012 - the block is what is tested
        with undisturbed():
            tell(number)
            done.append("first")
            done.append("second")
        done.append("after")
    assert done == ["first", "second"]


def test_a_signal_that_was_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ended_by_sigterm(), undisturbed():
            tell(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_that_gets_sigterm_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    small = ("num_steps=50", "save_every=50", "sampling.problems_per_step=2", "sampling.group_size=2",
             "sampling.max_tokens=16", "evaluation.every=50", "evaluation.dev_problems=2",
             "evaluation.dev_samples=1", "evaluation.test_problems=2", "evaluation.test_samples=1",
             "alarms.max_truncated_share=0", "alarms.steps_without_signal=50")  # fmt: skip
    command = [sys.executable, "-m", "groschen", "train", "countdown", "--out", str(folder)]
    process = subprocess.Popen(
        [*command, *(f"--set={word}" for word in small)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with process, process.stderr:
        told = ""
        for line in process.stderr:
            told += line
            if line.startswith("step 1/"):
                process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130, told
    assert f"stopped by SIGTERM and saved; go on with: groschen train --resume {folder}" in told
    assert "Traceback" not in told
    assert [each.name for each in (folder / "checkpoints").iterdir()] != []
