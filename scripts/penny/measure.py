"""What a penny can do, asked with the engine: how often it is right, how long, how true."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from groschen.engine.engine import Engine
from groschen.records import Completion, FinishReason, Problem, Request, SamplingParams
from groschen.tasks import countdown
from groschen.text.bundle import Text
from penny.reading import Reading, read_attempt
from penny.traces import HIT

MAX_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Measurement:
    """Shares of one set of completions, k for each problem."""

    problems: int
    samples: int
    pass_at_1: float
    groups_with_signal: float  # not all passed and not all failed
    mean_tokens: float
    truncated: float
    has_reasoning: float
    gave_up: float  # of those with reasoning
    true_sums: float
    allowed_sums: float
    true_marks: float
    true_hits: float
    right_after_hit: float  # the answer passes where a hit was claimed
    malformed: float
    repeated: float  # of all tries
    tries: float  # of those with reasoning, mean
    seconds: float
    tokens_per_s: float


def request(text: Text, problem: Problem, samples: int, **sampling: object) -> Request:
    """One request for several attempts at a problem."""
    ids = text.chat_template().encode(text.tokenizer, problem.messages)
    params = SamplingParams(max_tokens=MAX_TOKENS, seed=0)
    return Request(prompt_ids=tuple(ids), sampling=replace(params, **sampling), num_completions=samples)


def measure(
    engine: Engine, text: Text, problems: Sequence[Problem], samples: int, **sampling: object
) -> tuple[Measurement, list[list[Completion]]]:
    """Generate and count. sampling: fields of SamplingParams that differ from temperature 1."""
    requests = [request(text, each, samples, **{"seed": i, **sampling}) for i, each in enumerate(problems)]
    start = time.perf_counter()
    groups = engine.generate(requests)
    return count(problems, groups, time.perf_counter() - start), groups


def count(problems: Sequence[Problem], groups: Sequence[Sequence[Completion]], seconds: float) -> Measurement:
    """Shares over all completions."""
    passed = [
        [countdown.verify(problem, each.text).passed for each in group]
        for problem, group in zip(problems, groups, strict=True)
    ]
    readings = [
        [read_attempt(_numbers(problem), _target(problem), each.text) for each in group]
        for problem, group in zip(problems, groups, strict=True)
    ]
    flat = [each for group in readings for each in group]
    every = [each for group in groups for each in group]
    after_hit = [
        ok for oks, group in zip(passed, readings, strict=True) for ok, each in zip(oks, group, strict=True)
        if each.hits
    ]  # fmt: skip
    thinking = [each for each in flat if each.has_reasoning]
    tokens = sum(len(each.token_ids) for each in every)
    total = _sum(flat)
    return Measurement(
        problems=len(problems),
        samples=len(every),
        pass_at_1=_share(sum(map(sum, passed)), len(every)),
        groups_with_signal=_share(sum(0 < sum(each) < len(each) for each in passed), len(passed)),
        mean_tokens=tokens / len(every),
        truncated=_share(sum(each.finish_reason is FinishReason.LENGTH for each in every), len(every)),
        has_reasoning=_share(len(thinking), len(flat)),
        gave_up=_share(sum(each.gave_up for each in thinking), len(thinking)),
        true_sums=_share(total.true_sums, total.sums),
        allowed_sums=_share(total.allowed_sums, total.sums),
        true_marks=_share(total.true_marks, total.marks),
        true_hits=_share(total.true_hits, total.hits),
        right_after_hit=_share(sum(after_hit), len(after_hit)),
        malformed=_share(total.malformed, total.lines),
        repeated=_share(total.repeated, total.marks),
        tries=total.marks / max(len(thinking), 1),
        seconds=seconds,
        tokens_per_s=tokens / seconds,
    )


def persist(engine: Engine, text: Text, problems: Sequence[Problem], samples: int) -> Measurement:
    """The same where giving up is forbidden: where an attempt closes its reasoning without a hit, that token
    is taken back and another one is drawn, until it hits or the tokens are used up.
    """
    close = text.tokenizer.encode("</think>")[0]
    start = time.perf_counter()
    done: dict[tuple[int, int], Completion] = {}
    heads = {(i, k): () for i in range(len(problems)) for k in range(samples)}
    prompts = [request(text, each, 1).prompt_ids for each in problems]
    for turn in range(64):
        again: dict[tuple[int, int], tuple[int, ...]] = {}
        asked = []
        for (i, k), head in heads.items():
            bias = ((close, -100.0),)
            params = SamplingParams(max_tokens=1, seed=1000 * turn + k, logit_bias=bias)
            forced = head
            if head:
                (first,) = engine.generate([Request(prompt_ids=prompts[i] + head, sampling=params)])[0]
                forced = head + first.token_ids
            params = SamplingParams(max_tokens=MAX_TOKENS - len(forced), seed=1000 * turn + k)
            asked.append(((i, k), forced, Request(prompt_ids=prompts[i] + forced, sampling=params)))
        for (place, forced, _), (found,) in zip(
            asked, engine.generate([each for *_, each in asked]), strict=True
        ):
            ids = forced + found.token_ids
            whole = replace(found, token_ids=ids, text=text.tokenizer.decode(ids, skip_special=True))
            cut = ids.index(close) if close in ids else None
            if cut is None or HIT in whole.text or cut >= MAX_TOKENS - 2:
                done[place] = whole
            else:
                again[place] = ids[:cut]
        heads = again
        if not heads:
            break
    done.update({place: replace(whole, text="") for place in heads})
    groups = [[done[i, k] for k in range(samples)] for i in range(len(problems))]
    return count(problems, groups, time.perf_counter() - start)


def as_text(found: Measurement) -> str:
    """One line."""
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in asdict(found).items()
    )


def _sum(readings: Sequence[Reading]) -> Reading:
    names = [name for name in asdict(Reading()) if name not in ("has_reasoning", "gave_up")]
    return Reading(**{name: sum(getattr(each, name) for each in readings) for name in names})


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _numbers(problem: Problem) -> list[int]:
    return list(problem.meta["numbers"])  # type: ignore[call-overload]


def _target(problem: Problem) -> int:
    return int(problem.meta["target"])  # type: ignore[call-overload]
