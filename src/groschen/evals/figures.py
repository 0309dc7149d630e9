"""Curves and intervals as inline SVG with their numbers beside them, for readers with and without eyes.

A line is told apart by its dashes as well as by its colour; every figure has a sentence that says what is to
be seen and a table with the numbers. Leaves out which curves there are (report_curves.py) and the colours
(page/report.css).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from groschen.evals.markup import Html, join, table, tag
from groschen.evals.report_text import Words

# In units of the drawing: narrow, so that its letters can be read when a phone makes it 288 pixels wide.
_WIDTH, _HEIGHT, _TOP, _RIGHT, _BOTTOM = 360, 214, 12, 12, 34
_LETTER = 7.2  # width of a digit of the axis
_MOST_POINTS, _MOST_ROWS = 240, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line: its points (x, y) in order of x."""

    label: str
    points: tuple[tuple[float, float], ...]
    look: int = 0  # 0 .. 3: colour and dashes
    is_faint: bool = False  # drawn thin, as the noise behind another line
    has_dots: bool = False
    band: tuple[tuple[float, float, float], ...] = ()  # (x, low, high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What a figure shows; `summary` is one sentence for those who do not see it."""

    name: str  # of the anchor
    title: str
    summary: str
    series: tuple[Series, ...]
    write: Callable[[float], str]  # a value as the table shows it
    is_share: bool = False  # the y axis says percent
    note: str | None = None
    ticks: tuple[float, ...] = ()  # of the y axis; none: round ones from the data, with 0 where that is near
    mark: tuple[float, float, str] | None = None  # (x, y, words) of the point that matters


@dataclass(frozen=True, slots=True)
class _Scale:
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    left: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return round(self.left + share * (_WIDTH - _RIGHT - self.left), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP), 1)


def line_chart(figure: Figure, words: Words) -> Html:
    """The figure with caption, legend, drawing and the table of its numbers."""
    anchor = f"{figure.name}-{words.language}"
    ticks = y_ticks(figure)
    labels = tick_labels(ticks, words, is_share=figure.is_share)
    scale = _scale_of(figure, ticks, labels)
    drawing = tag(
        "svg",
        tag("title", figure.title, id=f"{anchor}-title"),
        tag("desc", figure.summary, id=f"{anchor}-desc"),
        _axes(scale, ticks, labels, words),
        *(_band(series, scale) for series in figure.series if series.band),
        *(_line(series, scale) for series in figure.series),
        _mark(figure, scale),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_labelledby=f"{anchor}-title {anchor}-desc",
    )
    return tag(
        "figure",
        tag("figcaption", tag("strong", figure.title), " ", figure.summary),
        _legend(figure.series),
        drawing,
        tag("p", figure.note or "", class_="note"),
        tag("details", tag("summary", words("figure.numbers")), _numbers(figure, words)),
        class_="chart",
        id=anchor,
    )


def interval_bar(value: float, low: float, high: float, *, look: int) -> Html:
    """A dot with its interval on a line from 0 to 1; the numbers stand beside it, so it is hidden from
    readers.
    """
    shares = [min(1.0, max(0.0, share)) * 400 + 6 for share in (value, low, high)]
    middle, left, right = (0.0 if math.isnan(share) else round(share, 1) for share in shares)
    return tag(
        "svg",
        tag("line", x1="6", x2="406", y1="10", y2="10", class_="axis"),
        *(tag("line", x1=x, x2=x, y1="6", y2="14", class_="axis") for x in (6, 106, 206, 306, 406)),
        tag("line", x1=left, x2=right, y1="10", y2="10", class_=f"interval look{look}"),
        tag("circle", cx=middle, cy="10", r="4", class_=f"dot look{look}"),
        viewBox="0 0 412 20",
        class_="bar",
        aria_hidden="true",
    )


def rolling_mean(points: Sequence[tuple[float, float]], window: int) -> tuple[tuple[float, float], ...]:
    """Each point with the mean of itself and the window - 1 before it, or of as many as there are."""
    values = [value for _, value in points]
    return tuple(
        (x, sum(values[max(0, i + 1 - window) : i + 1]) / min(window, i + 1))
        for i, (x, _) in enumerate(points)
    )


