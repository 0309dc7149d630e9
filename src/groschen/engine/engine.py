"""The engine: requests in, completions out, with the very module object that a trainer holds.

One step is schedule, run, draw, take. There is no weight transfer: after an update the trainer calls
`weights_changed`, and every older prefix is out of reach. Leaves out who decides (`scheduler.py`), tensors
(`runner.py`) and the arithmetic of drawing (`sampling.py`).
"""

from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

import torch

from groschen.engine import memory, sampling
from groschen.engine.blocks import BlockPool
from groschen.engine.noise import fresh_seed
from groschen.engine.prompt_logprobs import score_chunk
from groschen.engine.runner import Runner, StepOutput
from groschen.engine.scheduler import Scheduler
from groschen.engine.sequence import Prompt, Sequence, Status
from groschen.errors import BadRequest
from groschen.model.transformer import Transformer, check_context
from groschen.records import Completion, FinishReason, Request
from groschen.text.stream import TextStream
from groschen.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What an engine may take of the machine."""

    max_rows: int = 64  # samples that decode together; a 0.5B model on two cores gains little beyond
    chunk_tokens: int = 512  # prompt tokens of one step: bounds how long decoding rows wait for a prefill
    cache_bytes: int | None = None  # of the key/value cache; None: planned from the memory that is free
    has_prefix_cache: bool = True


@dataclass(frozen=True, slots=True)
class Progress:
    """What one step added to one sample: text that is safe to show, and the completion once it has ended."""

    request: int
    sample: int
    token_ids: tuple[int, ...]
    text: str
    completion: Completion | None


@dataclass(slots=True)
class _Open:
    """A request in the engine."""

    request: Request
    seed: int
    prompt: Prompt
    streams: dict[int, TextStream] = field(default_factory=dict)
    shown: dict[int, str] = field(default_factory=dict)


class Engine:
    """Generates with `model`, which it shares with whoever trains it.

    Not thread-safe: one thread calls it.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, config: EngineConfig | None = None) -> None:
        self.model, self.tokenizer, self.config = model, tokenizer, config or EngineConfig()
        model.pack()
        num_blocks = memory.plan_blocks(model, self.config.max_rows, self.config.cache_bytes)
        self.pool = BlockPool(num_blocks)
        self.scheduler = Scheduler(self.pool, self.config.max_rows, self.config.chunk_tokens)
        self.runner = Runner(model, num_blocks, self.config.max_rows)
        self.policy_version = 0
        self._open: dict[int, _Open] = {}
        self._num_requests = 0
        self._end_ids = frozenset(model.config.eos_ids) | frozenset(tokenizer.eos_ids)
        self._set_salt()

    # -- requests
    # -----------------------------------------------------------------------------------------------------

    def add(self, request: Request) -> int:
        """Queue a request and return its number.

        Raises BadRequest or DoesNotFit before anything is queued.
        """
        sampling.check(request.sampling, self.model.config.vocab_size)
        self._check_prompt(request)
        params, room = request.sampling, self.model.config.max_context - len(request.prompt_ids)
        max_tokens = max(room, 1) if params.max_tokens is None else params.max_tokens
        check_context(self.model.config, len(request.prompt_ids) + max_tokens)
        number, seed = self._num_requests, fresh_seed() if params.seed is None else params.seed
        ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_end else self._end_ids)
        samples = [
            Sequence(number, i, number, request.prompt_ids, params, seed, max_tokens, ends)
            for i in range(request.num_completions)
        ]
        prompt = Prompt(
            list(request.prompt_ids), samples, number, wants_logprobs=params.prompt_logprobs,
            is_cacheable=self.config.has_prefix_cache and not params.prompt_logprobs,
            top_logprobs=params.top_logprobs,
        )  # fmt: skip
        self.scheduler.add(prompt)
        opened = _Open(request, seed, prompt)
        for sample in range(request.num_completions):
            opened.streams[sample] = TextStream(self.tokenizer, params.stop)
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
        """Schedule, run, draw, take. Returns what is new, for each sample that drew a token."""
        plan = self.scheduler.schedule()
        if plan.is_empty:
            assert self.is_idle, "requests are open and none of them can go on"
            return []
        output = self.runner.run(plan)
        for chunk, hidden_TD in output.echoed:
            score_chunk(self.model, chunk, hidden_TD)
        return self._take(output) if output.sequences else []

    def _take(self, output: StepOutput) -> list[Progress]:
        drawn = sampling.draw(self.model.kit.operations, output.logits_RV, output.sequences)
        progress = []
        for index, sequence in enumerate(output.sequences):
            if (alternatives := drawn.alternatives[index]) is not None:
                sequence.alternatives.append(alternatives)
            sequence.append(drawn.token_ids[index], drawn.logprobs[index])
            progress.append(self._show(sequence))
        return progress

    def _show(self, sequence: Sequence) -> Progress:
        """Text of the newest token, and the completion if it was the last."""
        opened, sample = self._open[sequence.request], sequence.sample
        stream, newest = opened.streams[sample], sequence.token_ids[-1:]
        is_end = sequence.status is Status.FINISHED and newest[0] in sequence.end_ids
        # An embedding may have more rows than the vocabulary has words; such a token has no text.
        text = "" if is_end or newest[0] >= self.tokenizer.vocab_size else stream.push(newest)
        if stream.stopped is not None and not is_end:
            sequence.stop = stream.stopped
            sequence.finish(FinishReason.STOP)
        completion = None
        if sequence.status is Status.FINISHED:
            if stream.stopped is None:
                text += stream.finish()
            opened.shown[sample] += text
            self.scheduler.retire(sequence)
            completion = self._completion(sequence, opened)
        else:
            opened.shown[sample] += text
        return Progress(sequence.request, sample, tuple(newest), text, completion)

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
        """All completions of all requests, in the order of the requests and of their samples."""
        numbers = [self.add(request) for request in requests]
        found: dict[int, dict[int, Completion]] = {number: {} for number in numbers}
        try:
            while any(len(found[n]) < r.num_completions for n, r in zip(numbers, requests, strict=True)):
                for progress in self.step():
                    if progress.completion is not None and progress.request in found:
                        found[progress.request][progress.sample] = progress.completion
        except BaseException:
            for number in numbers:
                self.abort(number)
            raise
        return [[found[number][sample] for sample in sorted(found[number])] for number in numbers]

    def stream(self, request: Request) -> Iterator[Progress]:
        """What is new of one request, step by step. Leaving the loop early aborts it."""
        number = self.add(request)
        left = request.num_completions
        try:
            while left:
                for progress in self.step():
                    if progress.request == number:
                        left -= progress.completion is not None
                        yield progress
        finally:
            self.abort(number)
