"""The frozen records that travel between the rooms.

New knowledge is a new record or a new field, never a new meaning of an old one. Leaves out: anything with
behaviour.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, Self


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

    max_tokens: int | None = None  # new tokens; None: as many as the context and the cache hold
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


class Guide(Protocol):
    """What may come next in one sample: a grammar, a budget. It knows the tokens drawn so far and nothing
    else, so a guided text is the same in any company.
    """

    def allowed(self) -> bytes | None:
        """One bit for each token, bit i % 8 of byte i // 8; beyond its end, nothing is allowed. None: all.

        Where the text may end, the end tokens are allowed. Raises GroschenError if it cannot go on, which
        ends the request and no other.
        """

    def accept(self, token_id: int) -> None:
        """Take the token that was drawn."""

    def fork(self) -> Self:
        """A guide in the same state that goes its own way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and how many completions of it are wanted."""

    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    num_completions: int = 1
    guide: Guide | None = None  # each sample goes with a fork of it
    continues_text: bool = False  # a completion goes on with the prompt's text; else it is a text of its own


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


class Split(StrEnum):
    """Which part of a task a problem belongs to. A problem never moves."""

    TRAIN = "train"
    DEV = "dev"  # looked at often: chooses the best checkpoint and the base's best prompt
    TEST = "test"  # looked at once: what the report claims


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One item of a task."""

    key: str  # stable, and unique within the task
    messages: tuple[Mapping[str, object], ...]  # the prompt as chat messages
    answer: object = None  # the reference, a JSON value; what it means is the verifier's affair
    meta: Mapping[str, object] = field(default_factory=dict)
    split: Split | None = None  # where the task's author put it; None: decided by a hash of its content


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a verifier found. `reward` is what training may shape, `passed` what reports count; neither is
    made from the other.
    """

    reward: float
    passed: bool
    # Named parts, for people and controls. Two have a meaning everywhere: "format" (the answer stood where it
    # was asked for) and "lenient" (passed if the answer may stand anywhere).
    parts: Mapping[str, float | bool | str | None] = field(default_factory=dict)
    error: str | None = None  # the verifier broke: such a rollout is neither trained nor graded
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One completion of a problem with its verdict."""

    completion: Completion
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The completions of one problem."""

    problem: Problem
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRecord:
    """One graded completion of an evaluation: a line of evaluations/*.jsonl in a run folder."""

    key: str  # of the problem
    sample: int  # 0 .. k - 1
    prompt: str  # the last user message
    text: str  # the completion
    answer: str  # the reference as text
    passed: bool
    reward: float
    parts: Mapping[str, float | bool | str | None]
    error: str | None
    num_tokens: int
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """What one span of a run took: a line of ledger.jsonl."""

    phase: str  # "generation", "verification", "training", "evaluation", "checkpoint" or "loading"
    step: int  # of the recipe; 0 before the first
    wall_s: float
    cpu_s: float
    prompt_tokens: int = 0  # computed, shared prompts once
    generated_tokens: int = 0
    trained_tokens: int = 0
    flops: float = 0.0  # by formula, see flops.py
    joules: float | None = None
    joules_method: str = "none"  # "measured", "estimated" or "none"
