"""The events of a response, as the client's own records and its accumulator read them."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

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
from groschen.serve.responses_events import Output

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def output(*, is_streamed: bool = True, wants_logprobs: bool = False, seals: bool = False) -> Output:
    return Output(wants_logprobs=wants_logprobs, seals_reasoning=seals, is_streamed=is_streamed)


def read(stream: bytes) -> list[dict[str, Any]]:
    """The events of a stream; each has its type twice and is what the client says that it is."""
    events = []
    for block in stream.decode().split("\n\n")[:-1]:
        head, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert head == f"event: {event['type']}"
        EVENT.validate_python(event)
        events.append(event)
    return events


def run(events: Sequence[Event], **how: bool) -> tuple[Output, list[dict[str, Any]]]:
    """Each event as a piece of its own, then the end."""
    view = output(**how)
    sent = b"".join(view.take((event,), ()) for event in events)
    return view, read(sent + view.close())


THINK_AND_CALL: tuple[Event, ...] = (
    Reasoning("let "),
    Reasoning("me see"),
    Content("I "),
    Content("ask."),
    ToolBegin(0, "call_a", "f"),
    ToolArguments(0, '{"x"'),
    ToolArguments(0, ": 1}"),
    ToolEnd(0),
    ToolBegin(1, "call_b", "g"),
    ToolArguments(1, "{}"),
    ToolEnd(1),
    Finished("tool_calls"),
)


def test_the_sequence_is_that_of_openai() -> None:
    _, events = run(THINK_AND_CALL)
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds == [
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done",
        "output_item.done",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_the_deltas_add_up_to_the_items() -> None:
    view, events = run(THINK_AND_CALL)
    summed: dict[int, str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            summed[event["output_index"]] = summed.get(event["output_index"], "") + event["delta"]
    assert summed == {0: "let me see", 1: "I ask.", 2: '{"x": 1}', 3: "{}"}
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == json.loads(msgspec.json.encode(view.items))
    assert [item["status"] for item in done] == ["completed"] * 4
    assert done[2]["call_id"] == "call_a" and done[2]["name"] == "f"


def test_what_was_sent_does_not_change_with_the_item() -> None:
    _, events = run(THINK_AND_CALL)
    added = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    assert [item.get("content", item.get("arguments")) for item in added] == [[], [], "", ""]
    assert all(item["status"] == "in_progress" for item in added)


def test_whole_and_streamed_have_the_same_items() -> None:
    streamed, events = run(THINK_AND_CALL)
    whole, nothing = run(THINK_AND_CALL, is_streamed=False)
    assert events and nothing == []

    def without_ids(view: Output) -> Any:
        return [{k: v for k, v in item.items() if k != "id"} for item in msgspec.to_builtins(view.items)]

    assert without_ids(whole) == without_ids(streamed)
    assert len({item.id for item in whole.items}) == 4


@pytest.mark.parametrize(
    "events", [(Content("half a"),), (ToolBegin(0, "call_a", "f"), ToolArguments(0, "{"))]
)
def test_an_item_that_the_length_cut_is_incomplete(events: tuple[Event, ...]) -> None:
    view, sent = run((*events, Finished("length")))
    assert view.items[-1].status == "incomplete"
    assert sent[-1]["type"] == "response.output_item.done" and sent[-1]["item"]["status"] == "incomplete"


def test_a_call_that_broke_is_incomplete() -> None:
    view, sent = run((ToolBegin(0, "call_a", "f"), ToolArguments(0, "{"), ToolEnd(0, is_complete=False)))
    assert view.items[0].status == "incomplete"
    assert [each["item"]["status"] for each in sent if each["type"] == "response.output_item.done"] == [
        "incomplete"
    ]


def test_an_answer_of_no_text_is_a_message_without_text() -> None:
    view, events = run((Finished("stop"),))
    assert msgspec.to_builtins(view.items)[0]["content"][0]["text"] == ""
    assert [event["type"] for event in events if event["type"].endswith("delta")] == []


def test_sealed_reasoning_is_there_if_it_was_asked_for() -> None:
    for seals in (False, True):
        view, events = run((Reasoning("hm"), Content("a"), Finished("stop")), seals=seals)
        item = msgspec.to_builtins(view.items)[0]
        assert ("encrypted_content" in item) is seals
        assert events[5]["item"].get("encrypted_content") == item.get("encrypted_content")


def token(text: bytes, part: str = "content", *, is_end: bool = False) -> TokenInfo:
    return TokenInfo(7, text, -0.5, ((8, b"x", -1.0),), part, is_end)


def test_every_token_of_the_text_has_its_logprob_once() -> None:
    view = output(wants_logprobs=True)
    sent = view.take((Reasoning("hm"),), (token(b"hm", "reasoning"),))
    sent += view.take((), (token(b"a"),))  # held back: may be a stop string
    sent += view.take((Content("a b"),), (token(b" b"),))
    sent += view.take((), (token(b" c"),))
    sent += view.take((Finished("stop"),), (token(b"", is_end=True),))
    events = read(sent + view.close())
    texts = [
        entry["token"] for event in events if event["type"].endswith("text.delta")
        for entry in event.get("logprobs", ())
    ]  # fmt: skip
    assert texts == ["a", " b"]
    listed = msgspec.to_builtins(view.items)[1]["content"][0]["logprobs"]
    assert [entry["token"] for entry in listed] == ["a", " b", " c"]
    assert listed[0] == {"token": "a", "logprob": -0.5, "bytes": [97],
                         "top_logprobs": [{"token": "x", "logprob": -1.0, "bytes": [120]}]}  # fmt: skip
