"""The items of a response's input as the messages of a chat.

Items that one answer consists of (reasoning, message, function calls) become one assistant message again.
Leaves out what a chat template makes of the messages.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Literal

from groschen.serve import faults, fields
from groschen.serve.fields import CHANGES_NOTHING, Form, Other, Strict
from groschen.text.messages import Message

JsonObject = dict[str, Any]

_SEAL = "groschen:"  # what our `encrypted_content` begins with; see `sealed`
_OWN = {
    "id": CHANGES_NOTHING,
    "status": CHANGES_NOTHING,
    "caller": Other("only the model itself calls"),
    "namespace": Other("tools have no namespaces here"),
    "async": Other("calls are answered by the next request", (False,)),
    "async_": Other(
        "calls are answered by the next request", (False,)
    ),  # as the client's model_dump spells it
}


class Part(Strict):
    """A piece of a content. Only text is read."""

    type: str
    text: str | None = None
    refusal: str | None = None


class MessageItem(Strict):
    """What somebody said."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    type: Literal["message"] = "message"


class FunctionCallItem(Strict):
    """A call that the model made; arguments: JSON text."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class FunctionOutputItem(Strict):
    """What the function answered."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[Part]


class ReasoningText(Strict):
    """A piece of reasoning."""

    type: Literal["reasoning_text", "text"]
    text: str


class ReasoningItem(Strict):
    """What the model thought."""

    type: Literal["reasoning"]
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None


_PARTS = {
    "annotations": CHANGES_NOTHING,
    "parsed": CHANGES_NOTHING,  # this and `parsed_arguments` are added by the official client's `parse`
    "logprobs": CHANGES_NOTHING,
    "prompt_cache_breakpoint": CHANGES_NOTHING,
}
_MESSAGE: Form[MessageItem] = Form(
    MessageItem,
    {**_OWN, "phase": CHANGES_NOTHING, **{f"content[].{name}": other for name, other in _PARTS.items()}},
)
_CALL: Form[FunctionCallItem] = Form(FunctionCallItem, {**_OWN, "parsed_arguments": CHANGES_NOTHING})
_OUTPUT: Form[FunctionOutputItem] = Form(
    FunctionOutputItem,
    {**_OWN, "name": CHANGES_NOTHING, **{f"output[].{name}": other for name, other in _PARTS.items()}},
)
_REASONING: Form[ReasoningItem] = Form(
    ReasoningItem, {**_OWN, "summary": Other("send the reasoning itself as 'content'", ([],))}
)
_TEXTS = frozenset({"input_text", "output_text", "text", "refusal"})


def messages_of(given: str | list[JsonObject], instructions: str | None) -> list[Message]:
    """The chat that an input is. Raises ApiFault; the items are used up."""
    conversation = _Conversation(instructions)
    if isinstance(given, str):
        conversation.messages.append({"role": "user", "content": given})
    elif not given:
        raise faults.invalid("Invalid 'input': it has no items; send at least one.", "input")
    else:
        for index, item in enumerate(given):
            conversation.add(item, index)
    return conversation.messages


def sealed(reasoning: str) -> str:
    """Reasoning as `encrypted_content`, for clients that send only this field back.

    It is encoded, not encrypted: the client has the same text beside it.
    """
    return _SEAL + base64.urlsafe_b64encode(reasoning.encode()).decode()