def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) that cover low to high; at most `most` +
    2.
    """
    if not high > low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.9999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def y_ticks(figure: Figure) -> list[float]:
    """The numbers at the y axis: round, covering lines and bands, from 0 if that is no far way."""
    if figure.ticks:
        return list(figure.ticks)
    values = [y for series in figure.series for _, y in series.points if math.isfinite(y)]
    values += [bound for series in figure.series for _, *bounds in series.band for bound in bounds]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if 0 < low < 0.6 * high:
        low = 0.0
    return round_ticks(low, high)


def tick_labels(ticks: Sequence[float], words: Words, *, is_share: bool) -> list[str]:
    """The ticks with as many decimals as they need, the same for all."""
    values = [100 * tick for tick in ticks] if is_share else list(ticks)
    digits = next((n for n in range(7) if all(abs(round(v, n) - v) < 1e-9 for v in values)), 6)
    return [words.percent(t, digits) if is_share else words.number(t, digits) for t in ticks]


def _scale_of(figure: Figure, ticks: Sequence[float], labels: Sequence[str]) -> _Scale:
    xs = [x for series in figure.series for x, _ in series.points]
    low, high = (min(xs), max(xs)) if xs else (0.0, 1.0)
    left = 10 + _LETTER * max(len(label) for label in labels)
    bottom, top = (ticks[0], ticks[-1]) if len(ticks) > 1 else (ticks[0] - 1, ticks[0] + 1)
    return _Scale(low, high if high > low else low + 1, bottom, top, left)


def _axes(scale: _Scale, ticks: Sequence[float], labels: Sequence[str], words: Words) -> Html:
    parts = []
    for tick, label in zip(ticks, labels, strict=True):
        y = scale.y(tick)
        parts.append(tag("line", x1=scale.left, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", label, x=scale.left - 6, y=y + 4.5, text_anchor="end"))
    for step in _x_ticks(scale):
        middle = min(scale.x(step), _WIDTH - _RIGHT - _LETTER * len(words.count(step)) / 2 + 8)
        parts.append(tag("text", words.count(step), x=middle, y=_HEIGHT - 18, text_anchor="middle"))
    center = (scale.left + _WIDTH - _RIGHT) / 2
    parts.append(tag("text", words("figure.step"), x=center, y=_HEIGHT - 3, text_anchor="middle"))
    return tag("g", *parts, class_="axes", aria_hidden="true")


def _x_ticks(scale: _Scale) -> list[float]:
    inside = [tick for tick in round_ticks(scale.x_low, scale.x_high) if scale.x_low <= tick <= scale.x_high]
    return [tick for tick in inside if tick == int(tick)]


def _band(series: Series, scale: _Scale) -> Html:
    upper = [(scale.x(x), scale.y(high)) for x, _, high in series.band]
    lower = [(scale.x(x), scale.y(low)) for x, low, _ in reversed(series.band)]
    return tag("path", d=_path([*upper, *lower]) + "Z", class_=f"band look{series.look}")


def _line(series: Series, scale: _Scale) -> Html:
    points = [(scale.x(x), scale.y(y)) for x, y in _thinned(series.points) if math.isfinite(y)]
    kind = "faint" if series.is_faint else "line"
    line = tag("path", d=_path(points), class_=f"{kind} look{series.look}") if len(points) > 1 else None
    dots = points if series.has_dots or len(points) == 1 else []
    return join([line, *(tag("circle", cx=x, cy=y, r="3", class_=f"dot look{series.look}") for x, y in dots)])


def _mark(figure: Figure, scale: _Scale) -> Html | None:
    if figure.mark is None:
        return None
    x, y, label = scale.x(figure.mark[0]), scale.y(figure.mark[1]), figure.mark[2]
    anchor = "end" if x > _WIDTH * 0.6 else "start"
    height = y + 22 if y < _TOP + 26 else y - 12
    return tag(
        "g",
        tag("circle", cx=x, cy=y, r="7", class_="ring"),
        tag("text", label, x=x + (9 if anchor == "end" else -9), y=round(height, 1), text_anchor=anchor),
        class_="mark",
        aria_hidden="true",
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most 240 points: means of neighbours, as fine as the drawing can show."""
    size = math.ceil(len(points) / _MOST_POINTS)
    if size <= 1:
        return points
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups
    ]


def _legend(series: Sequence[Series]) -> Html:
    if len(series) < 2:
        return tag("div")  # keeps its place: the parts of neighbouring figures stand in line
    items = []
    for one in series:
        kind = "faint" if one.is_faint else "line"
        swatch = tag("path", d="M0 5H28", class_=f"{kind} look{one.look}")
        items.append(
            tag("li", tag("svg", swatch, viewBox="0 0 28 10", class_="swatch", aria_hidden="true"), one.label)
        )
    return tag("ul", *items, class_="legend")


def _numbers(figure: Figure, words: Words) -> Html:
    columns = [dict(series.points) for series in figure.series]
    bands = [{x: (low, high) for x, low, high in series.band} for series in figure.series]
    steps = sorted({x for column in columns for x in column})
    every = math.ceil(len(steps) / _MOST_ROWS)
    shown = [step for i, step in enumerate(steps) if i % every == 0 or i == len(steps) - 1]
    rows = []
    for step in shown:
        cells: list[Html | str] = [words.count(step)]
        for column, band in zip(columns, bands, strict=True):
            text = figure.write(column[step]) if step in column else words.number(None)
            if step in band:
                text += f" ({figure.write(band[step][0])} \u2013 {figure.write(band[step][1])})"
            cells.append(text)
        rows.append(cells)
    caption = words("figure.table", title=figure.title)
    if every > 1:
        caption += " " + words("figure.thinned", every=words.count(every))
    return table([words("figure.step"), *(series.label for series in figure.series)], rows, caption=caption)
