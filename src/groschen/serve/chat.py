"""`POST /v1/chat/completions`: messages in, messages out, whole or as a stream.

A view of a `Generation`: leaves out what the fields mean (`chat_fields.py`) and how text becomes events.
Source: the OpenAI API reference, "Chat"; the names beyond it (`reasoning_content`, `reasoning`,
`stop_reason`) are those of DeepSeek and vLLM.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from groschen.serve import fields
from groschen.serve.answer import (
    Answer,
    Json,
    answer_of,
    logprobs_json,
    new_id,
    usage_json,
    whole_answers,
)
from groschen.serve.chat_fields import FORM, ChatRequest, ask_of
from groschen.serve.events import Finished, ToolBegin
from groschen.serve.generation import Generation, Piece, generate
from groschen.serve.host import Host, host_of
from groschen.serve.sampling_fields import wants_usage
from groschen.serve.wire import DONE, ChunkHead, Emit, EventStream, data, json_response, unless_gone

_FEW_MESSAGES = 256  # as many are looked through in the event loop itself
PATH = "/v1/chat/completions"


def route() -> Route:
    """The route; the host is the application's."""
    return Route(PATH, answer, methods=["POST"])


async def answer(request: Request) -> Response:
    """The endpoint."""
    body = await fields.read(request, FORM)
    host = host_of(request)
    if not body.stream:
        return json_response(await unless_gone(request, _whole(host, body)))
    generation = await unless_gone(request, _begin(host, body))
    view = _Chunks(generation, body)
    return EventStream(view.write, generation.close)


async def _begin(host: Host, body: ChatRequest) -> Generation:
    defaults = host.served(body.model).defaults
    if len(body.messages) <= _FEW_MESSAGES:
        return await generate(host, ask_of(body, defaults))
    with host.working():
        return await generate(host, await host.prepare(ask_of, body, defaults))


async def _whole(host: Host, body: ChatRequest) -> Json:
    generation = await _begin(host, body)
    created = int(time.time())
    answers = await whole_answers(generation)
    return {
        "id": new_id("chatcmpl"),
        "object": "chat.completion",
        "created": created,
        "model": body.model,
        "choices": await asyncio.to_thread(_choices, answers, bool(body.logprobs)),
        "usage": usage_json(generation.usage),
        "system_fingerprint": generation.fingerprint,
        "service_tier": "default",
        "seed": generation.seed,
    }


def _choices(answers: Sequence[Answer], wants_logprobs: bool) -> list[msgspec.Raw]:
    """The choices as JSON, each by itself: lists of log probabilities would hold up the event loop."""
    found = (_choice(index, each, wants_logprobs) for index, each in enumerate(answers))
    return [msgspec.Raw(msgspec.json.encode(choice)) for choice in found]


def _choice(index: int, answer: Answer, wants_logprobs: bool) -> Json:
    assert answer.finished is not None, "a generation ends every sample"
    content, reasoning = "".join(answer.content), "".join(answer.reasoning)
    message: Json = {
        "role": "assistant",
        "content": None if answer.calls and not content else content,
        "refusal": None,
    }
    if reasoning:
        message |= {"reasoning_content": reasoning, "reasoning": reasoning}
    if answer.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for _, call in sorted(answer.calls.items())
        ]
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs_json(answer.tokens) if wants_logprobs else None,
        "finish_reason": answer.finished.reason,
        "stop_reason": answer.finished.stop,
    }


class _Chunks:
    """One answer as a stream of chunks."""

    def __init__(self, generation: Generation, body: ChatRequest) -> None:
        self._generation, self._wants_logprobs = generation, bool(body.logprobs)
        self._wants_usage = wants_usage(body)
        self._has_begun = False
        self._head: Json = {
            "id": new_id("chatcmpl"),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": generation.fingerprint,
            "service_tier": "default",
            "seed": generation.seed,
        }
        if self._wants_usage:
            self._head["usage"] = None

    async def write(self, emit: Emit) -> None:
        """Everything up to `[DONE]`."""
        head = ChunkHead(self._head)
        async for piece in self._generation:
            if chunks := b"".join(map(head.event, self._choices(piece))):
                await emit(chunks)
        if self._wants_usage:
            await emit(data({**self._head, "choices": [], "usage": usage_json(self._generation.usage)}))
        await emit(DONE)

    def _choices(self, piece: Piece) -> Iterator[Json]:
        if not self._has_begun:
            self._has_begun = True
            # In order, whoever speaks first: the official client takes the first chunk for that of choice 0.
            for sample in range(self._generation.ask.n):
                yield _delta(sample, {"role": "assistant", "content": "", "refusal": None})
        new = answer_of(piece)
        logprobs = logprobs_json(piece.tokens) if self._wants_logprobs and piece.tokens else None
        delta = _delta_of(new, piece)
        if delta or logprobs is not None:
            yield {**_delta(piece.sample, delta), "logprobs": logprobs}
        if new.finished is not None:
            yield _last(piece.sample, new.finished)


def _delta_of(new: Answer, piece: Piece) -> Json:
    delta: Json = {}
    if new.reasoning:
        reasoning = "".join(new.reasoning)
        delta |= {"reasoning_content": reasoning, "reasoning": reasoning}
    if new.content:
        delta["content"] = "".join(new.content)
    if new.calls:
        begun = {event.index for event in piece.events if isinstance(event, ToolBegin)}
        delta["tool_calls"] = [
            {"index": index, "id": call.id, "type": "function",
             "function": {"name": call.name, "arguments": call.arguments}}
            if index in begun
            else {"index": index, "function": {"arguments": call.arguments}}
            for index, call in new.calls.items()
        ]  # fmt: skip
    return delta


def _delta(sample: int, delta: Json) -> Json:
    return {"index": sample, "delta": delta, "logprobs": None, "finish_reason": None}


def _last(sample: int, finished: Finished) -> Json:
    return {**_delta(sample, {}), "finish_reason": finished.reason, "stop_reason": finished.stop}
