import io
import re
from collections.abc import Mapping

import pytest
from rich.console import Console

from groschen.live import Facts, LiveWatch, PlainWatch, Watch, watch_for
from groschen.live_words import duration, interval, money, number, percent, sparkline

FACTS = Facts(task="countdown", model="penny", num_steps=60, run="runs/1", budget="2EUR")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step_metrics(step: int, **more: object) -> Mapping[str, object]:
    return {"kind": "step", "step": step, "accuracy/train": 0.25 + step / 100, "reward/mean": 0.3,
            "completion/mean_tokens": 100 + step, "completion/truncated_share": 0.0, "groups/total": 8,
            "groups/with_signal": 6, "tokens/per_s": 812.4, "time/step_s": 4.0, "cost/total": 0.0123,
            "cost/currency": "EUR"} | more  # fmt: skip


def evaluation_metrics(step: int, accuracy: float, **more: object) -> Mapping[str, object]:
    return {"kind": "evaluation", "step": step, "split": "dev", "model": "policy", "pass_at_1": accuracy,
            "ci95": [accuracy - 0.04, accuracy + 0.04], "n": 200, "k": 4} | more  # fmt: skip


def drive(watch: Watch, clock: Clock) -> None:
    """A short run: base evaluation for 100 s, then two steps of 5 s, evaluations, an alarm."""
    watch.start(FACTS)
    clock.now_s = 100.0
    watch.evaluation(evaluation_metrics(0, 0.22, model="base"))
    watch.evaluation(evaluation_metrics(0, 0.50, model="base-prompts", prompt=-1))
    watch.evaluation(evaluation_metrics(0, 0.52, model="base-prompts", prompt=0))
    watch.evaluation(evaluation_metrics(0, 0.51, model="base-best-prompt", prompt=0, split="test"))
    for step in (1, 2):
        clock.now_s += 5.0
        watch.step(step_metrics(step))
    watch.evaluation(evaluation_metrics(2, 0.438))
    watch.evaluation(evaluation_metrics(3, 0.40))
    watch.evaluation(evaluation_metrics(3, 0.99, model="best", split="test"))
    watch.note("problem a1 [b] was put aside")
    watch.note("entropy fell below 0.01 nat", is_alarm=True)
    watch.progress("rollouts", 12, 64)


def test_a_step_says_what_is_gone_what_was_planned_and_what_is_left() -> None:
    said, clock = io.StringIO(), Clock()
    watch = PlainWatch(said, clock)
    watch.start(Facts(task="t", model="m", num_steps=9, planned_s=3600.0))
    watch.step(step_metrics(1, **{"time/total_s": 600.0, "time/left_s": 4000.0}))
    assert "10 min 00 s of 1 h 00 min planned, 1 h 07 min left" in said.getvalue()
    live = LiveWatch(Console(file=Terminal(), width=110), clock)
    live.start(Facts(task="t", model="m", num_steps=9, planned_s=3600.0))
    live.step(step_metrics(1, **{"time/total_s": 600.0, "time/left_s": 4000.0}))
    assert "1 h 07 min left, 1 h 00 min planned" in drawn(live)
    live.finish()


def drawn(watch: LiveWatch, *, width: int = 110) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(watch.render())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_there_is_one_plain_line_for_each_step_and_evaluation() -> None:
    stderr, clock = io.StringIO(), Clock()
    drive(PlainWatch(stderr, clock), clock)
    assert stderr.getvalue().splitlines() == [
        "penny on countdown: 60 steps",
        "evaluation at step 0: base, dev accuracy 22.0 % [18.0, 26.0]  n 200, k 4",
        "evaluation at step 0: base with the task's own wording, dev accuracy 50.0 % [46.0, 54.0]"
        "  n 200, k 4",
        "evaluation at step 0: base with wording 1, dev accuracy 52.0 % [48.0, 56.0]  n 200, k 4",
        "evaluation at step 0: base with wording 1, its best, test accuracy 51.0 % [47.0, 55.0]  n 200, k 4",
        "step 1/60  accuracy 26.0 %  reward 0.300  tokens 101  signal 6/8  812 tokens/s  4.00 s  0.0123 EUR"
        "  3 min 56 s left",
        "step 2/60  accuracy 27.0 %  reward 0.300  tokens 102  signal 6/8  812 tokens/s  4.00 s  0.0123 EUR"
        "  4 min 50 s left",
        "evaluation at step 2: dev accuracy 43.8 % [39.8, 47.8]  n 200, k 4  best 43.8 % at step 2",
        "evaluation at step 3: dev accuracy 40.0 % [36.0, 44.0]  n 200, k 4  best 43.8 % at step 2",
        "evaluation at step 3: best checkpoint, test accuracy 99.0 % [95.0, 103.0]  n 200, k 4"
        "  best 43.8 % at step 2",
        "note: problem a1 [b] was put aside",
        "alarm: entropy fell below 0.01 nat",
    ]


def test_a_silent_phase_is_told_once_a_minute() -> None:
    stderr, clock = io.StringIO(), Clock()
    watch = PlainWatch(stderr, clock)
    watch.start(FACTS)
    for done in range(130):
        clock.now_s += 1.0
        watch.progress("rollouts", done, 256)
    assert stderr.getvalue().splitlines()[1:] == ["  rollouts: 59 of 256", "  rollouts: 119 of 256"]


