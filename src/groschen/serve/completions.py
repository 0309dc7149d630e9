"""`POST /v1/completions`: text or token ids in, what follows out; with `echo` and `logprobs` also what a text
is worth to the model, token by token.

Several prompts are drawn side by side. Leaves out the fields (`completions_fields.py`). Source: the OpenAI
API reference, "Completions (legacy)"; lm-eval's `local-completions` reads `token_logprobs` and
`top_logprobs`.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from groschen.records import Alternatives, Completion
from groschen.serve import fields
from groschen.serve.answer import Answer, Json, new_id, token_text, usage_json, whole_answers
from groschen.serve.completions_fields import FORM, CompletionRequest, PromptAsk, ask_of
from groschen.serve.events import Content, Finished, TokenInfo
from groschen.serve.generation import Generation, Piece, Usage, generate
from groschen.serve.host import Host, host_of
from groschen.serve.sampling_fields import wants_usage
from groschen.serve.wire import DONE, ChunkHead, Emit, EventStream, data, json_response, unless_gone
from groschen.text.stream import TextStream
from groschen.text.tokenizer import Tokenizer

PATH = "/v1/completions"


def route() -> Route:
    """The route; the host is the application's."""
    return Route(PATH, answer, methods=["POST"])


async def answer(request: Request) -> Response:
    """The endpoint."""
    body = await fields.read(request, FORM)
    host = host_of(request)
    if not body.stream:
        return json_response(await unless_gone(request, _whole(host, body)))
    opened = await unless_gone(request, _begin(host, body))
    return EventStream(_Chunks(opened, body).write, opened.close)


@dataclass(slots=True)
class _Opened:
    """The generations of one request, in the order of its prompts."""

    prompts: list[PromptAsk]
    generations: list[Generation]

    @property
    def seed(self) -> int | None:
        """The seed that repeats the answer; None where each prompt has drawn its own."""
        seeds = {each.seed for each in self.generations}
        return seeds.pop() if len(seeds) == 1 else None

    async def close(self) -> None:
        """Give up what has not ended."""
        for generation in self.generations:
            await generation.close()

    def usage(self) -> Usage:
        """Of all prompts together."""
        each = [generation.usage for generation in self.generations]
        return Usage(
            prompt_tokens=sum(one.prompt_tokens for one in each),
            cached_tokens=sum(one.cached_tokens for one in each),
            completion_tokens=sum(one.completion_tokens for one in each),
            reasoning_tokens=sum(one.reasoning_tokens for one in each),
        )


async def _begin(host: Host, body: CompletionRequest) -> _Opened:
    """Submit every prompt, or none; all of them to the same weights."""
    with host.working():
        prompts = await host.prepare(ask_of, body, host.served(body.model))
        while True:
            opened = _Opened(prompts, await _submitted(host, prompts))
            if len({each.fingerprint for each in opened.generations}) == 1:
                return opened
            await opened.close()  # the weights changed between two prompts: an answer is that of one policy


async def _submitted(host: Host, prompts: Sequence[PromptAsk]) -> list[Generation]:
    found: dict[int, Generation] = {}

    async def one(index: int) -> None:
        found[index] = await generate(host, prompts[index].ask)

    try:
        await _all([asyncio.create_task(one(index)) for index in range(len(prompts))])
    except BaseException:
        for generation in found.values():
            await generation.close()
        raise
    return [found[index] for index in range(len(prompts))]


