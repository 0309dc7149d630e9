"""`POST /v1/responses`: the stateless core of OpenAI's Responses API, whole or as a stream of events.

Every response says `store: false`: nothing is kept, a conversation is sent whole each time. Leaves out the
fields of the request (`responses_fields.py`) and the items of the answer (`responses_events.py`). Source: the
OpenAI API reference, "Responses".
"""

import secrets
import time
from typing import Any

import msgspec
from msgspec import field
from starlette.requests import Request
from starlette.responses import Response as Answer
from starlette.routing import Route

from groschen.serve import fields
from groschen.serve.faults import ApiFault, fault_of
from groschen.serve.generation import Generation, generate
from groschen.serve.host import Host, host_of
from groschen.serve.responses_events import Item, Output
from groschen.serve.responses_fields import FORM, ResponsesRequest, ask_of
from groschen.serve.wire import Emit, EventStream, json_response, unless_gone

_FEW_ITEMS = 256  # as many are looked through in the event loop itself
PATH = "/v1/responses"
Json = dict[str, Any]  # JSON of any shape
ToolChoice = str | Json


class ResponseError(msgspec.Struct):
    """Why a response failed after it had begun."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct):
    """Why a response ends early."""

    reason: str


class ResponseUsage(msgspec.Struct):
    """Tokens read and drawn."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class Response(msgspec.Struct, kw_only=True):
    """The answer: what was asked, as it was understood, and the output. seed and system_fingerprint are not
    OpenAI's: with both, the same request gives the same output again.
    """

    id: str
    created_at: int
    model: str
    object: str = "response"
    status: str = "in_progress"
    completed_at: int | None = None
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    output: list[Item] = field(default_factory=list)
    usage: ResponseUsage | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float
    top_p: float
    top_logprobs: int
    presence_penalty: float
    frequency_penalty: float
    tools: list[Json]
    tool_choice: ToolChoice
    parallel_tool_calls: bool
    text: Json
    reasoning: Json
    metadata: dict[str, str]
    background: bool = False
    max_tool_calls: int | None = None
    previous_response_id: str | None = None
    service_tier: str = "default"
    store: bool = False
    truncation: str = "disabled"
    seed: int | None = None
    system_fingerprint: str = ""


_OWN_NAMES = {"reasoning_effort": "reasoning.effort", "max_tokens": "max_output_tokens"}


def route() -> Route:
    """The route; the host is the application's."""
    return Route(PATH, answer, methods=["POST"])


async def answer(request: Request) -> Answer:
    """The endpoint."""
    body = await fields.read(request, FORM)
    host = host_of(request)
    if not body.stream:
        return json_response(await unless_gone(request, _whole(host, body)))
    view = await unless_gone(request, _begin(host, body))
    return EventStream(view.write, view.generation.close)


async def _begin(host: Host, body: ResponsesRequest) -> "_View":
    defaults = host.served(body.model).defaults
    try:
        if isinstance(body.input, str) or len(body.input) <= _FEW_ITEMS:
            return _View(await generate(host, ask_of(body, defaults)), body)
        with host.working():
            return _View(await generate(host, await host.prepare(ask_of, body, defaults)), body)
    except ApiFault as fault:
        fault.error.param = _own_name(fault.error.param)
        raise


async def _whole(host: Host, body: ResponsesRequest) -> Response:
    view = await _begin(host, body)
    generation = view.generation
    try:
        async for piece in generation:
            view.output.take(piece.events, piece.tokens)
    finally:
        await generation.close()
    view.output.close()
    view.complete()
    return view.response


class _View:
    """One generation as a response."""

    def __init__(self, generation: Generation, body: ResponsesRequest) -> None:
        self.generation = generation
        self.output = Output(
            wants_logprobs=body.wants_logprobs,
            seals_reasoning=body.wants_sealed_reasoning,
            is_streamed=bool(body.stream),
        )
        self.response = _response(generation, body)

    async def write(self, emit: Emit) -> None:
        """The whole stream."""
        output, response = self.output, self.response
        await emit(
            output.tell("response.created", response=response)
            + output.tell("response.in_progress", response=response)
        )
        try:
            async for piece in self.generation:
                if sent := output.take(piece.events, piece.tokens):
                    await emit(sent)
        except ApiFault as fault:
            await emit(self._fail(fault))
            return
        closing = output.close()
        self.complete()
        await emit(closing + output.tell(f"response.{response.status}", response=response))

    def complete(self) -> None:
        """Everything that is known at the end."""
        response, finished = self.response, self.output.finished
        is_cut = finished is not None and finished.reason == "length"
        response.status = "incomplete" if is_cut else "completed"
        response.incomplete_details = IncompleteDetails("max_output_tokens") if is_cut else None
        response.completed_at = None if is_cut else int(time.time())
        response.output = self.output.items
        response.usage = self._usage()

    def _fail(self, fault: ApiFault) -> bytes:
        closing = self.output.close()
        self.response.status = "failed"
        code = "rate_limit_exceeded" if fault.status == 429 else "server_error"
        self.response.error = ResponseError(code, fault_of(fault).error.message)
        self.response.output, self.response.usage = self.output.items, self._usage()
        return closing + self.output.tell("response.failed", response=self.response)

    def _usage(self) -> ResponseUsage:
        usage = self.generation.usage
        return ResponseUsage(
            input_tokens=usage.prompt_tokens,
            input_tokens_details={"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
            output_tokens=usage.completion_tokens,
            output_tokens_details={"reasoning_tokens": usage.reasoning_tokens},
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
        )


def _own_name(param: str | None) -> str | None:
    """A field of the chat that the request became, as it is called here."""
    if param is None:
        return None
    if param.startswith("messages"):
        return "input"
    if param.startswith("tools["):
        return param.replace(".function", "")
    return _OWN_NAMES.get(param, param)


def _response(generation: Generation, body: ResponsesRequest) -> Response:
    """The response before anything was drawn."""
    sampling = generation.ask.sampling
    tools = [{"description": None, "strict": None, **msgspec.to_builtins(tool)} for tool in body.tools or ()]
    return Response(
        id=f"resp_{secrets.token_hex(16)}",
        created_at=int(time.time()),
        model=body.model,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_logprobs=sampling.top_logprobs,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        tools=tools,
        tool_choice=_tool_choice(body),
        parallel_tool_calls=generation.ask.parallel_tool_calls,
        text={"format": msgspec.to_builtins(body.text.format), "verbosity": "medium"},
        reasoning={"effort": body.reasoning.effort, "summary": None},
        metadata=body.metadata or {},
        seed=generation.seed,
        system_fingerprint=generation.fingerprint,
    )


def _tool_choice(body: ResponsesRequest) -> ToolChoice:
    if body.tool_choice is None or isinstance(body.tool_choice, str):
        return body.tool_choice or "auto"
    said: Json = msgspec.to_builtins(body.tool_choice)
    return said
