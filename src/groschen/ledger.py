"""What a run spends, written down while it is spent: one line of ledger.jsonl for each span of work.

Nothing that was spent may vanish. A run that is killed and resumed appends to the same file under the next
`attempt`; steps that it repeats are there twice, because they were paid twice. Time between spans is written
down as well. What a SIGKILL can hide is the part of a span since its last `add` that wrote a line (`part_s`).
Lines are flushed, not synced: they survive the death of the process, not of the machine. A torn last line is
dropped. Leaves out what it all costs (bill.py), and who may write to a run folder.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from groschen.energy import NONE, Clock, Meter, Reading
from groschen.errors import BadFile, BadRequest
from groschen.files import decode, is_there, read_bytes
from groschen.own_files import open_own
from groschen.records import LedgerEntry

_MOST_BYTES = 4_000_000_000  # a line each ten seconds for a hundred years
PHASES = ("loading", "generation", "verification", "training", "evaluation", "checkpoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine(LedgerEntry):
    """A line as written: the entry, which attempt it belongs to, and what passed since the line before it."""

    attempt: int = 1  # 2 after the first resume, and so on
    recomputed_flops: float = 0.0  # besides `flops`: done again to save memory
    gap_wall_s: float = 0.0  # between the end of the line before and the beginning of this one
    gap_cpu_s: float = 0.0
    gap_joules: float | None = None


@dataclass(slots=True)
class _Moment:
    """All meters at one time."""

    wall: float
    cpu: float
    energy: Reading


class Span:
    """The open span of a ledger: says what was done in it."""

    def __init__(self, ledger: "Ledger", phase: str, step: int) -> None:
        self.phase, self.step = phase, step
        self._ledger = ledger
        self.clear()

    def clear(self) -> None:
        """Begin the next part with nothing done."""
        self.prompt_tokens = self.generated_tokens = self.trained_tokens = 0
        self.flops = self.recomputed_flops = 0.0

    def add(
        self,
        *,
        prompt_tokens: int = 0,
        generated_tokens: int = 0,
        trained_tokens: int = 0,
        flops: float = 0.0,
        recomputed_flops: float = 0.0,
    ) -> None:
        """Add what was done since the last call. Called often in a long span, it bounds what a kill hides.

        Raises BadRequest for a negative amount.
        """
        if min(prompt_tokens, generated_tokens, trained_tokens, flops, recomputed_flops) < 0:
            raise BadRequest(
                f"the ledger's span {self.phase!r} was given a negative amount; amounts are added"
            )
        self.prompt_tokens += prompt_tokens
        self.generated_tokens += generated_tokens
        self.trained_tokens += trained_tokens
        self.flops += flops
        self.recomputed_flops += recomputed_flops
        self._ledger.write_part_if_due()


class Ledger:
    """The ledger of one run. Opening it after a crash repairs the end of the file and starts a new attempt.

    meter: None writes no energy. since_s: when work for this attempt began, by the clock (None: now); what
    passed from there to the first span is that span's gap, but for its energy. part_s: a span writes a line
    each time it is told something and this many seconds have passed. Raises BadFile if the file cannot be
    read, is damaged before its end or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        meter: Meter | None = None,
        clock: Clock | None = None,
        part_s: float = 10.0,
        since_s: float | None = None,
    ) -> None:
        self._path, self._meter, self._clock, self._part_s = path, meter, clock or Clock(), part_s
        self._lines = _repair(path) if is_there(path) else []
        self.attempt = 1 + max((line.attempt for line in self._lines), default=0)
        self._span: Span | None = None
        self._gap_from = self._begun = self._now()
        if since_s is not None:
            self._gap_from = replace(self._gap_from, wall=since_s)

    @property
    def lines(self) -> tuple[LedgerLine, ...]:
        """All lines of all attempts, the oldest first."""
        return tuple(self._lines)

    @contextmanager
    def span(self, phase: str, step: int = 0) -> Iterator[Span]:
        """Time and energy from here to the end of the block; written also if the block raises.

        Raises BadRequest for an unknown phase or inside of another span: time must not be counted twice.
        """
        if phase not in PHASES:
            raise BadRequest(f"the ledger has no phase {phase!r}; it has {', '.join(PHASES)}")
        if self._span is not None:
            raise BadRequest(f"span {phase!r} begins inside of {self._span.phase!r}; spans must not overlap")
        self._begun = self._now()
        self._span = Span(self, phase, step)
        try:
            yield self._span
        finally:
            span, self._span = self._span, None
            self._write(span)

    def write_part_if_due(self) -> None:
        """For a span: close its part if that has become long, and begin the next."""
        if self._span is not None and self._clock.wall() - self._begun.wall >= self._part_s:
            self._write(self._span)

    def _write(self, span: Span) -> None:
        now, gap_from, begun = self._now(), self._gap_from, self._begun
        line = LedgerLine(
            phase=span.phase,
            step=span.step,
            wall_s=now.wall - begun.wall,
            cpu_s=now.cpu - begun.cpu,
            prompt_tokens=span.prompt_tokens,
            generated_tokens=span.generated_tokens,
            trained_tokens=span.trained_tokens,
            flops=span.flops,
            recomputed_flops=span.recomputed_flops,
            joules=_joules(begun, now),
            joules_method=now.energy.method,
            attempt=self.attempt,
            gap_wall_s=begun.wall - gap_from.wall,
            gap_cpu_s=begun.cpu - gap_from.cpu,
            gap_joules=_joules(gap_from, begun),
        )
        span.clear()
        self._gap_from = self._begun = now
        self._lines.append(line)
        _append(self._path, msgspec.json.encode(line) + b"\n")

    def _now(self) -> _Moment:
        energy = Reading(0.0, NONE) if self._meter is None else self._meter.read()
        return _Moment(self._clock.wall(), self._clock.cpu(), energy)


def read_ledger(path: Path) -> tuple[LedgerLine, ...]:
    """The lines of a ledger, without a torn one at its end. Raises BadFile if it is missing or damaged."""
    return tuple(_parse(path)[0])


def _repair(path: Path) -> list[LedgerLine]:
    """The whole lines of a ledger, whose file is cut after the last of them."""
    lines, whole_bytes = _parse(path)
    try:
        descriptor = open_own(path, appends=True)
        try:
            if os.fstat(descriptor).st_size != whole_bytes:
                os.ftruncate(descriptor, whole_bytes)  # else the next line would be glued to the torn one
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unwritable(path, error) from error
    return lines


def _parse(path: Path) -> tuple[list[LedgerLine], int]:
    """Lines, and how many bytes of the file they are."""
    content = read_bytes(path, _MOST_BYTES, "restore it from a copy of the run")
    whole = content[: content.rfind(b"\n") + 1]
    remedy = "a crash tears only the last one, so the file was changed: restore it or remove that line"
    lines = [
        decode(text, LedgerLine, f"{path}, line {number}", remedy)
        for number, text in enumerate(whole.splitlines(), start=1)
    ]
    return lines, len(whole)


def _append(path: Path, line: bytes) -> None:
    try:
        with os.fdopen(open_own(path, appends=True), "ab") as file:
            file.write(line)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> BadFile:
    return BadFile(
        f"ledger {path} could not be written ({error.strerror or error}); check free space and permissions"
    )


def _joules(first: _Moment, last: _Moment) -> float | None:
    return None if last.energy.method == NONE else last.energy.joules - first.energy.joules
