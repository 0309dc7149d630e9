"""The body of a chat request, and what it asks for.

Leaves out the answer (`chat.py`) and what only the model can say: its context, its template, its vocabulary.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from groschen.records import SamplingParams
from groschen.serve import faults
from groschen.serve.fields import CHANGES_NOTHING, TOOL_NAME, Form, Other, Strict
from groschen.serve.formats import GuidedFields, ResponseFormat, format_of
from groschen.serve.generation import Ask
from groschen.serve.guides import check_names
from groschen.serve.sampling_fields import HARMLESS, sampling_of
from groschen.text.messages import Message

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
Budget = Annotated[int, Meta(ge=0)]
JsonObject = dict[str, Any]


class TextPart(Strict):
    """A piece of a content; the only kind that these models read."""

    type: str
    text: str | None = None


Content = str | list[TextPart]


class FunctionCall(Strict):
    """A tool's name and its arguments as JSON text; nothing stands for no arguments."""

    name: str
    arguments: str | None = None


class ToolCall(Strict, kw_only=True):
    """A call that the model made in an earlier turn."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class SystemMessage(Strict, tag_field="role", tag="system"):
    """What the model is told first."""

    content: Content
    name: str | None = None


class DeveloperMessage(Strict, tag_field="role", tag="developer"):
    """OpenAI's newer word for the system."""

    content: Content
    name: str | None = None


class UserMessage(Strict, tag_field="role", tag="user"):
    """What somebody says."""

    content: Content
    name: str | None = None


