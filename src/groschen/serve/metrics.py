"""`/metrics` in Prometheus' text format, under the names that vLLM gives them, so that its dashboards work.

Leaves out the lines of single requests (`logs.py`). Sources: Prometheus, "Exposition formats", version 0.0.4;
vLLM's page "Production metrics".
"""

import os
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from groschen import machine
from groschen.serve.host import Host
from groschen.serve.logs import reasons_of
from groschen.serve.ticket import Ticket

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Upper ends in seconds, and in tokens: vLLM's.
_FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_EACH_TOKEN_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_REQUEST_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
)  # fmt: skip
_TOKENS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))


class Histogram:
    """How often a value lay at or below each of some bounds, and the sum of all values."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last: above every bound
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


@dataclass(slots=True)
class _Counts:
    """What one model's ended requests came to."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    ended: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("stop", "length", "abort", "error"), 0)
    )
    first_token: Histogram = field(default_factory=lambda: Histogram(_FIRST_TOKEN_S))
    each_token: Histogram = field(default_factory=lambda: Histogram(_EACH_TOKEN_S))
    mean_token: Histogram = field(default_factory=lambda: Histogram(_EACH_TOKEN_S))
    request: Histogram = field(default_factory=lambda: Histogram(_REQUEST_S))
    prompt_length: Histogram = field(default_factory=lambda: Histogram(_TOKENS))
    generated_length: Histogram = field(default_factory=lambda: Histogram(_TOKENS))


