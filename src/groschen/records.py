"""The frozen records that travel between the rooms.

New knowledge is a new record or a new field, never a new meaning of an old one. Leaves out: anything with
behaviour.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"  # an end token or a stop string
    LENGTH = "length"  # max_tokens or the model's context is used up: the completion is cut, not ended
    ABORTED = "aborted"  # the client left or the engine was told to give up


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the tokens of one request are drawn. `groschen.engine.sampling.check` says which values are
    refused.
    """

    max_tokens: int | None = None  # new tokens; None: as many as the context holds
    temperature: float = 1.0  # 0 takes the most probable token
    top_k: int = 0  # keep the k most probable tokens; 0 keeps all
    top_p: float = 1.0  # keep the smallest set with at least this probability
    min_p: float = 0.0  # keep tokens with at least this share of the greatest probability
    repetition_penalty: float = (
        1.0  # divides positive and multiplies negative logits of tokens seen; CTRL, arXiv 1909.05858
    )
    presence_penalty: float = 0.0  # subtracted once from the logit of each generated token
    frequency_penalty: float = 0.0  # subtracted for each time that a token was generated
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, addend to its logit)
    stop: tuple[str, ...] = ()  # strings that end the completion and are not part of it
    stop_token_ids: tuple[int, ...] = ()  # besides the model's own end tokens
    ignore_end: bool = False  # go on after an end token until max_tokens
    seed: int | None = None  # None: drawn anew for each request, and told in the completion
    top_logprobs: int = 0  # alternatives reported for each token, 0 to 20
    prompt_logprobs: bool = False  # report the prompt's tokens too (echo)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternatives:
    """The most probable tokens at one position, the most probable first."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]  # nat, of the distribution that was sampled


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and how many completions of it are wanted."""

    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    num_completions: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the engine generated for one sample of a request.

    `logprobs` are those of the distribution that was sampled (nat, one for each token); at temperature 0, of
    temperature 1.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    policy_version: int
    seed: int
    sample: int  # 0 .. num_completions - 1
    prompt_ids: tuple[int, ...]
    cached_tokens: int  # of the prompt, taken from the prefix cache
    alternatives: tuple[Alternatives, ...] = ()  # one for each token if top_logprobs > 0
    prompt_logprobs: tuple[float, ...] = ()  # of prompt tokens 1, 2, ...; the first token has none
    prompt_alternatives: tuple[Alternatives, ...] = ()
    stop: str | None = None  # the stop string that ended it
