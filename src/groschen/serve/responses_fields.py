"""The body of `POST /v1/responses`, and what it asks for.

Leaves out the items of the input (`responses_items.py`) and the answer (`responses.py`). Source: the OpenAI
API reference, "Responses".
"""

from dataclasses import replace
from typing import Annotated, Any, Literal

from msgspec import Meta, field, to_builtins

from groschen.records import SamplingParams
from groschen.serve import faults
from groschen.serve.fields import CHANGES_NOTHING, SCHEMA_NAME, TOOL_NAME, Form, Other, Strict
from groschen.serve.generation import Ask
from groschen.serve.grammar import JsonObject as AnyObject
from groschen.serve.grammar import JsonSchema
from groschen.serve.guides import FormatAsk, check_names
from groschen.serve.responses_items import messages_of
from groschen.serve.sampling_fields import HARMLESS, Penalty
from groschen.text.messages import Message

JsonObject = dict[str, Any]  # JSON of any shape
LOGPROBS, ENCRYPTED = "message.output_text.logprobs", "reasoning.encrypted_content"

_NOT_STORED = "nothing is stored here; send the whole conversation as 'input'"


class ReasoningOptions(Strict):
    """How much to think."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None


class TextFormat(Strict, tag="text", tag_field="type"):
    """Any text."""


class JsonFormat(Strict, tag="json_object", tag_field="type"):
    """The text of a JSON object."""


class SchemaFormat(Strict, tag="json_schema", tag_field="type"):
    """JSON that a schema allows. It is always kept to, whatever `strict` says."""

    name: Annotated[str, Meta(pattern=SCHEMA_NAME)]
    schema: JsonObject
    description: str | None = None
    strict: bool | None = None


class TextOptions(Strict):
    """What the text must look like."""

    format: TextFormat | JsonFormat | SchemaFormat = field(default_factory=TextFormat)


class FunctionTool(Strict):
    """A function that the model may call; parameters: a JSON schema of its arguments."""

    type: Literal["function"]
    name: Annotated[str, Meta(pattern=TOOL_NAME)]
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class NamedTool(Strict, tag="function", tag_field="type"):
    """This function has to be called."""

    name: str


class AllowedTool(Strict):
    """One of some functions."""

    type: Literal["function"]
    name: str


class AllowedTools(Strict, tag="allowed_tools", tag_field="type"):
    """Only these functions may be called."""

    mode: Literal["auto", "required"]
    tools: list[AllowedTool]


class StreamOptions(Strict):
    """Nothing: every stream says all there is."""


class ResponsesRequest(Strict):
    """POST /v1/responses. The last six fields are not OpenAI's."""

    model: str
    input: str | list[JsonObject]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions = field(default_factory=TextOptions)
    reasoning: ReasoningOptions = field(default_factory=ReasoningOptions)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    thinking_budget: Annotated[int, Meta(ge=0)] | None = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer's text comes with the log probabilities of its tokens."""
        return LOGPROBS in (self.include or ()) or bool(self.top_logprobs)

    @property
    def wants_sealed_reasoning(self) -> bool:
        """Whether reasoning comes with `encrypted_content` too."""
        return ENCRYPTED in (self.include or ())


FORM: Form[ResponsesRequest] = Form(
    ResponsesRequest,
    {
        **{name: other for name, other in HARMLESS.items() if name != "metadata"},
        "store": Other("responses are not stored; leave it out or send false", (False,)),
        "previous_response_id": Other(_NOT_STORED),
        "conversation": Other(_NOT_STORED),
        "prompt": Other("prompt templates are not stored here; send 'input'"),
        "background": Other("a response is answered at once; send false", (False,)),
        "background_options": Other("a response is answered at once"),
        "truncation": Other("nothing is cut off in silence; shorten the input yourself", ("disabled",)),
        "context_management": Other("nothing is cut off in silence; shorten the input yourself"),
        "max_tool_calls": Other("it counts calls of built-in tools, and there are none"),
        "moderation": Other("nothing is moderated here"),
        "prompt_cache_options": Other("every prefix is cached for as long as there is room"),
        "access_programs": Other("there are none here"),
        "image": Other("the models here read and write text only"),
        "max_tokens": Other("send 'max_output_tokens'"),
        "messages": Other("send 'input'"),
        "response_format": Other("send 'text.format'"),
        "reasoning_effort": Other("send 'reasoning.effort'"),
        "stop": Other("OpenAI's API has it for /v1/chat/completions only; use that endpoint"),
        "n": Other("a response has one answer; use /v1/chat/completions", (1,)),
        "text.verbosity": Other("it has no counterpart in these models; say it in the input", ("medium",)),
        "reasoning.summary": Other("the reasoning itself is sent, as 'reasoning_text'"),
        "reasoning.generate_summary": Other("the reasoning itself is sent, as 'reasoning_text'"),
        "reasoning.context": Other("the items of the input decide it", ("auto",)),
        "reasoning.mode": Other("there is one mode", ("standard",)),
        "tools[].defer_loading": Other("every tool is shown to the model", (False,)),
        "tools[].async": Other("calls are answered by the next request", (False,)),
        "tools[].allowed_callers": Other("only the model itself calls", (["direct"],)),
        "tools[].output_schema": CHANGES_NOTHING,
    },
)


def ask_of(request: ResponsesRequest, defaults: SamplingParams) -> Ask:
    """What a request asks for. Raises ApiFault."""
    tools, choice = _tools(request)
    return Ask(
        model=request.model,
        messages=messages_of(request.input, request.instructions),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        format=_format(request.text),
        sampling=_sampling(request, defaults),
        reasoning_effort=request.reasoning.effort,
        thinking_budget=request.thinking_budget,
        is_whole=not request.stream,
    )


def _format(text: TextOptions) -> FormatAsk | None:
    match text.format:
        case JsonFormat():
            return FormatAsk(AnyObject(), "text.format")
        case SchemaFormat(schema=schema):
            return FormatAsk(JsonSchema(schema), "text.format.schema")
        case TextFormat():
            return None


def _sampling(request: ResponsesRequest, defaults: SamplingParams) -> SamplingParams:
    names = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty")
    given = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    if request.top_k is not None:
        given["top_k"] = max(request.top_k, 0)
    return replace(
        defaults,
        **given,
        max_tokens=request.max_output_tokens,
        seed=request.seed,
        top_logprobs=request.top_logprobs or 0,
    )


def _tools(request: ResponsesRequest) -> tuple[list[Message], str]:
    """The tools as chat templates expect them, and "auto", "none", "required" or a name."""
    tools, choice = request.tools or [], request.tool_choice
    check_names([tool.name for tool in tools])
    if choice in (None, "none", "auto"):
        return [_tool(tool) for tool in tools], str(choice or "auto")
    if not tools:
        raise faults.invalid("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
    names = {tool.name for tool in tools}
    wanted = [choice.name] if isinstance(choice, NamedTool) else []
    if isinstance(choice, AllowedTools):
        wanted = [each.name for each in choice.tools]
        allowed = set(wanted)
        tools = [tool for tool in tools if tool.name in allowed]
    for name in wanted:
        if name not in names:
            raise faults.invalid(f"Tool choice {faults.short(name)} is not among the tools.", "tool_choice")
    shown = [_tool(tool) for tool in tools]
    if isinstance(choice, NamedTool):
        return shown, choice.name
    return shown, choice.mode if isinstance(choice, AllowedTools) else str(choice)


def _tool(tool: FunctionTool) -> Message:
    said = {name: value for name, value in to_builtins(tool).items() if value is not None and name != "type"}
    return {"type": "function", "function": said}
