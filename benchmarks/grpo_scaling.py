"""The cost of a GRPO step against its number of samples: a straight line through the medians, and a picture.

Leaves out measuring.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from groschen.evals.figures import round_ticks

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 340, 62, 16, 44, 48
BLUE, GREY = "#1f5fa8", "#767676"
TEXT = 'font-family="sans-serif" font-size="13"'


@dataclass(frozen=True)
class Fit:
    """Seconds of a step as a line over its number of samples."""

    seconds_each: float
    seconds_fixed: float
    largest_deviation: float  # of a median from the line, as a share of the line

    def at(self, samples: float) -> float:
        """Seconds that the line gives."""
        return self.seconds_fixed + self.seconds_each * samples


def fit(seconds: Mapping[int, Sequence[float]]) -> Fit:
    """Least squares of the relative deviations, so that small steps count as much as large ones.

    seconds: by number of samples, of all repeats. Raises ValueError for fewer than two numbers of samples.
    """
    if len(seconds) < 2:
        raise ValueError(f"a line needs two numbers of samples or more, found {sorted(seconds)}")
    medians = {samples: statistics.median(taken) for samples, taken in seconds.items()}
    # Divided by the median, s = a + b n becomes 1 = a / s + b n / s: two unknowns, by normal equations.
    ones = [1 / taken for taken in medians.values()]
    slopes = [samples / taken for samples, taken in medians.items()]
    aa, ab = sum(x * x for x in ones), sum(x * y for x, y in zip(ones, slopes, strict=True))
    bb, a, b = sum(y * y for y in slopes), sum(ones), sum(slopes)
    whole = aa * bb - ab * ab
    found = Fit((aa * b - ab * a) / whole, (bb * a - ab * b) / whole, 0.0)
    away = max(abs(taken / found.at(samples) - 1) for samples, taken in medians.items())
    return Fit(found.seconds_each, found.seconds_fixed, away)


def drawing(seconds: Mapping[int, Sequence[float]], line: Fit, title: str) -> str:
    """An SVG with every repeat as a dot and the line."""
    highest = max(max(taken) for taken in seconds.values())
    x_ticks, y_ticks = round_ticks(0, max(seconds)), round_ticks(0, highest)

    def x(value: float) -> float:
        return round(LEFT + value / x_ticks[-1] * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - value / y_ticks[-1] * (HEIGHT - BOTTOM - TOP), 1)

    parts = [f'<text x="{LEFT}" y="22" {TEXT} font-weight="bold">{escape(title)}</text>']
    for tick in y_ticks:
        parts.append(f'<path d="M{LEFT} {y(tick)}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4}" {TEXT} text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        middle = min(x(tick), WIDTH - 14)
        parts.append(f'<text x="{middle}" y="{HEIGHT - 28}" {TEXT} text-anchor="middle">{tick:g}</text>')
    words = f"samples in a step; line: {line.seconds_fixed:.1f} s + {line.seconds_each:.2f} s a sample"
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" {TEXT} text-anchor="middle">{words}</text>'
    )
    parts.append(f'<text x="{LEFT}" y="{TOP - 6}" {TEXT} fill="{GREY}">seconds a step</text>')
    start, end = max(0.0, -line.seconds_fixed / line.seconds_each), max(seconds)
    ends = f"M{x(start)} {y(line.at(start))}L{x(end)} {y(line.at(end))}"
    parts.append(f'<path d="{ends}" stroke="{GREY}" stroke-dasharray="5 4"/>')
    dots = ((samples, each) for samples, taken in sorted(seconds.items()) for each in taken)
    parts += [f'<circle cx="{x(n)}" cy="{y(each)}" r="4" fill="{BLUE}"/>' for n, each in dots]
    inner = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n'
        f'<title>{escape(title)}</title>\n<rect width="100%" height="100%" fill="white"/>\n{inner}\n</svg>\n'
    )
