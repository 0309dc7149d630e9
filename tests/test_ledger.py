"""ledger.py: what is written, when, and that nothing which was spent is lost or counted twice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from groschen.energy import Clock, Meter
from groschen.errors import BadFile, BadRequest
from groschen.ledger import Ledger, LedgerLine, read_ledger


class Hands:
    """A clock and an energy counter that a test moves."""

    def __init__(self) -> None:
        self.wall, self.cpu, self.joules, self.method, self.description = 0.0, 0.0, 0.0, "measured", "hands"
        self.clock = Clock(wall=lambda: self.wall, cpu=lambda: self.cpu)

    def read(self) -> float:
        return self.joules

    def move(self, seconds: float, watts: float = 10.0) -> None:
        self.wall += seconds
        self.cpu += 2 * seconds
        self.joules += watts * seconds


def open_ledger(path: Path, hands: Hands, part_s: float = 1e9) -> Ledger:
    return Ledger(path / "ledger.jsonl", Meter([hands]), hands.clock, part_s)


def test_a_span_is_a_line_with_its_time_energy_and_amounts(tmp_path: Path) -> None:
    hands = Hands()
    ledger = open_ledger(tmp_path, hands)
    with ledger.span("generation", step=3) as span:
        hands.move(2)
        span.add(prompt_tokens=5, generated_tokens=7, flops=1e9)
        span.add(generated_tokens=1)
    (line,) = read_ledger(tmp_path / "ledger.jsonl")
    assert line == ledger.lines[0]
    assert (line.phase, line.step, line.wall_s, line.cpu_s) == ("generation", 3, 2.0, 4.0)
    assert (line.prompt_tokens, line.generated_tokens, line.flops) == (5, 8, 1e9)
    assert (line.joules, line.joules_method, line.attempt) == (20.0, "measured", 1)


def test_a_line_is_in_the_file_as_soon_as_its_span_ends(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, Hands())
    with ledger.span("loading"):
        pass
    assert json.loads((tmp_path / "ledger.jsonl").read_text())["phase"] == "loading"


def test_the_time_between_spans_is_written_down_too(tmp_path: Path) -> None:
    hands = Hands()
    ledger = open_ledger(tmp_path, hands)
    hands.move(1)
    for _ in range(2):
        with ledger.span("training"):
            hands.move(5)
        hands.move(3, watts=1)
    with ledger.span("checkpoint"):
        hands.move(1)
    assert [(line.gap_wall_s, line.gap_joules) for line in ledger.lines] == [(1, 10), (3, 3), (3, 3)]
    assert sum(line.wall_s + line.gap_wall_s for line in ledger.lines) == hands.wall


def test_a_span_inside_of_another_is_refused_and_the_outer_one_goes_on(tmp_path: Path) -> None:
    hands = Hands()
    ledger = open_ledger(tmp_path, hands)
    with ledger.span("training") as outer:
        with (
            pytest.raises(BadRequest, match="'verification' begins inside of 'training'"),
            ledger.span("verification"),
        ):
            pass
        hands.move(4)
        outer.add(trained_tokens=9)
    assert [(line.phase, line.wall_s, line.trained_tokens) for line in ledger.lines] == [("training", 4.0, 9)]


def test_an_unknown_phase_and_a_negative_amount_are_refused(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, Hands())
    with (
        pytest.raises(BadRequest, match="no phase 'generaton'; it has loading, generation"),
        ledger.span("generaton"),
    ):
        pass
    with pytest.raises(BadRequest, match="negative"), ledger.span("training") as span:
        span.add(flops=-1.0)


def test_what_a_failing_span_has_spent_is_written_before_the_failure_goes_on(tmp_path: Path) -> None:
    hands = Hands()
    ledger = open_ledger(tmp_path, hands)

    def interrupted() -> None:
        with ledger.span("generation") as span:
            span.add(generated_tokens=4)
            hands.move(6)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(line.wall_s, line.generated_tokens) for line in ledger.lines] == [(6.0, 4)]
    with ledger.span("training"):
        pass  # the ledger can go on


def test_a_long_span_is_written_in_parts_that_add_up(tmp_path: Path) -> None:
    hands = Hands()
    ledger = open_ledger(tmp_path, hands, part_s=10)
    with ledger.span("generation", step=1) as span:
        for _ in range(7):
            hands.move(4)
            span.add(generated_tokens=3)
    assert [line.wall_s for line in ledger.lines] == [12, 12, 4]
    assert sum(line.generated_tokens for line in ledger.lines) == 21
    assert sum(line.joules or 0 for line in ledger.lines) == hands.joules
    assert all(line.gap_wall_s == 0 for line in ledger.lines)


def test_a_resumed_run_keeps_every_line_and_counts_its_attempts(tmp_path: Path) -> None:
    for attempt in (1, 2, 3):
        hands = Hands()
        ledger = open_ledger(tmp_path, hands)
        assert ledger.attempt == attempt
        with ledger.span("training", step=12):
            hands.move(attempt)
    assert [(line.attempt, line.step, line.wall_s) for line in ledger.lines] == [
        (1, 12, 1),
        (2, 12, 2),
        (3, 12, 3),
    ]


@pytest.mark.parametrize(
    "torn", [b'{"phase":"gen', b"{", b'{"phase":"training","step":1,"wall_s":1,"cpu_s":1}']
)
def test_a_torn_last_line_is_dropped_and_the_next_one_stands_alone(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    with open_ledger(tmp_path, Hands()).span("loading"):
        pass
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert len(read_ledger(path)) == 1
    assert path.read_bytes() == whole + torn, "reading must not change the file"
    with open_ledger(tmp_path, Hands()).span("training"):
        pass
    assert [line.phase for line in read_ledger(path)] == ["loading", "training"]


def test_a_damaged_line_before_the_end_is_an_error_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with open_ledger(tmp_path, Hands()).span("loading"):
        pass
    path.write_bytes(path.read_bytes() + b"broken\n" + path.read_bytes())
    with pytest.raises(BadFile, match="line 2 is not what it should be"):
        read_ledger(path)
    with pytest.raises(BadFile, match="line 2"):
        open_ledger(tmp_path, Hands())


def test_a_ledger_that_is_missing_or_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="is missing"):
        read_ledger(tmp_path / "gone.jsonl")
    ledger = open_ledger(tmp_path / "no such folder", Hands())
    with pytest.raises(BadFile, match="could not be written"), ledger.span("loading"):
        pass


def test_keys_that_a_later_version_added_do_not_stop_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"phase":"training","step":1,"wall_s":1.5,"cpu_s":1.0,"new":[1]}\n')
    assert read_ledger(path) == (LedgerLine(phase="training", step=1, wall_s=1.5, cpu_s=1.0),)


def test_without_a_meter_no_energy_is_claimed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    with ledger.span("loading"):
        pass
    assert (ledger.lines[0].joules, ledger.lines[0].joules_method) == (None, "none")


def test_a_killed_process_loses_only_the_open_part_of_its_span(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    code = (
        "import sys, time; from pathlib import Path; from groschen.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]), part_s=0)\n"
        "with ledger.span('generation') as span:\n"
        "    span.add(generated_tokens=1); span.add(generated_tokens=1)\n"
        "    print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, signal.SIGKILL)
    assert sum(line.generated_tokens for line in read_ledger(path)) == 2
