"""The state of one sample of a request, and of a prompt that samples wait for.

A `Prompt` is prefilled once; then its samples branch off it, as many at a time as there are free rows. A
sample that had to give up its blocks becomes a prompt again, of everything it has so far: prefilled anew it
goes on with the same bits.
"""

from dataclasses import dataclass, field
from enum import Enum, auto

from torch import Tensor

from groschen.engine.blocks import Digest
from groschen.engine.speculation import Lookup
from groschen.records import Alternatives, FinishReason, Guide, SamplingParams


class Status(Enum):
    """Where a sequence is in its life."""

    WAITING = auto()  # for its prompt or for a row
    RUNNING = auto()  # one token a step, or more where a draft holds
    FINISHED = auto()


@dataclass(eq=False, slots=True)
class Sequence:
    """One sample. `token_ids` and `logprobs` grow with each step it runs."""

    request: int  # number of the request
    sample: int  # 0 .. num_completions - 1
    arrival: int  # smaller numbers go first and are pre-empted last
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    seed: int
    max_tokens: int
    end_ids: frozenset[int]
    guide: Guide | None = None
    status: Status = Status.WAITING
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    row: int = 0  # of the block table; means something only while running
    cached_tokens: int = 0
    finish_reason: FinishReason | None = None
    stop: str | None = None
    lookup: Lookup | None = None  # made when it drafts for the first time
    draft: list[int] = field(default_factory=list)  # what this step tries behind the token drawn last

    @property
    def num_tokens(self) -> int:
        """Prompt and completion together."""
        return len(self.prompt_ids) + len(self.token_ids)

    @property
    def num_computed(self) -> int:
        """Positions whose keys and values are in the cache while it runs: all but the token drawn last."""
        return self.num_tokens - 1

    def all_ids(self) -> list[int]:
        """Prompt and completion."""
        return [*self.prompt_ids, *self.token_ids]

    def ids_from(self, position: int) -> list[int]:
        """Prompt and completion from a position on, at the price of what is returned."""
        behind = position - len(self.prompt_ids)
        return self.token_ids[behind:] if behind >= 0 else [*self.prompt_ids[position:], *self.token_ids]

    def append(self, token_id: int, logprob: float) -> None:
        """Take the token just drawn and finish if it ends the completion."""
        assert self.status is Status.RUNNING
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
        if token_id in self.end_ids:
            self.finish(FinishReason.STOP)
        elif len(self.token_ids) >= self.max_tokens:
            self.finish(FinishReason.LENGTH)
        elif self.guide is not None:
            self.guide.accept(token_id)

    def finish(self, reason: FinishReason) -> None:
        """No more tokens."""
        self.status, self.finish_reason = Status.FINISHED, reason


@dataclass(eq=False, slots=True)
class Prompt:
    """Tokens to prefill, and the samples that wait for it."""

    token_ids: list[int]
    waiting: list[Sequence]
    arrival: int
    wants_logprobs: bool = False  # of its own tokens: all are computed, none is taken from the cache
    top_logprobs: int = 0  # alternatives to report with them
    blocks: list[int] = field(default_factory=list)
    row: int = 0
    num_computed: int = 0
    num_cached: int = 0
    digests: list[Digest] | None = None  # of its full blocks, once somebody needed them
    last_hidden: Tensor | None = None  # [D], of the last token, once it is computed
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)

    @property
    def is_computed(self) -> bool:
        """Whether every token is in the cache."""
        return self.num_computed == len(self.token_ids)
