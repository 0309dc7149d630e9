"""Metrics, read by Prometheus' own parser."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from groschen.engine.engine import Progress
from groschen.records import Completion, FinishReason, Request, SamplingParams
from groschen.serve import faults
from groschen.serve.metrics import Histogram, Metrics, family, histogram_family
from groschen.serve.ticket import Ticket
from serve.serving import PUZZLE, Server

Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Values:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for each in text_string_to_metric_families(text)
        for sample in each.samples
    }


def value(values: Values, name: str, **labels: str) -> float:
    return values[name, tuple(sorted({"model_name": "penny", **labels}.items()))]


# -- the format


@pytest.mark.parametrize("label", ["plain", 'qu"ote', "back\\slash", "new\nline", "grün", "\\n", ""])
def test_any_label_comes_back_from_prometheus_parser(label: str) -> None:
    text = family("m", "gauge", 'about "it"\nand \\ more', [({"name": label}, 1.5)])
    (found,) = text_string_to_metric_families(text)
    assert found.documentation == 'about "it"\nand \\ more' and found.type == "gauge"
    assert found.samples[0].labels == {"name": label} and found.samples[0].value == 1.5


def test_a_histogram_counts_up_from_bound_to_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(seconds)
    histogram.observe(0.2, times=3)
    text = histogram_family("h", "about", [({"a": "b"}, histogram)])
    samples = [
        (s.name, s.labels.get("le"), s.value) for f in text_string_to_metric_families(text) for s in f.samples
    ]
    assert samples == [
        ("h_bucket", "0.1", 2), ("h_bucket", "1.0", 6), ("h_bucket", "+Inf", 7),
        ("h_sum", None, pytest.approx(8.25)), ("h_count", None, 7),
    ]  # fmt: skip


# -- what is counted


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr("groschen.machine.seconds", moved)
    return moved


def drawn(sample: int, count: int, ending: FinishReason | None = None, cached: int = 0) -> Progress:
    ids = tuple(range(count))
    completion = None
    if ending is not None:
        completion = Completion(
            token_ids=ids, logprobs=(0.0,) * count, text="", finish_reason=ending, policy_version=0, seed=0,
            sample=sample, prompt_ids=(1,), cached_tokens=cached,
        )  # fmt: skip
    return Progress(0, sample, ids, "", completion)


def test_the_life_of_requests_is_in_the_numbers(clock: Clock) -> None:
    asyncio.run(_live(clock))


async def _live(clock: Clock) -> None:
    open_now: list[Ticket] = []
    host: Any = SimpleNamespace(wanted=[SimpleNamespace(name="penny")], listeners=[], models=())
    metrics = Metrics(host)

    def ended(ticket: Ticket) -> None:
        open_now.remove(ticket)
        host.listeners[0](ticket)

    def opened(num_prompt: int, n: int) -> Ticket:
        request = Request(prompt_ids=(1,) * num_prompt, sampling=SamplingParams(), num_completions=n)
        open_now.append(Ticket("penny", request, False, ended))
        return open_now[-1]

    def read() -> Values:
        host.tickets = tuple(open_now)
        return parsed(metrics.text())

    two, waiting, gone, dead = opened(10, 2), opened(5, 1), opened(3, 1), opened(2, 1)
    clock.now += 2
    two.deliver(drawn(0, 1))
    two.deliver(drawn(1, 1))
    dead.deliver(drawn(0, 1))
    now = read()
    assert value(now, "vllm:num_requests_running") == 2 and value(now, "vllm:num_requests_waiting") == 2
    assert value(now, "vllm:generation_tokens_total") == 3
    assert value(now, "vllm:prompt_tokens_total") == 0

    clock.now += 4
    two.deliver(drawn(0, 4, FinishReason.STOP, cached=8))
    two.deliver(drawn(1, 4, FinishReason.LENGTH, cached=8))
    gone.cancel()
    dead.fail(faults.unavailable("dead", "engine_dead"))
    now = read()
    assert value(now, "vllm:num_requests_running") == 0 and value(now, "vllm:num_requests_waiting") == 1
    assert value(now, "vllm:prompt_tokens_total") == 12  # of the one that never began nothing was read
    assert value(now, "vllm:prefix_cache_hits_total") == 8
    assert value(now, "vllm:generation_tokens_total") == 11
    reasons = ("stop", "length", "abort", "error")
    assert [value(now, "vllm:request_success_total", finished_reason=each) for each in reasons] == [
        1,
        1,
        1,
        1,
    ]
    assert value(now, "vllm:time_to_first_token_seconds_count") == 2
    assert value(now, "vllm:time_to_first_token_seconds_sum") == 4
    assert value(now, "vllm:e2e_request_latency_seconds_sum") == 18
    assert value(now, "vllm:e2e_request_latency_seconds_bucket", le="5.0") == 0
    # Two samples of five tokens each, four seconds between the first and the last: a second a token.
    assert value(now, "vllm:inter_token_latency_seconds_sum") == pytest.approx(8)
    assert value(now, "vllm:inter_token_latency_seconds_count") == 8
    assert value(now, "vllm:request_time_per_output_token_seconds_bucket", le="1.0") == 1
    waiting.cancel()


# -- over HTTP


VLLM_NAMES = """
    num_requests_running num_requests_waiting kv_cache_usage_perc num_preemptions_total prompt_tokens_total
    generation_tokens_total prefix_cache_queries_total prefix_cache_hits_total request_success_total
    time_to_first_token_seconds_bucket inter_token_latency_seconds_bucket e2e_request_latency_seconds_bucket
    request_time_per_output_token_seconds_bucket time_per_output_token_seconds_bucket
    request_prompt_tokens_bucket request_generation_tokens_bucket
""".split()


def test_the_server_has_vllms_names_and_counts_what_it_did(server: Server) -> None:
    reply = server.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    before = parsed(reply.body.decode())
    assert {f"vllm:{name}" for name in VLLM_NAMES} <= {name for name, _ in before}
    assert before["process_resident_memory_bytes", ()] > 50e6
    usage = server.chat(messages=PUZZLE, n=2, max_tokens=7, seed=1).json()["usage"]
    after = parsed(server.get("/metrics").body.decode())

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("vllm:prompt_tokens_total") == usage["prompt_tokens"]
    assert grown("vllm:generation_tokens_total") == usage["completion_tokens"]
    assert grown("vllm:e2e_request_latency_seconds_count") == 1
    reasons = ("stop", "length", "abort", "error")
    assert sum(grown("vllm:request_success_total", finished_reason=each) for each in reasons) == 2
