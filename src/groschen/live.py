"""A run while it goes on: a live table in a terminal, one plain line per step elsewhere.

Everything goes to standard error. Leaves out what the numbers mean and where they are kept (all of them stand
in metrics.jsonl); a number that is missing is shown as a dash. NO_COLOR is honoured.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from groschen import machine
from groschen.live_words import (
    amount,
    duration,
    evaluation_line,
    interval,
    money,
    number,
    percent,
    sparkline,
    step_line,
)

_REFRESHES_PER_S = 2.0  # one costs a few milliseconds of the core that also trains
_PLAIN_PROGRESS_S = 60.0  # between two plain lines within a phase
_BAR_WIDTH, _CURVE_WIDTH = 32, 32
_DASH = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known before the first step."""

    task: str
    model: str
    num_steps: int
    start_step: int = 0  # steps done before, by a run that goes on
    run: str = ""  # the run folder
    budget: str = ""
    planned_s: float | None = None  # of the whole run, by its plan
    evaluations: tuple[Mapping[str, object], ...] = ()  # of them, as lines of metrics.jsonl


class Watch(Protocol):
    """Who is told how a run goes. `metrics` are lines of metrics.jsonl."""

    def start(self, facts: Facts) -> None:
        """Before the first step."""

    def step(self, metrics: Mapping[str, object]) -> None:
        """After each step."""

    def evaluation(self, metrics: Mapping[str, object]) -> None:
        """After each evaluation."""

    def progress(self, phase: str, done: int, total: int) -> None:
        """Within a step or an evaluation, as often as wanted: `done` of `total` rollouts of the phase."""

    def note(self, text: str, *, is_alarm: bool = False) -> None:
        """One sentence for people."""

    def finish(self) -> None:
        """At the end, however it came; a second call does nothing."""


def watch_for(stderr: TextIO) -> Watch:
    """The live table if `stderr` is a terminal that can move its cursor, else plain lines."""
    console = Console(file=stderr, highlight=False)
    if stderr.isatty() and not console.is_dumb_terminal:
        return LiveWatch(console)
    return PlainWatch(stderr)


class History:
    """What was told so far, as both kinds of watch need it."""

    def __init__(self, facts: Facts, clock: Callable[[], float]) -> None:
        """clock: seconds from any origin."""
        self.facts, self._clock, self._started = facts, clock, clock()
        self.steps: list[Mapping[str, object]] = []
        self.base: Mapping[str, object] | None = None  # the newest dev evaluation of the base model
        self.evaluations: list[Mapping[str, object]] = []  # of the policy on dev
        self.best: Mapping[str, object] | None = None  # of these
        self.num_done = facts.start_step
        self._step_times_s: list[float] = []
        for each in facts.evaluations:
            self.add_evaluation(each)

    def add_step(self, metrics: Mapping[str, object]) -> None:
        """Keep a step's line."""
        self.steps.append(metrics)
        self._step_times_s.append(self._clock())
        done = metrics.get("step")
        self.num_done = done if isinstance(done, int) else self.num_done + 1

    def add_evaluation(self, metrics: Mapping[str, object]) -> None:
        """Keep an evaluation's line."""
        model, is_dev = metrics.get("model"), metrics.get("split") == "dev"
        if model == "base" and is_dev:
            self.base = metrics
        elif model == "policy" and is_dev:
            self.evaluations.append(metrics)
            if self.best is None or _above(metrics.get("pass_at_1"), self.best.get("pass_at_1")):
                self.best = metrics

    def elapsed_s(self) -> float:
        """Since the start of this process's part of the run."""
        return self._clock() - self._started

    def left_s(self) -> float | None:
        """What the run itself reckons with, its last measurements included; else the steps to come, if they
        take as long as those so far. None before the first step.
        """
        if self.steps and isinstance(known := self.steps[-1].get("time/left_s"), int | float):
            return known
        times = self._step_times_s
        if len(times) > 1:
            each: object = (times[-1] - times[0]) / (len(times) - 1)
        else:
            each = self.steps[-1].get("time/step_s") if self.steps else None
        num_left = max(0, self.facts.num_steps - self.num_done)
        return each * num_left if isinstance(each, int | float) else None


class PlainWatch:
    """One line for each step, evaluation and note."""

    def __init__(self, stderr: TextIO, clock: Callable[[], float] = machine.seconds) -> None:
        """Lines go to `stderr` and are flushed at once."""
        self._stderr, self._clock = stderr, clock
        self._history: History | None = None
        self._last_s = clock()

    def start(self, facts: Facts) -> None:
        """Say what begins."""
        self._history = History(facts, self._clock)
        since = f", from step {facts.start_step}" if facts.start_step else ""
        self._say(f"{facts.model} on {facts.task}: {facts.num_steps} steps{since}")

    def step(self, metrics: Mapping[str, object]) -> None:
        """Say the step's numbers."""
        history = self._known()
        history.add_step(metrics)
        self._say(step_line(metrics, history.facts.num_steps, history.left_s(), history.facts.planned_s))

    def evaluation(self, metrics: Mapping[str, object]) -> None:
        """Say the accuracy, and the best one so far."""
        history = self._known()
        history.add_evaluation(metrics)
        self._say(evaluation_line(metrics, history.best))

    def progress(self, phase: str, done: int, total: int) -> None:
        """Say it if nothing was said for a minute."""
        if self._clock() - self._last_s >= _PLAIN_PROGRESS_S:
            self._say(f"  {phase}: {done} of {total}")

    def note(self, text: str, *, is_alarm: bool = False) -> None:
        """Say it."""
        self._say(f"{'alarm' if is_alarm else 'note'}: {text}")

    def finish(self) -> None:
        """Everything was said already."""

    def _say(self, line: str) -> None:
        print(line, file=self._stderr, flush=True)
        self._last_s = self._clock()

    def _known(self) -> History:
        assert self._history is not None, "start comes first"
        return self._history