def test_the_table_shows_what_a_person_wants_to_know() -> None:
    clock = Clock()
    watch = LiveWatch(Console(file=Terminal(), force_terminal=True, width=110), clock)
    drive(watch, clock)
    table = drawn(watch)
    watch.finish()
    for expected in (
        "penny on countdown", "runs/1", "2/60", "1 min 50 s gone, 4 min 50 s left", "rollouts", "12/64",
        "40.0 % [36.0, 44.0]  best 43.8 % at step 2  base 22.0 %", "27.0 %  0.260 ▁█ 0.270",
        "102 tokens  101 ▁█ 102",
        "0.300   signal in 6 of 8 groups", "812 tokens/s, 4.00 s a step", "0.0123 EUR of 2EUR",
        "entropy fell below 0.01 nat",
    ):  # fmt: skip
        assert expected in table, table
    assert "99.0" not in table  # a test evaluation never decides what is best
    assert "rollouts" not in drawn(watch)


def test_a_narrow_terminal_never_gets_a_longer_line() -> None:
    clock = Clock()
    watch = LiveWatch(Console(file=Terminal(), force_terminal=True, width=40), clock)
    drive(watch, clock)
    assert max(len(line) for line in drawn(watch, width=40).splitlines()) <= 40
    watch.finish()


def test_before_the_first_step_everything_is_a_dash() -> None:
    watch = LiveWatch(Console(file=Terminal(), force_terminal=True, width=110), Clock())
    watch.start(FACTS)
    table = drawn(watch)
    watch.finish()
    watch.finish()
    assert "dev accuracy    –" in table
    assert "– left" in table


def test_numbers_that_are_missing_or_not_finite_stop_nothing() -> None:
    stderr = io.StringIO()
    for watch in (PlainWatch(stderr), LiveWatch(Console(file=Terminal(), force_terminal=True))):
        watch.start(FACTS)
        watch.step({"step": 1, "reward/mean": float("nan"), "accuracy/train": None})
        watch.step({})
        held = {"model": "policy", "split": "dev"}
        watch.evaluation({**held, "step": 2, "pass_at_1": None})
        watch.evaluation({**held, "step": 3, "pass_at_1": 0.5, "ci95": [0.1]})
        watch.evaluation({**held, "step": 4, "pass_at_1": float("nan")})
        watch.finish()
    assert "reward –" in stderr.getvalue()
    assert stderr.getvalue().splitlines()[-1].endswith("best 50.0 % at step 3")


def test_the_place_decides_between_table_and_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(watch_for(Terminal()), LiveWatch)
    assert isinstance(watch_for(io.StringIO()), PlainWatch)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(watch_for(io.StringIO()), PlainWatch)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(watch_for(Terminal()), PlainWatch)


@pytest.mark.parametrize("colours", [True, False])
def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch, colours: bool) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    terminal, clock = Terminal(), Clock()
    watch = watch_for(terminal)
    drive(watch, clock)
    watch.finish()
    assert bool(re.search(r"\x1b\[[\d;]*3[1-7]", terminal.getvalue())) is colours


def test_standard_output_stays_for_results(capsys: pytest.CaptureFixture[str]) -> None:
    watch = LiveWatch(Console(file=Terminal(), force_terminal=True))
    watch.start(FACTS)
    print("a result")  # noqa: T201
    watch.finish()
    assert capsys.readouterr().out == "a result\n"


def test_a_resumed_run_counts_from_where_it_was() -> None:
    stderr, clock = io.StringIO(), Clock()
    watch = PlainWatch(stderr, clock)
    before = (evaluation_metrics(20, 0.5), evaluation_metrics(40, 0.4))
    watch.start(Facts(task="t", model="m", num_steps=60, start_step=40, evaluations=before))
    for step in (41, 42):
        clock.now_s += 10.0
        watch.step(step_metrics(step))
    first, *_, last = stderr.getvalue().splitlines()
    watch.evaluation(evaluation_metrics(42, 0.45))
    assert stderr.getvalue().endswith("best 50.0 % at step 20\n")
    assert first == "m on t: 60 steps, from step 40"
    assert last.endswith("  3 min 00 s left")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (percent(0.4375), "43.8 %"), (percent(True), "–"), (interval((0.1, 0.2)), "[10.0, 20.0]"),
        (interval(None), ""), (number(0.01234), "0.0123"), (number(9.9999), "10.00"),
        (number(12345.6), "12,346"),
        (number(0), "0"), (number(-0.5), "-0.500"), (number(float("inf")), "–"),
        (money(3.1, "EUR"), "3.10 EUR"),
        (money(0.0042, None), "0.0042"), (duration(59.6), "1 min 00 s"), (duration(3599.7), "1 h 00 min"),
        (duration(7620), "2 h 07 min"), (duration(-3), "0 s"),
    ],
)  # fmt: skip
def test_numbers_become_words(words: str, expected: str) -> None:
    assert words == expected


def test_a_curve_has_its_least_and_greatest_value_at_its_ends() -> None:
    assert sparkline([0.0, 1.0, 2.0, 7.0], 10) == "0 ▁▂▃█ 7.00"
    assert sparkline([0, 7], 10, ascii_only=True) == "0 _# 7.00"
    assert sparkline([3, 3], 10) == "3.00 ▁▁ 3.00"
    assert sparkline([1, None, 2], 10) == "1.00 ▁ █ 2.00"
    assert sparkline([], 10) == sparkline([None, float("nan")], 10) == ""


def test_a_long_curve_shows_means_of_neighbours() -> None:
    assert sparkline([0, 0, 2, 6, 8, 10], 3) == "0 ▁▄█ 9.00"
    assert len(sparkline(list(range(1000)), 32).split()[1]) == 32