class AssistantMessage(Strict, tag_field="role", tag="assistant"):
    """What the model said."""

    content: Content | None = None
    tool_calls: list[ToolCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    name: str | None = None


class ToolMessage(Strict, tag_field="role", tag="tool"):
    """What a tool answered."""

    content: Content
    tool_call_id: str | None = None
    name: str | None = None


ChatMessage = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Function(Strict):
    """A tool that the model may call. parameters: a JSON schema of its arguments."""

    name: Annotated[str, Meta(pattern=TOOL_NAME)]
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class Tool(Strict):
    """OpenAI's wrapping of a function."""

    type: Literal["function"]
    function: Function


class NamedFunction(Strict):
    """The name of a tool."""

    name: str


class NamedTool(Strict):
    """This tool has to be called."""

    type: Literal["function"]
    function: NamedFunction


class ChatRequest(GuidedFields, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    thinking_budget: Budget | None = None
    thinking_token_budget: Budget | None = None  # vLLM's name for it
    chat_template_kwargs: JsonObject | None = None


_ONLY_TEXT = Other("the models here read text only; send parts of the type 'text'")

FORM: Form[ChatRequest] = Form(
    ChatRequest,
    {
        **HARMLESS,
        "verbosity": Other("it has no counterpart in these models; say it in the messages", ("medium",)),
        "modalities": Other("the models here write text only; send ['text']", (["text"],)),
        "audio": Other("the models here write text only"),
        "prediction": Other("answers are drawn without a prediction"),
        "web_search_options": Other("this server does not search the web; give the model a tool for it"),
        "functions": Other("it was replaced; send 'tools'"),
        "function_call": Other("it was replaced; send 'tool_choice'"),
        "moderation": Other("nothing is moderated here"),
        "messages[].content[].image_url": _ONLY_TEXT,
        "messages[].content[].input_audio": _ONLY_TEXT,
        "messages[].content[].file": _ONLY_TEXT,
        "messages[].content[].refusal": Other("send it as a part of the type 'text'"),
        "messages[].content[].cache_control": CHANGES_NOTHING,
        "messages[].content[].prompt_cache_breakpoint": CHANGES_NOTHING,
        "messages[].audio": Other("the models here write text only"),
        "messages[].annotations": CHANGES_NOTHING,
        "messages[].function_call": Other("it was replaced; send 'tool_calls'"),
        # What the official client's helpers add to an answer that is sent back.
        "messages[].parsed": CHANGES_NOTHING,
        "messages[].tool_calls[].function.parsed_arguments": CHANGES_NOTHING,
        "messages[].tool_calls[].index": CHANGES_NOTHING,
    },
)


def ask_of(request: ChatRequest, defaults: SamplingParams) -> Ask:
    """What a request asks for. Raises ApiFault."""
    wants_logprobs = bool(request.logprobs)
    if request.top_logprobs and not wants_logprobs:
        raise faults.invalid("'top_logprobs' is only allowed when 'logprobs' is true.", "top_logprobs")
    sampling = sampling_of(
        request,
        defaults,
        max_tokens=_max_tokens(request),
        top_logprobs=request.top_logprobs or 0,
    )
    tools = request.tools or []
    check_names([tool.function.name for tool in tools])
    return Ask(
        model=request.model, messages=[_message(each, i) for i, each in enumerate(request.messages)],
        tools=[_tool(tool) for tool in tools], tool_choice=_tool_choice(request),
        parallel_tool_calls=request.parallel_tool_calls is not False,
        format=format_of(request.response_format, request), sampling=sampling, n=request.n or 1,
        reasoning_effort=request.reasoning_effort, thinking_budget=_budget(request),
        template_arguments=request.chat_template_kwargs or {}, is_whole=not request.stream,
        wants_tokens=wants_logprobs,
    )  # fmt: skip


def _max_tokens(request: ChatRequest) -> int | None:
    old, new = request.max_tokens, request.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise faults.invalid(
            "'max_tokens' and 'max_completion_tokens' differ; send one of them", "max_tokens"
        )
    if old == 0:
        raise faults.invalid(
            "Invalid 'max_tokens': expected 1 or more; found 0.", "max_tokens", "integer_below_min_value"
        )
    return old if new is None else new


def _budget(request: ChatRequest) -> int | None:
    ours, theirs = request.thinking_budget, request.thinking_token_budget
    if ours is not None and theirs is not None and ours != theirs:
        raise faults.invalid(
            "'thinking_budget' and 'thinking_token_budget' differ; send one of them", "thinking_budget"
        )
    return theirs if ours is None else ours


def _tool_choice(request: ChatRequest) -> str:
    """One of auto, none and required, or the name of the one tool that must be called."""
    choice = request.tool_choice
    if choice is None or choice == "none":
        return choice or "auto"
    names = [tool.function.name for tool in request.tools or ()]
    if not names:
        raise faults.invalid("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
    if not isinstance(choice, NamedTool):
        return choice
    if choice.function.name not in names:
        raise faults.invalid(
            f"Tool choice {faults.short(choice.function.name)} is not among the tools.", "tool_choice"
        )
    return choice.function.name


def _tool(tool: Tool) -> Message:
    """As chat templates expect it: without what was not said."""
    found: dict[str, object] = msgspec.to_builtins(tool.function)
    return {
        "type": "function",
        "function": {name: value for name, value in found.items() if value is not None},
    }


def _message(message: ChatMessage, index: int) -> Message:
    """As chat templates expect it: contents as texts, fields that were left out are not there."""
    found: dict[str, object] = {
        name: value for name, value in msgspec.to_builtins(message).items() if value is not None
    }
    content = message.content
    if isinstance(content, list):
        found["content"] = "\n".join(
            _text(part, f"messages[{index}].content[{number}]") for number, part in enumerate(content)
        )
    if isinstance(message, AssistantMessage):
        _check_assistant(message, index)
        found.setdefault("content", None)
        found.pop("reasoning", None)
        if thought := message.reasoning_content or message.reasoning:
            found["reasoning_content"] = thought
        if found.pop("refusal", None) is not None and content is None:
            found["content"] = message.refusal
    return found


def _check_assistant(message: AssistantMessage, index: int) -> None:
    if message.content is None and not message.tool_calls and message.refusal is None:
        param = f"messages[{index}].content"
        raise faults.invalid(f"'{param}' may only be left out beside 'tool_calls'.", param)


def _text(part: TextPart, where: str) -> str:
    if part.type != "text":
        why = f"the models here read text only, found a part of the type {faults.short(part.type)}"
        raise faults.not_honoured(f"{where}.type", why)
    if part.text is None:
        raise faults.invalid(
            f"Missing required parameter: '{where}.text'.", f"{where}.text", "missing_required_parameter"
        )
    return part.text
