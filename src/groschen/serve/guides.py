"""What holds an answer: the format that a client asks for, calls that must be made, a budget for thinking.

Leaves out how a grammar becomes masks (`grammar.py`), how thinking is followed (`budget.py`), how a call is
written (`forms/forced.py`) and the fields that ask for all this (`formats.py`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from groschen.errors import GroschenError
from groschen.records import Guide
from groschen.serve import faults
from groschen.serve.budget import ReasoningGuide
from groschen.serve.calling import CallGuide, can_follow
from groschen.serve.events import Thinks
from groschen.serve.forms.calls import Functions
from groschen.serve.forms.forced import tool_choice_grammar
from groschen.serve.forms.form import Form
from groschen.serve.grammar import Format, Grammar, JsonObject, JsonSchema, json_rule
from groschen.serve.prompt import Reasoning
from groschen.serve.served import Served
from groschen.text.messages import Message

_MODES = ("auto", "none", "required")  # what `tool_choice` may be besides a name


@dataclass(frozen=True, slots=True)
class FormatAsk:
    """A format, and the field of the request that asks for it."""

    format: Format
    param: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What one request wants held. tool_choice: as in `Ask`; tools: those that the model is shown."""

    format: FormatAsk | None
    tools: Sequence[Message]
    tool_choice: str
    parallel: bool
    thinking_budget: int | None

    @property
    def must_call(self) -> bool:
        """Whether the answer has to be a call."""
        return self.tool_choice not in ("auto", "none")


def guide_for(served: Served, hold: Hold, reasoning: Reasoning) -> Guide | None:
    """The guide of a request; None if nothing has to be held. May take long.

    reasoning: how the prompt leaves off. Raises ApiFault for what can't be held.
    """
    then = _answer_guide(served, hold)
    if hold.thinking_budget is not None and not served.form.has_reasoning:
        why = f"the reasoning of {served.name!r} can't be told from its answer"
        raise faults.not_honoured("thinking_budget", why)
    if _never_thinks(hold, reasoning) or not served.form.has_reasoning:
        return then
    if then is None and hold.thinking_budget is None:
        return None
    try:
        tags = served.reasoning_tags()
    except GroschenError as error:
        raise faults.fault_of(error, "thinking_budget") from error
    return ReasoningGuide(tags=tags, is_open=reasoning == "open", budget=hold.thinking_budget, then=then)


def thinks(hold: Hold, reasoning: Reasoning) -> Thinks:
    """How often the text of such an answer may turn to reasoning; for the parser that reads it."""
    if hold.format is None and not hold.must_call:
        return "freely"
    return "never" if _never_thinks(hold, reasoning) else "once"


def reading_form(form: Form, hold: Hold) -> Form:
    """The form by which such an answer is read: where JSON is asked for, or calls are held to their schemas,
    an object without a marker is no call.
    """
    is_held = hold.format is not None or any(map(_is_strict, hold.tools))
    return replace(form, reads_bare=False) if is_held else form


def check_names(names: Sequence[str]) -> None:
    """Refuse tools that a call or 'tool_choice' could not tell apart. Raises ApiFault."""
    seen: set[str] = set()
    for name in names:
        if name in _MODES:
            raise faults.invalid(f"A tool can't be named {name!r}; it is a value of 'tool_choice'.", "tools")
        if name in seen:
            raise faults.invalid(f"Two tools are named {name!r}.", "tools")
        seen.add(name)


def functions_of(tools: Sequence[Message]) -> Functions:
    """The tools by name, with the JSON schema of their parameters."""
    found: dict[str, Mapping[str, object]] = {}
    for tool in tools:
        function = tool["function"]
        assert isinstance(function, Mapping), "the fields were checked"
        parameters = function.get("parameters")
        found[str(function["name"])] = parameters if isinstance(parameters, Mapping) else {}
    return found


def _never_thinks(hold: Hold, reasoning: Reasoning) -> bool:
    """Whether a guide begins with the answer.

    A mask that left the open tag possible would talk a model into reasoning that never does.
    """
    return reasoning == "closed" or (reasoning == "unlikely" and hold.thinking_budget is None)


def _answer_guide(served: Served, hold: Hold) -> Guide | None:
    """What the answer itself is held to, behind the reasoning."""
    if hold.format is not None and hold.must_call:
        raise faults.invalid(
            f"'tool_choice' demands a call and '{hold.format.param}' another form; send one of them",
            "tool_choice",
        )
    try:
        if hold.format is not None:
            wanted = _with_calls(served, hold, hold.format) if hold.tools else hold.format.format
            return served.grammars().guide(wanted)
        if hold.must_call:
            return served.grammars().guide(Grammar(_calls(served, hold, hold.tool_choice)))
        return _strict_guide(served, hold)
    except GroschenError as error:
        raise faults.fault_of(error, "tools" if hold.format is None else hold.format.param) from error


def _strict_guide(served: Served, hold: Hold) -> Guide | None:
    """Where a tool is strict, a call that the model decides to make is held to the schemas of the tools."""
    strict = next((i for i, tool in enumerate(hold.tools) if _is_strict(tool)), None)
    if strict is None:
        return None
    if not can_follow(served.form):
        why = f"where {served.name!r} begins a call can't be seen; send tool_choice 'required'"
        raise faults.not_honoured(f"tools[{strict}].function.strict", why)
    calls = served.grammars().guide(Grammar(_calls(served, hold, "required")))
    return CallGuide(served.opened.text.tokenizer, served.form, calls)


def _is_strict(tool: Message) -> bool:
    function = tool["function"]
    return isinstance(function, Mapping) and function.get("strict") is True


def _calls(served: Served, hold: Hold, choice: str) -> str:
    control = served.opened.text.tokenizer.control
    return tool_choice_grammar(
        served.form, functions_of(hold.tools), choice, parallel=hold.parallel, control=control
    )


def _with_calls(served: Served, hold: Hold, asked: FormatAsk) -> Format:
    """An answer in a format, or calls instead of it. Raises ApiFault for a grammar of the client's own."""
    match asked.format:
        case JsonObject():
            answer = json_rule({"type": "object"})
        case JsonSchema(schema):
            answer = json_rule(schema)
        case _:
            raise faults.invalid(
                f"'{asked.param}' can't be sent with tools: their calls would not match it; send one of "
                "them, or tool_choice 'none'",
                asked.param,
            )
    calls = re.sub(r"^start:", "calls:", _calls(served, hold, "required"))
    return Grammar(f"start: calls | answer\nanswer: {answer}\n{calls}")