class LiveWatch:
    """A table that is drawn again in place; notes scroll by above it and stay."""

    def __init__(self, console: Console, clock: Callable[[], float] = machine.seconds) -> None:
        """console: on a terminal."""
        self._console, self._clock = console, clock
        self._history: History | None = None
        self._phase: tuple[str, int, int] | None = None
        self._alarms: list[str] = []
        # Standard output stays as it is: results for scripts go there.
        self._live = Live(
            console=console,
            get_renderable=self.render,
            refresh_per_second=_REFRESHES_PER_S,
            redirect_stdout=False,
            vertical_overflow="crop",
        )

    def start(self, facts: Facts) -> None:
        """Begin to draw."""
        self._history = History(facts, self._clock)
        self._live.start(refresh=True)

    def step(self, metrics: Mapping[str, object]) -> None:
        """Draw the step's numbers."""
        self._known().add_step(metrics)
        self._phase = None
        self._live.refresh()

    def evaluation(self, metrics: Mapping[str, object]) -> None:
        """Draw the accuracy with its interval."""
        self._known().add_evaluation(metrics)
        self._phase = None
        self._live.refresh()

    def progress(self, phase: str, done: int, total: int) -> None:
        """Remember it; it appears with the next drawing."""
        self._phase = (phase, done, total)

    def note(self, text: str, *, is_alarm: bool = False) -> None:
        """Print it above the table; an alarm is repeated in the table."""
        if is_alarm:
            self._alarms = [*self._alarms[-2:], text]
        self._console.print(Text(text, style="bold red" if is_alarm else "dim"))

    def finish(self) -> None:
        """Draw once more and leave the table where it is."""
        self._phase = None
        self._live.stop()

    def render(self) -> Group:
        """What is drawn now."""
        history = self._history
        if history is None:
            return Group()
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim", no_wrap=True)
        rows.add_column(no_wrap=True, overflow="ellipsis")
        for name, value in self._rows(history):
            rows.add_row(name, value)
        return Group(Text(_title(history.facts), style="bold"), self._bars(history), rows)

    def _bars(self, history: History) -> Table:
        bars = Table.grid(padding=(0, 2))
        left = history.left_s()
        words = f"{duration(history.elapsed_s())} gone, {duration(left) if left is not None else _DASH} left"
        if history.facts.planned_s is not None:
            words += f", {duration(history.facts.planned_s)} planned"
        total = history.facts.num_steps
        bars.add_row("step", _bar(history.num_done, total), f"{history.num_done}/{total}", words)
        phase, done, num_rollouts = self._phase or ("", 0, 0)
        if phase:
            bars.add_row(Text(phase), _bar(done, num_rollouts), f"{done}/{num_rollouts}", "")
        return bars

    def _rows(self, history: History) -> list[tuple[str, Text]]:
        last = history.steps[-1] if history.steps else {}
        ascii_only = self._console.options.ascii_only

        def curve(key: str) -> str:
            return sparkline([line.get(key) for line in history.steps], _CURVE_WIDTH, ascii_only=ascii_only)

        signal = f"{amount(last.get('groups/with_signal'))} of {amount(last.get('groups/total'))} groups"
        rows = [
            ("dev accuracy", _dev_words(history)),
            ("train accuracy", Text(f"{percent(last.get('accuracy/train'))}  {curve('accuracy/train')}")),
            ("length", Text(f"{number(last.get('completion/mean_tokens'))} tokens  "
                            f"{curve('completion/mean_tokens')}  "
                            f"{percent(last.get('completion/truncated_share'))} cut")),
            ("reward", Text(f"{number(last.get('reward/mean'))}   signal in {signal}")),
            ("speed", Text(f"{number(last.get('tokens/per_s'))} tokens/s, "
                           f"{number(last.get('time/step_s'))} s a step")),
            ("cost so far", Text(money(last.get("cost/total"), last.get("cost/currency"))
                                 + (f" of {history.facts.budget}" if history.facts.budget else ""))),
        ]  # fmt: skip
        return rows + [("alarm", Text(alarm, style="bold red")) for alarm in self._alarms]

    def _known(self) -> History:
        assert self._history is not None, "start comes first"
        return self._history


def _title(facts: Facts) -> str:
    return f"{facts.model} on {facts.task}" + (f"  ·  {facts.run}" if facts.run else "")


def _bar(done: int, total: int) -> ProgressBar:
    return ProgressBar(total=max(total, 1), completed=done, width=_BAR_WIDTH)


def _dev_words(history: History) -> Text:
    newest = history.evaluations[-1] if history.evaluations else history.base
    if newest is None:
        return Text(_DASH)
    words = Text(f"{percent(newest.get('pass_at_1'))} {interval(newest.get('ci95'))}", style="bold")
    if history.best is not None:
        words.append(
            f"  best {percent(history.best.get('pass_at_1'))} at step {amount(history.best.get('step'))}",
            "green",
        )
    if history.base is not None:
        words.append(f"  base {percent(history.base.get('pass_at_1'))}", "dim")
    return words


def _above(value: object, other: object) -> bool:
    return (
        isinstance(value, int | float)
        and math.isfinite(value)
        and (not isinstance(other, int | float) or value > other)
    )
