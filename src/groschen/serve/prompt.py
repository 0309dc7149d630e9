"""From what a client sends to the prompt of a model: messages and switches as its template takes them.

What the template would overlook in silence (tools, a switch, a setting that it does not name) is refused by
name. Leaves out the rendering itself (`groschen.text.chat`) and the fields of an endpoint.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import msgspec
from jinja2 import Environment, ext, meta

from groschen.errors import GroschenError
from groschen.serve import faults
from groschen.serve.forms.detect import id_for_template, prompt_opens_reasoning
from groschen.serve.forms.form import Form
from groschen.serve.lengths import check_messages
from groschen.serve.served import Served
from groschen.text.messages import Message, texts
from groschen.text.sandbox_syntax import GenerationTag

Settings = Mapping[str, Any]  # JSON values
# Where a prompt leaves off: inside the reasoning, behind it, or before the model has begun anything.
# "unlikely" is the last one where nothing has told the model that it could reason.
Reasoning = Literal["open", "closed", "free", "unlikely"]

# The switches that templates know for "think" or "do not think", the first one found is used.
_SWITCHES = ("enable_thinking", "thinking")
_EFFORT = "reasoning_effort"
_BUILT_IN = (
    "raise_exception",
    "strftime_now",
    "range",
    "cycler",
    "joiner",
    "dict",
    "namespace",
)  # of the sandbox
# What a template looks for in an answer that is calls alone. One that does not ask would print None, or fail.
_ASKS_FOR_NONE = re.compile(r"content\b['\"\]]*\s*(?:is(?:\s+not)?|[!=]=)\s+[nN]one\b")
_OURS = frozenset({"messages", "tools", "add_generation_prompt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt as token ids, and where it leaves off."""

    ids: tuple[int, ...]
    reasoning: Reasoning


def prompt_of(
    served: Served, messages: Sequence[Message], tools: Sequence[Message] | None, settings: Settings
) -> Prompt:
    """Render and encode; may take long for a long conversation. Raises ApiFault."""
    check_messages(served, messages, [tools, settings])
    try:
        template = served.opened.text.chat_template()
        plain = _for_template(messages, served)
        given = tools or None
        ids = template.encode(served.opened.text.tokenizer, plain, tools=given, **settings)
        end = served.opened.text.tokenizer.decode(ids[-64:])
    except GroschenError as error:
        raise faults.fault_of(error, "messages") from error
    return Prompt(ids=tuple(ids), reasoning=_left_off(end, served, messages))


def _left_off(end: str, served: Served, messages: Sequence[Message]) -> Reasoning:
    form, tag = served.form, served.form.reasoning_open
    if prompt_opens_reasoning(end, form):
        return "open"
    if not form.has_reasoning or end.rstrip().endswith(form.reasoning_close):
        return "closed"
    is_known = len(served.opened.text.tokenizer.encode(tag)) == 1
    return (
        "free" if is_known or any(tag in text for text in texts([_sources(served), messages])) else "unlikely"
    )


def template_settings(
    served: Served, *, effort: str | None, arguments: Settings, has_tools: bool
) -> Settings:
    """The variables of the template that say how much to think, and the client's own.

    Raises ApiFault for what this model's template does not know.
    """
    known = variables(_sources(served))
    if has_tools and not served.form.can_call_tools:
        why = (
            "does not show tools to the model"
            if not served.form.shows_tools
            else "writes calls in an unknown form"
        )
        raise faults.not_honoured("tools", f"the chat template of {served.name!r} {why}")
    for name in arguments:
        if name in _OURS or name in _BUILT_IN or name not in known:
            param = f"chat_template_kwargs.{name}"
            own = {*_OURS, *_BUILT_IN, *served.opened.text.chat_template().special_tokens}
            others = ", ".join(sorted(known - own)) or "nothing of this kind"
            raise faults.not_honoured(param, f"the chat template of {served.name!r} can be told {others}")
    return {**_thought(served, known, effort), **arguments}


def can_switch_reasoning(served: Served) -> bool:
    """Whether this model's template has a switch for thinking."""
    return served.opened.text.template is not None and not variables(_sources(served)).isdisjoint(_SWITCHES)


@lru_cache(maxsize=64)
def variables(sources: tuple[str, ...]) -> frozenset[str]:
    """What templates read that they do not set themselves."""
    environment = Environment(extensions=[GenerationTag, ext.loopcontrols], autoescape=True)
    return frozenset().union(*(meta.find_undeclared_variables(environment.parse(each)) for each in sources))


def _thought(served: Served, known: frozenset[str], effort: str | None) -> Settings:
    """What the template is told of an effort: its own setting, its switch, or both."""
    if effort is None:
        return {}
    found: dict[str, object] = {_EFFORT: effort} if _EFFORT in known else {}
    switch = next((name for name in _SWITCHES if name in known), None)
    if switch is not None:
        found[switch] = effort != "none"
    if not found:
        why = f"the chat template of {served.name!r} has no switch for reasoning"
        raise faults.not_honoured(_EFFORT, why)
    return found


def _sources(served: Served) -> tuple[str, ...]:
    return tuple(served.opened.text.chat_template().sources.values())


def _for_template(messages: Sequence[Message], served: Served) -> list[Message]:
    """As templates expect it: arguments and ids of calls in their form, roles that they know."""
    sources = _sources(served)
    knows_developer = any("developer" in source for source in sources)
    nothing = None if any(map(_ASKS_FOR_NONE.search, sources)) else ""
    plain = [_message(each, i, served.form, knows_developer) for i, each in enumerate(messages)]
    for each in plain:
        if each.get("role") == "assistant" and not each.get("content"):
            each["content"] = nothing if each.get("tool_calls") else ""
    return [*plain]


def _message(message: Message, index: int, form: Form, knows_developer: bool) -> dict[str, object]:
    found = dict(message)
    if found.get("role") == "developer" and not knows_developer:
        found["role"] = (
            "system"  # OpenAI's newer word for it, which most templates would pass over in silence
        )
    if isinstance(answered := found.get("tool_call_id"), str):
        found["tool_call_id"] = id_for_template(answered, form)
    calls = found.get("tool_calls")
    if isinstance(calls, Sequence):
        found["tool_calls"] = [
            _call(call, f"messages[{index}].tool_calls[{number}]", form) for number, call in enumerate(calls)
        ]
    return found


def _call(call: Mapping[str, object], where: str, form: Form) -> Mapping[str, object]:
    function = call.get("function")
    assert isinstance(function, Mapping), "the fields were checked"
    arguments = function.get("arguments") or "{}"
    param = f"{where}.function.arguments"
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except (msgspec.DecodeError, RecursionError) as error:
            raise faults.invalid(f"{param} is not JSON: {error}", param, "invalid_value") from error
    if not isinstance(arguments, Mapping):
        raise faults.invalid(f"{param} must be the JSON of an object", param, "invalid_value")
    found = {**call, "function": {**function, "arguments": arguments}}
    if isinstance(call_id := call.get("id"), str):
        found["id"] = id_for_template(call_id, form)
    return found
