"""A generation as the output items of a response, and as the events that tell of them while they grow.

One state machine for both: a whole response is a stream whose events nobody reads. Leaves out the fields of
the request. Source: the OpenAI API reference, "Responses: streaming events".
"""

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import field

from groschen.serve.answer import logprob_json
from groschen.serve.events import (
    Content,
    Event,
    Finished,
    Reasoning,
    TokenInfo,
    ToolArguments,
    ToolBegin,
    ToolEnd,
)
from groschen.serve.responses_items import sealed

Json = dict[str, Any]  # JSON of any shape


class OutputText(msgspec.Struct, tag="output_text", tag_field="type"):
    """What the model says."""

    text: str = ""
    annotations: list[Json] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)


class ReasoningText(msgspec.Struct, tag="reasoning_text", tag_field="type"):
    """What the model thinks."""

    text: str = ""


class MessageItem(msgspec.Struct, tag="message", tag_field="type"):
    """A message of the model."""

    id: str
    content: list[OutputText] = field(default_factory=list)
    role: str = "assistant"
    status: str = "in_progress"


class ReasoningItem(msgspec.Struct, tag="reasoning", tag_field="type", omit_defaults=True):
    """What the model thought before it answered. summary: always empty, the reasoning itself is there."""

    id: str
    summary: list[Json]
    content: list[ReasoningText]
    status: str
    encrypted_content: str | None = None


class FunctionCallItem(msgspec.Struct, tag="function_call", tag_field="type"):
    """A call that the model wants made; arguments: JSON text."""

    id: str
    call_id: str
    name: str
    arguments: str = ""
    status: str = "in_progress"


Item = MessageItem | ReasoningItem | FunctionCallItem

_encoder = msgspec.json.Encoder()


class Output:
    """The items of one response while they are written.

    take and close return the events of what they did, ready to be sent.
    """

    def __init__(self, *, wants_logprobs: bool, seals_reasoning: bool, is_streamed: bool) -> None:
        self.items: list[Item] = []
        self.finished: Finished | None = None
        self._wants_logprobs, self._seals, self._is_streamed = wants_logprobs, seals_reasoning, is_streamed
        self._open: Item | None = None
        self._tokens: list[TokenInfo] = []  # of text that is held back
        self._events: list[bytes] = []
        self._num_events = 0

    def take(self, events: Sequence[Event], tokens: Sequence[TokenInfo]) -> bytes:
        """What is new of the only sample."""
        if self._wants_logprobs:
            self._tokens += [token for token in tokens if token.part == "content" and not token.is_end]
        for event in events:
            match event:
                case Reasoning(text):
                    self._reason(text)
                case Content(text):
                    self._say(text)
                case ToolBegin(_, call_id, name):
                    self._begin(FunctionCallItem(_new_id("fc"), call_id, name))
                case ToolArguments(_, text):
                    self._argue(text)
                case ToolEnd(is_complete=is_whole):
                    self._end("completed" if is_whole else "incomplete")
                case Finished():
                    self.finished = event
        return self._flush()

    def close(self) -> bytes:
        """End the item that is open; one that the length cut off is incomplete. An empty answer is a message
        without text.
        """
        if not self.items:
            self._say("")
        is_cut = self.finished is None or self.finished.reason == "length"
        self._end("incomplete" if is_cut else "completed")
        return self._flush()

    def tell(self, kind: str, **fields: object) -> bytes:
        """One event about the response as a whole."""
        self._event(kind, **fields)
        return self._flush()

    # -- items
    # ----------------------------------------------------------------------------------------------------

    def _reason(self, text: str) -> None:
        item = self._open
        if not isinstance(item, ReasoningItem):
            item = ReasoningItem(_new_id("rs"), [], [], "in_progress")
            self._begin(item)
            self._begin_part(item.id, ReasoningText())
            item.content.append(ReasoningText())
        item.content[0].text += text
        self._event("response.reasoning_text.delta", item_id=item.id, content_index=0, delta=text)

    def _say(self, text: str) -> None:
        item = self._open
        if not isinstance(item, MessageItem):
            item = MessageItem(_new_id("msg"))
            self._begin(item)
            self._begin_part(item.id, OutputText())
            item.content.append(OutputText())
        part, logprobs = item.content[0], [logprob_json(token) for token in self._tokens]
        self._tokens.clear()
        part.text += text
        part.logprobs += logprobs
        if text:
            self._event(
                "response.output_text.delta", item_id=item.id, content_index=0, delta=text, logprobs=logprobs
            )

    def _argue(self, text: str) -> None:
        item = self._open
        assert isinstance(item, FunctionCallItem), "arguments come after the call's begin"
        item.arguments += text
        self._event("response.function_call_arguments.delta", item_id=item.id, delta=text)

    def _begin(self, item: Item) -> None:
        self._end()
        self._open = item
        self.items.append(item)
        self._event("response.output_item.added", item=item)

    def _begin_part(self, item_id: str, part: OutputText | ReasoningText) -> None:
        self._event("response.content_part.added", item_id=item_id, content_index=0, part=part)

    def _end(self, status: str = "completed") -> None:
        item, self._open = self._open, None
        if item is None:
            return
        item.status = status
        match item:
            case ReasoningItem():
                if self._seals:
                    item.encrypted_content = sealed(item.content[0].text)
                self._end_part("response.reasoning_text.done", item.id, item.content[0])
            case MessageItem():
                item.content[0].logprobs += [logprob_json(token) for token in self._tokens]
                self._tokens.clear()
                logprobs = item.content[0].logprobs
                self._end_part("response.output_text.done", item.id, item.content[0], logprobs=logprobs)
            case FunctionCallItem():
                self._event(
                    "response.function_call_arguments.done",
                    item_id=item.id,
                    name=item.name,
                    arguments=item.arguments,
                )
        self._event("response.output_item.done", item=item)

    def _end_part(self, kind: str, item_id: str, part: OutputText | ReasoningText, **more: object) -> None:
        self._event(kind, item_id=item_id, content_index=0, text=part.text, **more)
        self._event("response.content_part.done", item_id=item_id, content_index=0, part=part)

    # -- events
    # ----------------------------------------------------------------------------------------------------

    def _event(self, kind: str, **fields: object) -> None:
        """Written at once: what it tells of goes on changing."""
        if not self._is_streamed:
            return
        event: Json = {"type": kind, "sequence_number": self._num_events}
        if "item" in fields or "item_id" in fields:
            event["output_index"] = len(self.items) - 1
        self._num_events += 1
        self._events.append(f"event: {kind}\ndata: ".encode() + _encoder.encode(event | fields) + b"\n\n")

    def _flush(self) -> bytes:
        sent = b"".join(self._events)
        self._events.clear()
        return sent


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(16)}"