async def _all(tasks: "Sequence[asyncio.Task[None]]") -> None:
    """Wait for all; the first that fails ends the others and is raised."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _whole(host: Host, body: CompletionRequest) -> Json:
    opened = await _begin(host, body)
    created = int(time.time())
    answers: list[list[Answer]] = [[] for _ in opened.prompts]

    async def one(index: int) -> None:
        answers[index] = await whole_answers(opened.generations[index])

    try:
        await _all([asyncio.create_task(one(index)) for index in range(len(answers))])
    finally:
        await opened.close()
    return {
        "id": new_id("cmpl"),
        "object": "text_completion",
        "created": created,
        "model": body.model,
        "choices": await asyncio.to_thread(_choices, opened, answers, body),
        "usage": usage_json(_counted(opened.usage(), body)),
        "system_fingerprint": opened.generations[0].fingerprint,
        "seed": opened.seed,
    }


def _choices(
    opened: _Opened, answers: Sequence[Sequence[Answer]], body: CompletionRequest
) -> list[msgspec.Raw]:
    """The choices as JSON, each by itself: the lists of long prompts would hold up the event loop."""
    found = []
    for index, group in enumerate(answers):
        view = _View(opened.generations[index], opened.prompts[index], body)
        for sample, whole in enumerate(group):
            choice = view.choice(index * len(group) + sample, sample, whole)
            found.append(msgspec.Raw(msgspec.json.encode(choice)))
    return found


def _counted(usage: Usage, body: CompletionRequest) -> Usage:
    """With max_tokens 0 the engine draws one token, which nobody sees."""
    if body.max_tokens != 0:
        return usage
    return Usage(
        prompt_tokens=usage.prompt_tokens, cached_tokens=usage.cached_tokens, completion_tokens=0,
        reasoning_tokens=0,
    )  # fmt: skip


class _View:
    """The choices of one prompt."""

    def __init__(self, generation: Generation, prompt: PromptAsk, body: CompletionRequest) -> None:
        self.generation, self.prompt, self.body = generation, prompt, body

    def choice(self, index: int, sample: int, whole: Answer) -> Json:
        """A whole sample."""
        assert whole.finished is not None, "a generation ends every sample"
        text, tokens, finished = "".join(whole.content), whole.tokens, whole.finished
        if self.body.max_tokens == 0:
            text, tokens, finished = "", [], Finished("length")
        logprobs = None
        if self.body.logprobs is not None:
            listing = _listing(self.generation)
            if self.body.echo:
                listing.add_prompt(self.generation.completions[sample], self.prompt.text)
            listing.add(tokens)
            logprobs = listing.json()
        return {
            "index": index,
            "text": self.prompt.text + text if self.body.echo else text,
            "logprobs": logprobs,
            "finish_reason": finished.reason,
            "stop_reason": finished.stop,
            "seed": self.generation.seed,
        }


class Listing:
    """Tokens in the form of the completions API: four lists of one length.

    Offsets count characters of the text that is returned, as if no stop string had cut it: special tokens
    that it leaves out have no width.
    """

    def __init__(self, tokenizer: Tokenizer, *, continues: bool) -> None:
        self._tokenizer, self._offset = tokenizer, 0
        self._stream = TextStream(tokenizer, continues=continues)
        self._lists: dict[str, list[object]] = {
            "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [],
        }  # fmt: skip

    def add_prompt(self, completion: Completion, text: str) -> None:
        """The prompt's tokens; nothing is before the first, so it has no logprob. text: as it is echoed."""
        ids, logprobs = completion.prompt_ids, (None, *completion.prompt_logprobs)
        alternatives: Sequence[Alternatives | None] = (None, *completion.prompt_alternatives)
        if not completion.prompt_alternatives:
            alternatives = [None] * len(ids)
        stream = TextStream(self._tokenizer, skip_special=False)
        self._offset = len(text) - len(self._tokenizer.decode(ids))  # below 0: tokens put before a text
        for token_id, logprob, others in zip(ids, logprobs, alternatives, strict=True):
            listed = () if others is None else zip(others.token_ids, others.logprobs, strict=True)
            pairs = [(self._tokenizer.token_bytes(other), value) for other, value in listed]
            self._append(self._tokenizer.token_bytes(token_id), logprob, pairs)
            self._offset += len(stream.push([token_id]))
        self._offset = len(text)

    def add(self, tokens: Sequence[TokenInfo]) -> None:
        """Tokens that were drawn, the one that ended the text included."""
        for token in tokens:
            others = [(text, value) for _, text, value in token.alternatives]
            self._append(token.text_bytes, token.logprob, others)
            if not token.is_end:
                self._offset += len(self._stream.push([token.id]))

    def json(self) -> Json:
        """The lists so far, which are begun anew."""
        lists: Json = {**self._lists}
        self._lists = {name: [] for name in self._lists}
        return lists

    def _append(self, text: bytes, logprob: float | None, others: Sequence[tuple[bytes, float]]) -> None:
        top: dict[str, float] | None = None
        if logprob is not None:
            top = {}
            for other, value in (*others, (text, logprob)):  # the drawn one, if it is none of the best
                top.setdefault(token_text(other), value)
        self._lists["tokens"].append(token_text(text))
        self._lists["token_logprobs"].append(logprob)
        self._lists["top_logprobs"].append(top)
        self._lists["text_offset"].append(max(self._offset, 0))


def _listing(generation: Generation) -> Listing:
    return Listing(generation.served.opened.text.tokenizer, continues=generation.continues_text)


class _Chunks:
    """All prompts of a request as one stream of chunks."""

    def __init__(self, opened: _Opened, body: CompletionRequest) -> None:
        self._opened, self._body = opened, body
        self._listings: dict[int, Listing] = {}
        self._head: Json = {
            "id": new_id("cmpl"),
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": opened.generations[0].fingerprint,
            "seed": opened.seed,
        }
        if wants_usage(body):
            self._head["usage"] = None

    async def write(self, emit: Emit) -> None:
        """Everything up to `[DONE]`."""
        await _all(
            [asyncio.create_task(self._one(index, emit)) for index in range(len(self._opened.prompts))]
        )
        if wants_usage(self._body):
            usage = usage_json(_counted(self._opened.usage(), self._body))
            await emit(data({**self._head, "choices": [], "usage": usage}))
        await emit(DONE)

    async def _one(self, index: int, emit: Emit) -> None:
        generation, head = self._opened.generations[index], ChunkHead(self._head)
        async for piece in generation:
            number = index * generation.ask.n + piece.sample
            await emit(head.event(self._choice(index, number, piece)))

    def _choice(self, index: int, number: int, piece: Piece) -> Json:
        generation, body = self._opened.generations[index], self._body
        text = "".join(event.text for event in piece.events if isinstance(event, Content))
        finished = next((event for event in piece.events if isinstance(event, Finished)), None)
        tokens = piece.tokens
        if body.max_tokens == 0:
            text, tokens, finished = "", (), finished and Finished("length")
        is_first = number not in self._listings
        if is_first:
            self._listings[number] = _listing(generation)
        listing = self._listings[number]
        if is_first and body.echo:
            text = self._opened.prompts[index].text + text
        if body.logprobs is not None:
            listing.add(tokens)
        return {
            "index": number,
            "text": text,
            "logprobs": listing.json() if body.logprobs is not None else None,
            "finish_reason": None if finished is None else finished.reason,
            "stop_reason": None if finished is None else finished.stop,
            "seed": generation.seed,
        }
