"""Numbers of a run as words: percentages, durations, money, one line per step, and curves made of characters.

A value that is missing, or no number, is a dash: a view of a run must not stop it. Leaves out where they go.
"""

import math
from collections.abc import Mapping, Sequence

_DASH = "–"
_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-~=+*#"


def percent(value: object) -> str:
    """A share from 0 to 1 as "43.8 %"."""
    share = _number(value)
    return _DASH if share is None else f"{100 * share:.1f} %"


def interval(value: object) -> str:
    """A pair of shares as "[40.1, 47.5]"."""
    ends = [_number(end) for end in value] if isinstance(value, list | tuple) else []
    if len(ends) != 2 or ends[0] is None or ends[1] is None:
        return ""
    return f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"


def number(value: object) -> str:
    """Three digits that count: "0.0123", "4.56", "789", "12,345"."""
    found = _number(value)
    if found is None:
        return _DASH
    if abs(found) >= 100 or found == 0:
        return f"{found:,.0f}"
    return f"{found:.{2 - math.floor(math.log10(abs(found)))}f}"


def amount(value: object) -> str:
    """A count."""
    found = _number(value)
    return _DASH if found is None else f"{found:,.0f}"


def money(value: object, currency: object) -> str:
    """An amount with its currency, with more digits where it is small: "0.0042 EUR", "3.10 EUR"."""
    found = _number(value)
    unit = f" {currency}" if isinstance(currency, str) else ""
    return _DASH if found is None else f"{found:.{2 if found >= 1 else 4}f}{unit}"


def duration(seconds: float) -> str:
    """Seconds as "42 s", "3 min 05 s" or "2 h 07 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def step_line(
    metrics: Mapping[str, object], num_steps: int, left_s: float | None, planned_s: float | None = None
) -> str:
    """One step of a run in one line. planned_s: what the whole run was to take."""
    left = f"  {duration(left_s)} left" if left_s is not None else ""
    gone = _number(metrics.get("time/total_s"))
    if left and gone is not None and planned_s is not None:
        left = f"  {duration(gone)} of {duration(planned_s)} planned, {duration(left_s or 0.0)} left"
    return (
        f"step {amount(metrics.get('step'))}/{num_steps}"
        f"  accuracy {percent(metrics.get('accuracy/train'))}"
        f"  reward {number(metrics.get('reward/mean'))}"
        f"  tokens {number(metrics.get('completion/mean_tokens'))}"
        f"  signal {amount(metrics.get('groups/with_signal'))}/{amount(metrics.get('groups/total'))}"
        f"  {number(metrics.get('tokens/per_s'))} tokens/s"
        f"  {number(metrics.get('time/step_s'))} s"
        f"  {money(metrics.get('cost/total'), metrics.get('cost/currency'))}{left}"
    )


def evaluation_line(metrics: Mapping[str, object], best: Mapping[str, object] | None) -> str:
    """One evaluation in one line, with the best one on dev so far."""
    line = (
        f"evaluation at step {amount(metrics.get('step'))}: {_whose(metrics)}{metrics.get('split')} accuracy "
        f"{percent(metrics.get('pass_at_1'))} {interval(metrics.get('ci95'))}".rstrip()
        + f"  n {amount(metrics.get('n'))}, k {amount(metrics.get('k'))}"
    )
    if best is None:
        return line
    return f"{line}  best {percent(best.get('pass_at_1'))} at step {amount(best.get('step'))}"


def _whose(metrics: Mapping[str, object]) -> str:
    """The model that was asked and, where several wordings of the prompt are tried, with which one."""
    prompt = metrics.get("prompt", -1)
    wording = f"wording {prompt + 1}" if isinstance(prompt, int) and prompt >= 0 else "the task's own wording"
    names = {
        "base": "base, ",
        "base-prompts": f"base with {wording}, ",
        "base-best-prompt": f"base with {wording}, its best, ",
        "best": "best checkpoint, ",
    }
    return names.get(str(metrics.get("model")), "")


def sparkline(values: Sequence[object], width: int, *, ascii_only: bool = False) -> str:
    """The values from left to right as bars between their least and greatest, both told; "" without a number.

    More values than `width` are averaged in as many spans; a span without a number is a blank.
    """
    spans = _spans([_number(value) for value in values], width)
    known = [value for value in spans if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    marks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    step = (high - low) / (len(marks) - 1)
    bars = "".join(
        " " if value is None else marks[round((value - low) / step) if step else 0] for value in spans
    )
    return f"{number(low)} {bars} {number(high)}"


def _spans(values: Sequence[float | None], width: int) -> list[float | None]:
    """At most `width` means of neighbours."""
    count = min(width, len(values))
    means: list[float | None] = []
    for index in range(count):
        first, end = index * len(values) // count, (index + 1) * len(values) // count
        known = [value for value in values[first:end] if value is not None]
        means.append(sum(known) / len(known) if known else None)
    return means


def _number(value: object) -> float | None:
    """A finite number that is not a truth value."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