class Metrics:
    """Counts what a host does from now on. Belongs to the event loop's thread."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._counts = {wanted.name: _Counts() for wanted in host.wanted}
        host.listeners.append(self.observe)

    def observe(self, ticket: Ticket) -> None:
        """A ticket has ended."""
        counts = self._counts[ticket.model]
        for reason in reasons_of(ticket):
            counts.ended[reason] = counts.ended.get(reason, 0) + 1
        counts.request.observe(ticket.ended_s - ticket.submitted_s)
        if not ticket.has_begun:
            return
        num_prompt = len(ticket.request.prompt_ids)
        counts.prompt_tokens += num_prompt
        counts.cached_tokens += ticket.cached_tokens
        counts.generated_tokens += ticket.num_tokens
        counts.prompt_length.observe(num_prompt)
        counts.generated_length.observe(ticket.num_tokens)
        counts.first_token.observe(ticket.first_s - ticket.submitted_s)
        # Samples draw side by side: what a reader of one of them waits for.
        gaps = ticket.num_tokens / ticket.request.num_completions - 1
        if gaps > 0:
            mean = (ticket.ended_s - ticket.first_s) / gaps
            counts.mean_token.observe(mean)
            counts.each_token.observe(mean, ticket.num_tokens - ticket.request.num_completions)

    def text(self) -> str:
        """Everything, as a scraper reads it."""
        return "".join([*self._of_models(), *_of_process()])

    def _of_models(self) -> Iterator[str]:
        host, names = self._host, list(self._counts)
        open_now = {name: [t for t in host.tickets if t.model == name] for name in names}
        by_name = {served.name: served.opened.engine for served in host.models}

        def gauge(name: str, about: str, value: Callable[[str], float | None], kind: str = "gauge") -> str:
            return family(
                name, kind, about, [({"model_name": n}, v) for n in names if (v := value(n)) is not None]
            )

        def count(name: str, about: str, value: Callable[[_Counts], float]) -> str:
            return gauge(name, about, lambda n: value(self._counts[n]), "counter")

        yield gauge(
            "vllm:num_requests_running", "Requests that have their first token and not their last.",
            lambda n: sum(ticket.has_begun for ticket in open_now[n]),
        )  # fmt: skip
        yield gauge(
            "vllm:num_requests_waiting", "Requests that wait for their first token.",
            lambda n: sum(not ticket.has_begun for ticket in open_now[n]),
        )  # fmt: skip
        yield gauge(
            "vllm:kv_cache_usage_perc", "Share of the key/value cache that is in use, 0 to 1.",
            lambda n: 1 - by_name[n].pool.num_free / by_name[n].pool.num_blocks if n in by_name else None,
        )  # fmt: skip
        yield gauge(
            "vllm:num_preemptions_total", "Times that a sample gave up its cache and was computed anew.",
            lambda n: by_name[n].scheduler.num_preemptions if n in by_name else None, "counter",
        )  # fmt: skip
        yield gauge(
            "vllm:generation_tokens_total", "Tokens drawn, those of open requests included.",
            lambda n: self._counts[n].generated_tokens + sum(t.num_tokens for t in open_now[n]), "counter",
        )  # fmt: skip
        yield count("vllm:prompt_tokens_total", "Prompt tokens of ended requests.", lambda c: c.prompt_tokens)
        yield count(
            "vllm:prefix_cache_queries_total", "Prompt tokens that were looked up in the prefix cache.",
            lambda c: c.prompt_tokens,
        )  # fmt: skip
        yield count(
            "vllm:prefix_cache_hits_total", "Prompt tokens that were found in the prefix cache.",
            lambda c: c.cached_tokens,
        )  # fmt: skip
        reasons = [
            ({"model_name": name, "finished_reason": reason}, number)
            for name, counts in self._counts.items()
            for reason, number in counts.ended.items()
        ]
        yield family("vllm:request_success_total", "counter", "Samples that ended, by reason.", reasons)
        yield from self._histograms()

    def _histograms(self) -> Iterator[str]:
        kinds: tuple[tuple[str, str, Callable[[_Counts], Histogram]], ...] = (
            ("time_to_first_token_seconds", "From the queue to the first token.", lambda c: c.first_token),
            ("time_per_output_token_seconds", "Between tokens, each with its request's mean.",
             lambda c: c.each_token),
            ("inter_token_latency_seconds", "Between tokens, each with its request's mean.",
             lambda c: c.each_token),
            ("request_time_per_output_token_seconds", "Between tokens, the mean of a request.",
             lambda c: c.mean_token),
            ("e2e_request_latency_seconds", "From the queue to the last token.", lambda c: c.request),
            ("request_prompt_tokens", "Prompt tokens of a request.", lambda c: c.prompt_length),
            ("request_generation_tokens", "Tokens drawn for a request.", lambda c: c.generated_length),
        )  # fmt: skip
        for name, about, pick in kinds:
            found = [({"model_name": model}, pick(counts)) for model, counts in self._counts.items()]
            yield histogram_family(f"vllm:{name}", about, found)


def route(metrics: Callable[[], Metrics]) -> Route:
    """The route; `metrics` is asked at each request."""

    async def answer(_: Request) -> Response:
        return Response(metrics().text(), headers={"content-type": CONTENT_TYPE, "cache-control": "no-store"})

    return Route("/metrics", answer, methods=["GET"])


# -- the text format
# --------------------------------------------------------------------------------------------------------

Labels = Mapping[str, str]


def family(name: str, kind: str, about: str, samples: Iterable[tuple[Labels, float]]) -> str:
    """One metric with its samples."""
    lines = [_sample(name, labels, value) for labels, value in samples]
    return "".join([_head(name, kind, about), *lines])


def histogram_family(name: str, about: str, found: Iterable[tuple[Labels, Histogram]]) -> str:
    """One histogram for each set of labels; the counts grow from bound to bound."""
    lines = [_head(name, "histogram", about)]
    for labels, histogram in found:
        total = 0
        for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
            total += count
            lines.append(_sample(f"{name}_bucket", {**labels, "le": _number(bound)}, total))
        lines += [_sample(f"{name}_sum", labels, histogram.sum), _sample(f"{name}_count", labels, total)]
    return "".join(lines)


def _head(name: str, kind: str, about: str) -> str:
    escaped = about.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {escaped}\n# TYPE {name} {kind}\n"


def _sample(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items())
    return f"{name}{{{inside}}} {_number(value)}\n" if inside else f"{name} {_number(value)}\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return repr(float(value)) if value != int(value) else f"{float(value):.1f}"


def _of_process() -> Iterator[str]:
    times = os.times()
    yield family(
        "process_cpu_seconds_total", "counter", "Time on the cores.", [({}, times.user + times.system)]
    )
    if sys.platform != "linux":
        return
    gauges: tuple[tuple[str, str, float], ...] = (
        ("process_resident_memory_bytes", "Memory of this process.", machine.resident_bytes()),
        ("process_peak_memory_bytes", "The most memory that it ever had.", machine.peak_memory_bytes()),
        ("process_open_fds", "Open files and sockets.", len(list(Path("/proc/self/fd").iterdir()))),
    )
    for name, about, value in gauges:
        yield family(name, "gauge", about, [({}, value)])