class _Conversation:
    """Messages so far. The last assistant message takes in what belongs to the same answer."""

    def __init__(self, instructions: str | None) -> None:
        self.messages: list[Message] = []
        if instructions is not None:
            self.messages.append({"role": "system", "content": instructions})
        self._answer: dict[str, object] | None = None  # the assistant message that may still grow
        self._calls: dict[str, str] = {}  # call id to the function's name

    def add(self, item: JsonObject, index: int) -> None:
        """Take the next item."""
        where = ("input", index)
        match item.get("type") or "message":
            case "message":
                item.pop("type", None)
                self._add_message(fields.convert(_readable(item, "content", where), _MESSAGE, where), where)
            case "reasoning":
                self._add_reasoning(fields.convert(item, _REASONING, where), where)
            case "function_call":
                self._add_call(fields.convert(item, _CALL, where))
            case "function_call_output":
                self._add_output(fields.convert(_readable(item, "output", where), _OUTPUT, where), where)
            case "item_reference":
                raise faults.not_honoured(f"input[{index}]", "nothing is stored here; send the item itself")
            case kind:
                raise faults.not_honoured(
                    f"input[{index}].type",
                    f"items are 'message', 'reasoning', 'function_call' and 'function_call_output'; found "
                    f"{faults.short(str(kind))}",
                )

    def _add_message(self, item: MessageItem, where: Sequence[str | int]) -> None:
        text = _text(item.content, (*where, "content"))
        if item.role != "assistant":
            self._answer = None
            self.messages.append({"role": item.role, "content": text})
            return
        answer = self._answer
        if answer is None or answer["content"] or "tool_calls" in answer:
            answer = self._begin()
        answer["content"] = text

    def _add_reasoning(self, item: ReasoningItem, where: Sequence[str | int]) -> None:
        text = "".join(part.text for part in item.content or ())
        if not text and item.encrypted_content is not None:
            text = _unsealed(item.encrypted_content, where)
        if text:
            self._begin()["reasoning_content"] = text

    def _add_call(self, item: FunctionCallItem) -> None:
        answer = self._answer or self._begin()
        calls = answer.setdefault("tool_calls", [])
        assert isinstance(calls, list)
        function = {"name": item.name, "arguments": item.arguments}
        calls.append({"id": item.call_id, "type": "function", "function": function})
        self._calls[item.call_id] = item.name

    def _add_output(self, item: FunctionOutputItem, where: Sequence[str | int]) -> None:
        if item.call_id not in self._calls:
            raise faults.invalid(
                f"No tool call found for function call output with call_id {faults.short(item.call_id)}.",
                f"input[{where[1]}].call_id",
            )
        self._answer = None
        self.messages.append(
            {
                "role": "tool",
                "content": _text(item.output, (*where, "output")),
                "tool_call_id": item.call_id,
                "name": self._calls[item.call_id],
            }
        )

    def _begin(self) -> dict[str, object]:
        self._answer = {"role": "assistant", "content": ""}
        self.messages.append(self._answer)
        return self._answer


def _readable(item: JsonObject, name: str, where: Sequence[str | int]) -> JsonObject:
    """The item, if its parts are text. Raises ApiFault for images, sound and files."""
    parts = item.get(name)
    for number, part in enumerate(parts if isinstance(parts, list) else ()):
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind not in _TEXTS:
            raise faults.not_honoured(
                f"{where[0]}[{where[1]}].{name}[{number}].type",
                f"the models here read text only, as 'input_text' or 'output_text'; found {kind[:50]!r}",
            )
    return item


def _text(content: str | list[Part], where: Sequence[str | int]) -> str:
    """All text of a content."""
    if isinstance(content, str):
        return content
    found = []
    for number, part in enumerate(content):
        field = "refusal" if part.type == "refusal" else "text"
        text = part.refusal if part.type == "refusal" else part.text
        if text is None:
            param = f"{where[0]}[{where[1]}].{where[2]}[{number}].{field}"
            raise faults.invalid(
                f"Missing required parameter: '{param}'.", param, "missing_required_parameter"
            )
        found.append(text)
    return "\n".join(found)


def _unsealed(content: str, where: Sequence[str | int]) -> str:
    try:
        if content.startswith(_SEAL):
            return base64.b64decode(content.removeprefix(_SEAL), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        pass  # told below, as for one that never was ours
    param = f"{where[0]}[{where[1]}].encrypted_content"
    raise faults.invalid(
        f"Invalid '{param}': it was not made by this server; send the reasoning as 'content'.", param
    )
