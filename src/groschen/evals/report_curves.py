"""Which curves a report shows, what each means in a sentence, and which numbers they are made of.

A curve whose numbers were not recorded is left out. Leaves out drawing (figures.py).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

from groschen.evals.figures import Figure, Series, line_chart, rolling_mean
from groschen.evals.markup import Html, section, tag
from groschen.evals.report_data import Line, number_of, points_of
from groschen.evals.report_results import Results
from groschen.evals.report_text import Words
from groschen.ledger import PHASES

Points = tuple[tuple[float, float], ...]


def curves(results: Results, words: Words) -> Html | None:
    """All figures that can be drawn; None where no step and no evaluation was recorded."""
    figures = [figure for figure in _all_figures(results, words) if figure is not None]
    if not figures:
        return None
    charts = tag("div", *(line_chart(figure, words) for figure in figures), class_="charts")
    intro = tag("p", words("curves.intro"))
    return section("curves", words("curves.title"), words.language, intro, charts)


def _all_figures(results: Results, words: Words) -> list[Figure | None]:
    return [
        _accuracy(results, words),
        _smoothed(results, words, "reward", "reward/mean", words.short),
        _length(results, words),
        _signal(results, words),
        _smoothed(results, words, "entropy", "policy/entropy_nat", words.short),
        _gap(results, words),
        _smoothed(results, words, "speed", "tokens/per_s", words.count),
        _time_by_phase(results, words),
    ]


def _accuracy(results: Results, words: Words) -> Figure | None:
    lines = _dev_lines(results.run.evaluations)
    points = points_of(lines, "pass_at_1")
    if not points:
        return None
    band = tuple((number_of(line, "step"), *bounds) for line in lines if (bounds := _bounds(line)))
    dev = Series(label=words("curves.dev"), points=points, has_dots=True, band=band)
    train = points_of(results.run.steps, "accuracy/train")
    smooth = Series(label=words("curves.train"), points=rolling_mean(train, _window(train)), look=1)
    best = [point for point in points if point[0] == results.run.best_step]
    mark = (*best[0], words("curves.best", step=words.count(best[0][0]))) if best else None
    top = max(points, key=lambda point: point[1])
    return Figure(
        name="accuracy",
        title=words("curves.accuracy"),
        summary=words(
            "curves.accuracy_summary",
            first=words.percent(points[0][1]),
            last=words.percent(points[-1][1]),
            top=words.percent(top[1]),
            step=words.count(top[0]),
        ),
        series=(dev, smooth) if train else (dev,),
        write=words.percent,
        is_share=True,
        note=_accuracy_note(train, words),
        mark=mark,
    )


def _accuracy_note(train: Points, words: Words) -> str:
    note = words("curves.accuracy_note")
    window = _window(train)
    return note + " " + words("curves.train_note", window=words.count(window)) if window > 1 else note


def _dev_lines(evaluations: Sequence[Line]) -> list[Line]:
    """Evaluations of the policy on dev in order of steps; the base as asked stands at step 0 if nothing
    else.
    """
    on_dev = [line for line in evaluations if line.get("split") == "dev"]
    by_step = {number_of(line, "step"): line for line in on_dev if line.get("model") == "policy"}
    for line in on_dev:
        if line.get("model") == "base" and line.get("prompt", -1) == -1:
            by_step.setdefault(0.0, {**line, "step": 0})
    return [by_step[step] for step in sorted(by_step)]


def _bounds(line: Line) -> tuple[float, float] | None:
    found = line.get("ci95")
    if not isinstance(found, Sequence) or len(found) != 2 or None in found:
        return None
    return float(found[0]), float(found[1])


def _length(results: Results, words: Words) -> Figure | None:
    points = points_of(results.run.steps, "completion/mean_tokens")
    return _with_mean(words, "length", points, words.count) if points else None


def _signal(results: Results, words: Words) -> Figure | None:
    total = dict(points_of(results.run.steps, "groups/total"))
    keys = ("with_signal", "all_passed", "all_failed")
    shares = [
        tuple(
            (step, count / total[step])
            for step, count in points_of(results.run.steps, f"groups/{key}")
            if total.get(step)
        )
        for key in keys
    ]
    if not shares[0]:
        return None
    window = _window(shares[0])
    series = [
        Series(label=words(f"curves.{key}"), points=rolling_mean(points, window), look=look)
        for look, (key, points) in enumerate(zip(keys, shares, strict=True))
        if points
    ]
    mean = sum(share for _, share in shares[0]) / len(shares[0])
    return Figure(
        name="signal",
        title=words("curves.signal"),
        summary=words("curves.signal_summary", mean=words.percent(mean, 0)),
        series=tuple(series),
        write=words.percent,
        is_share=True,
        note=words("curves.window", window=words.count(window)) if window > 1 else None,
        ticks=(0.0, 0.25, 0.5, 0.75, 1.0),
    )


def _gap(results: Results, words: Words) -> Figure | None:
    points = points_of(results.run.steps, "policy/logprob_gap_max")
    if not points:
        return None
    gap = results.gap
    key = "curves.gap_zero" if gap.num_nonzero == 0 else "curves.gap_some"
    return Figure(
        name="gap",
        title=words("curves.gap"),
        summary=words(
            key,
            steps=words.count(gap.num_steps),
            nonzero=words.count(gap.num_nonzero),
            largest=words.short(gap.largest),
        ),
        series=(Series(label=words("curves.gap"), points=points),),
        write=words.short,
        ticks=(0.0,) if gap.largest == 0 else (),
        mark=(points[-1][0], 0.0, words("curves.gap_mark")) if gap.largest == 0 else None,
    )


def _time_by_phase(results: Results, words: Words) -> Figure | None:
    """Minutes that each phase had taken by each step, every attempt counted."""
    spent: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for line in results.run.ledger:
        spent[line.phase][float(line.step)] += line.wall_s / 60
    phases = sorted((p for p in PHASES if p in spent), key=lambda p: -sum(spent[p].values()))[:4]
    steps = sorted({step for phase in spent.values() for step in phase})
    if len(steps) < 2:
        return None
    series = []
    for look, phase in enumerate(phases):
        total, points = 0.0, []
        for step in steps:
            total += spent[phase].get(step, 0.0)
            points.append((step, total))
        series.append(Series(label=words(f"phase.{phase}"), points=tuple(points), look=look))
    return Figure(
        name="time",
        title=words("curves.time"),
        summary=words(
            "curves.time_summary",
            phase=words(f"phase.{phases[0]}"),
            duration=words.duration(sum(spent[phases[0]].values()) * 60),
        ),
        series=tuple(series),
        write=lambda minutes: words.number(minutes, 2),
        note=words("curves.time_note"),
    )


def _smoothed(
    results: Results, words: Words, name: str, key: str, write: Callable[[float], str]
) -> Figure | None:
    points = points_of(results.run.steps, key)
    return _with_mean(words, name, points, write) if points else None


def _with_mean(words: Words, name: str, points: Points, write: Callable[[float], str]) -> Figure:
    """A noisy curve, thin, with its rolling mean."""
    window = _window(points)
    mean = rolling_mean(points, window)
    smooth = Series(label=words("curves.mean_of", window=words.count(window)), points=mean)
    each = Series(label=words("curves.each_step"), points=points, is_faint=True)
    title = words(f"curves.{name}")
    tail = points[-window:]
    first, last = (sum(y for _, y in part) / len(part) for part in (points[:window], tail))
    return Figure(
        name=name,
        title=title,
        summary=words(f"curves.{name}_summary", first=write(first), last=write(last)),
        series=(each, smooth) if window > 1 else (Series(label=title, points=points),),
        write=write,
    )


def _window(points: Points) -> int:
    """Steps that a rolling mean takes together: a twelfth of the run, 1 for very short ones."""
    return max(1, min(25, len(points) // 12))
