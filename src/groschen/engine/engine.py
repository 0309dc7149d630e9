"""The engine: requests in, completions out, with the very module object that a trainer holds.

One step is schedule, run, draw, take; drawing and taking alternate along the tokens of a draft, each one
drawn from its own logits as if it were alone, until the draft and the draw part. There is no weight transfer:
after an update the trainer calls `weights_changed`, and every older prefix is out of reach. Leaves out who
decides (`scheduler.py`), tensors (`runner.py`), masks (`guide.py`) and the arithmetic of drawing
(`sampling.py`).
"""

from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

import torch
from torch import Tensor

from groschen import heap
from groschen.engine import memory, sampling
from groschen.engine.blocks import BlockPool
from groschen.engine.guide import restrict
from groschen.engine.noise import fresh_seed
from groschen.engine.prompt_logprobs import score_chunk
from groschen.engine.runner import Runner, StepOutput
from groschen.engine.scheduler import Scheduler
from groschen.engine.sequence import Prompt, Sequence, Status
from groschen.errors import BadRequest, GroschenError
from groschen.model.kvcache import KEYS_PER_BLOCK
from groschen.model.transformer import Transformer, check_context
from groschen.records import Alternatives, Completion, FinishReason, Guide, Request
from groschen.text.stream import TextStream
from groschen.text.tokenizer import Tokenizer
from groschen.work_sizes import work_sizes

_MOST_SPECULATED = 32  # beyond, a guess costs more than it can bring on any CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What an engine may take of the machine; None: as suits the device (work_sizes.py)."""

    max_rows: int | None = None  # samples that decode together
    chunk_tokens: int | None = None  # prompt tokens of one step
    cache_bytes: int | None = None  # of the key/value cache; None: planned from the memory that is free
    has_prefix_cache: bool = True
    speculate: int = 0  # the most tokens guessed of one sample, while at most 4 decode; changes no text

    def __post_init__(self) -> None:
        """Raises BadRequest if a setting is out of its range."""
        for name, value in (("max_rows", self.max_rows), ("chunk_tokens", self.chunk_tokens)):
            if value is not None and value < 1:
                raise BadRequest(f"{name} must be 1 or more, found {value}")
        if not 0 <= self.speculate <= _MOST_SPECULATED:
            found = self.speculate
            raise BadRequest(f"speculate must be a whole number from 0 to {_MOST_SPECULATED}, found {found}")


@dataclass(frozen=True, slots=True)
class Progress:
    """What one step added to one sample: tokens, text that is safe to show, and the completion once it has
    ended. A step adds several tokens where a guess was right.
    """

    request: int
    sample: int
    token_ids: tuple[int, ...]
    text: str
    completion: Completion | None
    logprobs: tuple[float, ...] = ()  # one for each token
    alternatives: tuple[Alternatives, ...] = ()  # one for each token if top_logprobs > 0
    error: GroschenError | None = None  # the whole request cannot go on and is forgotten; nothing follows


@dataclass(slots=True)
class _Open:
    """A request in the engine."""

    request: Request
    seed: int
    prompt: Prompt
    streams: dict[int, TextStream] = field(default_factory=dict)
    shown: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class _News:
    """What a step adds to one sample, while it is drawn."""

    sequence: Sequence
    row: int  # of the logits, for the next token
    start: int  # tokens that it had before
    text: str = ""
    completion: Completion | None = None
    error: GroschenError | None = None

    @property
    def ended(self) -> bool:
        return self.completion is not None or self.error is not None

    def progress(self) -> Progress:
        sequence, start = self.sequence, self.start
        return Progress(
            sequence.request, sequence.sample, tuple(sequence.token_ids[start:]), self.text, self.completion,
            tuple(sequence.logprobs[start:]), tuple(sequence.alternatives[start:]), self.error,
        )  # fmt: skip


