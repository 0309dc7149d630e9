"""From what clients saw to figures: times, rates, their spread over the repeats, and ratios.

Leaves out the clients (streams.py) and running the servers (run_serve.py).
"""

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

from run_engine import Line, summary
from streams import Load, Stream

TIMES = ("first_token_s", "token_s", "answer_s")  # less is better
FIGURES = (*TIMES, "tokens_per_second")


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: a value that was seen."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def figures(load: Load, elsewhere_share: float, client_share: float) -> Line:
    """One repeat of one point. Times are medians over its answers.

    A load that was cut has counted no tokens of its open answers: events with text stand for them, and the
    rate is the pace after every client's first token. Both leave out prompts, which favours the measured.
    """
    begun = [stream for stream in load.streams if stream.times]
    ended = [stream.ended - stream.sent for stream in load.streams if stream.ended is not None]
    paces = [pace for pace in map(_token_s, begun) if pace is not None]
    gaps = [after - before for stream in begun for before, after in pairwise(stream.times)]
    first = [stream.times[0] - stream.sent for stream in begun]
    return {
        "first_token_s": statistics.median(first) if first else None,
        "token_s": statistics.median(paces) if paces else None,
        "answer_s": statistics.median(ended) if ended else None,
        "tokens_per_second": _rate(load),
        "first_token_p99_s": percentile(first, 0.99) if first else None,
        "gap_p99_s": percentile(gaps, 0.99) if gaps else None,
        "seconds": load.ended - load.begun,
        "answers": len(ended),
        "tokens": sum(map(_tokens, load.streams)),
        "prompt_tokens": sum(stream.prompt_tokens for stream in load.streams),
        "cut": load.cut,
        "elsewhere_share": round(elsewhere_share, 3),
        "client_share": round(client_share, 3),
        "health": _health(load.health),
    }


def _tokens(stream: Stream) -> int:
    return stream.tokens or len(stream.times)


def _token_s(stream: Stream) -> float | None:
    """Seconds for each token after the first; the last ones may have no text, being special."""
    count, end = _tokens(stream), stream.times[-1] if stream.ended is None else stream.ended
    return (end - stream.times[0]) / (count - 1) if count > 1 else None


def _rate(load: Load) -> float:
    """New tokens a second of all clients."""
    if not load.cut:
        return sum(map(_tokens, load.streams)) / (load.ended - load.begun)
    firsts = [stream.times[0] if stream.times else load.ended for stream in load.streams[: load.clients]]
    since = max(firsts)
    if since >= load.ended:
        since = load.begun
    arrived = sum(since < moment <= load.ended for stream in load.streams for moment in stream.times)
    return arrived / (load.ended - since)


def _health(seconds: list[float]) -> Line | None:
    """Milliseconds to the first byte of /health under the load."""
    if not seconds:
        return None
    return {
        "probes": len(seconds),
        "median_ms": 1000 * statistics.median(seconds),
        "p99_ms": 1000 * percentile(seconds, 0.99),
        "max_ms": 1000 * max(seconds),
    }


def spread(repeats: list[Line]) -> Line:
    """Median, least and greatest of each figure over the repeats of one point, and the repeats themselves."""
    made: Line = {}
    for name in FIGURES:
        values = [float(str(each[name])) for each in repeats if each[name] is not None]
        made[name] = summary(values) if values else None
    return {**made, "repeats": repeats}


def ratios(ours: dict[str, Line], theirs: dict[str, Line]) -> dict[str, dict[str, float]]:
    """Ours against theirs at every point that both have; above 1 is better for us, times too."""
    made: dict[str, dict[str, float]] = {}
    for point in ours.keys() & theirs.keys():
        made[point] = {}
        for name in FIGURES:
            mine, other = median_of(ours[point], name), median_of(theirs[point], name)
            if mine is not None and other is not None:
                made[point][name] = other / mine if name in TIMES else mine / other
    return {point: made[point] for point in ours if point in made}


def median_of(point: Line, name: str) -> float | None:
    """The median of a figure of one point, as `spread` has it."""
    found = point[name]
    return float(str(found["median"])) if isinstance(found, dict) else None
