"""The fields that say how tokens are drawn, which chat and completions share, and the settings they become.

Leaves out what the engine checks itself: each value in its range, the vocabulary.
"""

from dataclasses import replace
from typing import Annotated

from msgspec import Meta

from groschen.records import SamplingParams
from groschen.serve import faults
from groschen.serve.fields import CHANGES_NOTHING, Other, Strict

MOST_SAMPLES = 128
_MOST_STOPS, _MOST_STOP_CHARACTERS = 16, 1000
_INT64 = 2**63

Penalty = Annotated[float, Meta(ge=-2, le=2)]


class StreamOptions(Strict):
    """What a stream tells besides the text."""

    include_usage: bool | None = None


class SamplingFields(Strict, kw_only=True):
    """How tokens are drawn. What is left out is as in the model's generation_config.json."""

    model: str
    n: Annotated[int, Meta(ge=1, le=MOST_SAMPLES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None  # -1 and 0: all tokens
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    seed: Annotated[int, Meta(ge=-_INT64, le=_INT64 - 1)] | None = None


# Known to OpenAI's API, and without a meaning for one's own server.
HARMLESS: dict[str, Other] = {
    "user": CHANGES_NOTHING,
    "metadata": CHANGES_NOTHING,
    "safety_identifier": CHANGES_NOTHING,
    "prompt_cache_key": CHANGES_NOTHING,
    "prompt_cache_retention": CHANGES_NOTHING,
    "service_tier": Other("there is one tier; leave it out or send 'auto'", ("auto", "default")),
    "store": Other("answers are not kept; send false", (False,)),
    "stream_options.include_obfuscation": Other("nothing is obfuscated; send false", (False,)),
}


def sampling_of(
    fields: SamplingFields,
    defaults: SamplingParams,
    *,
    max_tokens: int | None,
    top_logprobs: int,
    prompt_logprobs: bool = False,
) -> SamplingParams:
    """The settings of drawing. Raises ApiFault."""
    if fields.stream_options is not None and not fields.stream:
        raise faults.invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options"
        )
    names = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
    given = {name: getattr(fields, name) for name in names if getattr(fields, name) is not None}
    if fields.top_k is not None:
        given["top_k"] = max(fields.top_k, 0)
    return replace(
        defaults, **given, max_tokens=max_tokens, seed=fields.seed, top_logprobs=top_logprobs,
        prompt_logprobs=prompt_logprobs,
        logit_bias=_bias(fields.logit_bias or {}), stop=_stops(fields.stop),
        stop_token_ids=tuple(fields.stop_token_ids or ()), ignore_end=bool(fields.ignore_eos),
    )  # fmt: skip


def wants_usage(fields: SamplingFields) -> bool:
    """Whether a stream ends with a chunk that counts tokens."""
    return fields.stream_options is not None and bool(fields.stream_options.include_usage)


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    found = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(found) > _MOST_STOPS:
        raise faults.invalid(f"stop has {len(found)} strings; at most {_MOST_STOPS} are looked for", "stop")
    for text in found:
        if not 1 <= len(text) <= _MOST_STOP_CHARACTERS:
            raise faults.invalid(
                f"a stop string has {len(text)} characters; expected 1 to {_MOST_STOP_CHARACTERS}", "stop"
            )
    return found


def _bias(given: dict[str, float]) -> tuple[tuple[int, float], ...]:
    found = []
    for key, value in given.items():
        if not key.isdecimal() or not key.isascii() or len(key) > 9:
            raise faults.invalid(
                f"logit_bias has the key {faults.short(key)}; expected a token id", "logit_bias"
            )
        found.append((int(key), value))
    return tuple(found)