class Engine:
    """Generates with `model`, which it shares with whoever trains it.

    Not thread-safe: one thread calls it.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, config: EngineConfig | None = None) -> None:
        self.model, self.tokenizer, self.config = model, tokenizer, config or EngineConfig()
        model.pack()
        if model.device.type == "cpu":
            heap.keep_freed_memory()  # a step's logits alone are 39 MB for 64 rows of a vocabulary of 152 k
        sizes = work_sizes(model.device)
        self.max_rows = self.config.max_rows or sizes.max_rows
        self.chunk_tokens = self.config.chunk_tokens or sizes.chunk_tokens
        num_blocks = memory.plan_blocks(model, self.max_rows, self.config.cache_bytes)
        self.pool = BlockPool(num_blocks)
        self.scheduler = Scheduler(
            self.pool, self.max_rows, self.chunk_tokens, self.config.speculate,
            has_prefix_cache=self.config.has_prefix_cache,
        )  # fmt: skip
        self.runner = Runner(model, num_blocks, self.max_rows)
        self.policy_version = 0
        self.num_drafted = self.num_accepted = 0  # tokens that were guessed, and that were right
        self._open: dict[int, _Open] = {}
        self._num_requests = 0
        ends = frozenset(model.config.eos_ids) | frozenset(tokenizer.eos_ids)
        # Files also write -1, or an id of a larger vocabulary, for "none": such a token is never drawn.
        self.end_ids = frozenset(i for i in ends if 0 <= i < model.config.vocab_size)
        self._set_salt()

    # -- requests
    # -----------------------------------------------------------------------------------------------------

    def add(self, request: Request) -> int:
        """Queue a request and return its number.

        Raises BadRequest or DoesNotFit before anything is queued.
        """
        sampling.check(request.sampling, self.model.config.vocab_size)
        self._check_prompt(request)
        params = request.sampling
        most = min(self.model.config.max_context, self.pool.num_blocks * KEYS_PER_BLOCK)
        room = max(most - len(request.prompt_ids), 1)
        max_tokens = room if params.max_tokens is None else params.max_tokens
        check_context(self.model.config, len(request.prompt_ids) + max_tokens)
        number, seed = self._num_requests, fresh_seed() if params.seed is None else params.seed
        ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_end else self.end_ids)
        samples = [
            Sequence(
                number, i, number, request.prompt_ids, params, seed, max_tokens, ends, _fork(request.guide)
            )
            for i in range(request.num_completions)
        ]
        prompt = Prompt(
            list(request.prompt_ids), samples, number, wants_logprobs=params.prompt_logprobs,
            top_logprobs=params.top_logprobs,
        )  # fmt: skip
        self.scheduler.add(prompt)
        opened = _Open(request, seed, prompt)
        for sample in range(request.num_completions):
            opened.streams[sample] = TextStream(self.tokenizer, params.stop, continues=request.continues_text)
            opened.shown[sample] = ""
        self._open[number] = opened
        self._num_requests += 1
        return number

    def _check_prompt(self, request: Request) -> None:
        if not request.prompt_ids:
            raise BadRequest("the prompt is empty; give at least one token")
        if request.num_completions < 1:
            raise BadRequest(f"num_completions must be 1 or more, found {request.num_completions}")
        lowest, highest = min(request.prompt_ids), max(request.prompt_ids)
        if lowest < 0 or highest >= self.model.config.vocab_size:
            bad = lowest if lowest < 0 else highest
            raise BadRequest(f"token id {bad} is not in the vocabulary of {self.model.config.vocab_size}")

    def abort(self, request: int) -> None:
        """Forget a request; nothing more is reported of it. An unknown or finished one is no error."""
        self.scheduler.abort(request)
        self._open.pop(request, None)

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return self.scheduler.is_idle

    def weights_changed(self, policy_version: int) -> None:
        """The parameters have new values: pack them and make every cached prefix unreachable.

        Raises BadRequest while requests are open: one completion has one policy.
        """
        if not self.is_idle:
            raise BadRequest("the weights changed while requests were open; finish or abort them first")
        self.policy_version = policy_version
        self.model.pack()
        self.pool.forget_all()
        self._set_salt()

    def _set_salt(self) -> None:
        self.scheduler.salt = f"weights {self.policy_version}".encode()

    # -- steps
    # --------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def step(self) -> list[Progress]:
        """Schedule, run, draw, take. Returns what is new, for each sample that drew a token.

        If it raises, a KeyboardInterrupt too, every open request is forgotten: some of their samples have
        gone on and some have not, and part of what the step was to write is missing.
        """
        try:
            progress = self._step()
            if self.is_idle and self.model.device.type == "cpu":
                heap.give_back_if_short()
            return progress
        except BaseException:
            self._open.clear()
            self.scheduler.reset()
            raise

    def _step(self) -> list[Progress]:
        plan = self.scheduler.schedule()
        if plan.is_empty:
            assert self.is_idle, "requests are open and none of them can go on"
            return []
        output = self.runner.run(plan)
        self.scheduler.ran(plan)
        for chunk, hidden_TD in output.echoed:
            score_chunk(self.model, chunk, hidden_TD)
        return self._take(output) if output.sequences else []

    def _take(self, output: StepOutput) -> list[Progress]:
        """Draw for every sample; then again for those whose draft was right so far, until none is."""
        news = [
            _News(sequence, row, len(sequence.token_ids))
            for sequence, row in zip(output.sequences, output.firsts, strict=True)
        ]
        turn = news
        while turn := self._guided(output, turn):
            logits_RV = _rows(output.logits_RV, [each.row for each in turn])
            drawn = sampling.draw(self.model.kit.operations, logits_RV, [each.sequence for each in turn])
            for index, each in enumerate(turn):
                if (alternatives := drawn.alternatives[index]) is not None:
                    each.sequence.alternatives.append(alternatives)
                each.sequence.append(drawn.token_ids[index], drawn.logprobs[index])
                self._show(each)
            turn = [each for each in turn if _is_right(each)]
            for each in turn:
                each.row += 1
        self._count(news)
        return [each.progress() for each in news if each.ended or each.sequence.request in self._open]

    def _guided(self, output: StepOutput, turn: list[_News]) -> list[_News]:
        """Mask the rows of samples that have a guide. A guide that cannot go on ends its request; returns who
        is left.
        """
        guides = [each.sequence.guide for each in turn]
        for index, error in restrict(output.logits_RV, [each.row for each in turn], guides).items():
            if turn[index].sequence.request in self._open:
                turn[index].error = error
                self.abort(turn[index].sequence.request)
        return [each for each in turn if each.sequence.request in self._open]

    def _count(self, news: list[_News]) -> None:
        """What became of the drafts."""
        for each in news:
            sequence = each.sequence
            if sequence.draft and sequence.lookup is not None:
                accepted = max(len(sequence.token_ids) - each.start - 1, 0)
                self.num_drafted += len(sequence.draft)
                self.num_accepted += accepted
                sequence.lookup.learn(len(sequence.draft), accepted)
                sequence.draft = []

    def _show(self, news: _News) -> None:
        """Text of the newest token, and the completion if it was the last."""
        sequence = news.sequence
        opened, sample = self._open[sequence.request], sequence.sample
        stream, newest = opened.streams[sample], sequence.token_ids[-1:]
        is_end = sequence.status is Status.FINISHED and newest[0] in sequence.end_ids
        text = "" if is_end else stream.push(newest)
        if stream.stopped is not None and not is_end:
            sequence.stop = stream.stopped
            sequence.finish(FinishReason.STOP)
        if sequence.status is Status.FINISHED and stream.stopped is None:
            text += stream.finish()
        news.text += text
        opened.shown[sample] += text
        if sequence.status is Status.FINISHED:
            self.scheduler.retire(sequence)
            news.completion = self._completion(sequence, opened)

    def _completion(self, sequence: Sequence, opened: _Open) -> Completion:
        assert sequence.finish_reason is not None
        text = opened.shown.pop(sequence.sample)
        del opened.streams[sequence.sample]
        if not opened.streams:
            del self._open[sequence.request]
        return Completion(
            token_ids=tuple(sequence.token_ids), logprobs=tuple(sequence.logprobs), text=text,
            finish_reason=sequence.finish_reason, policy_version=self.policy_version, seed=sequence.seed,
            sample=sequence.sample, prompt_ids=sequence.prompt_ids, cached_tokens=sequence.cached_tokens,
            alternatives=tuple(sequence.alternatives), stop=sequence.stop,
            prompt_logprobs=tuple(opened.prompt.logprobs),
            prompt_alternatives=tuple(opened.prompt.alternatives),
        )  # fmt: skip

    # -- whole requests
    # -----------------------------------------------------------------------------------------------

    def generate(self, requests: Items[Request]) -> list[list[Completion]]:
        """All completions of all requests, in the order of the requests and of their samples.

        Raises BadRequest if others are open, and whatever one of these is refused for or ended by; then none
        of them goes on.
        """
        self._check_idle()
        found: dict[int, dict[int, Completion]] = {}
        try:
            for request in requests:
                found[self.add(request)] = {}
            while not self.is_idle:
                for progress in self.step():
                    if progress.error is not None:
                        raise progress.error
                    if progress.completion is not None:
                        found[progress.request][progress.sample] = progress.completion
        except BaseException:
            for number in found:
                self.abort(number)
            raise
        return [[samples[sample] for sample in sorted(samples)] for samples in found.values()]

    def stream(self, request: Request) -> Iterator[Progress]:
        """What is new of one request, step by step. Leaving the loop early aborts it.

        Raises BadRequest if others are open.
        """
        self._check_idle()
        number = self.add(request)
        try:
            while number in self._open:
                for progress in self.step():
                    if progress.request == number:
                        if progress.error is not None:
                            raise progress.error
                        yield progress
        finally:
            self.abort(number)

    def _check_idle(self) -> None:
        if not self.is_idle:
            raise BadRequest(
                "other requests are open, and what is new of them would be lost; finish or abort them first, "
                "or take all of them through add and step"
            )


def _fork(guide: Guide | None) -> Guide | None:
    return None if guide is None else guide.fork()


def _rows(logits_RV: Tensor, rows: list[int]) -> Tensor:
    """These rows of the logits: as they are if it is all of them."""
    if rows == list(range(len(logits_RV))):
        return logits_RV
    return logits_RV[torch.tensor(rows, device=logits_RV.device)]


def _is_right(news: _News) -> bool:
    """Whether the token just drawn is the one that was guessed: then the next row of logits counts too."""
    sequence, accepted = news.sequence, len(news.sequence.token_ids) - news.start
    return (
        sequence.status is Status.RUNNING
        and accepted <= len(sequence.draft)
        and sequence.token_ids[-1] == sequence.draft[accepted - 1]
    )
