"""Items of the Responses API as messages of a chat."""

from typing import Any

import pytest

from groschen.serve.faults import ApiFault
from groschen.serve.responses_items import messages_of, sealed

USER = {"role": "user", "content": "hi"}


def call(name: str = "f", call_id: str = "call_1") -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": "{}", "id": "fc_1"}


def output(call_id: str = "call_1", text: Any = "42") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs_1", "summary": [], "status": "completed",
            "content": [{"type": "reasoning_text", "text": text}]}  # fmt: skip


def said(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


def test_a_text_is_what_the_user_says_and_instructions_are_the_systems() -> None:
    assert messages_of("hi", None) == [{"role": "user", "content": "hi"}]
    assert messages_of("hi", "be brief") == [{"role": "system", "content": "be brief"}, USER]


def test_messages_may_be_short_or_in_parts() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    given = [{"role": "developer", "content": "x"}, {"type": "message", "role": "user", "content": parts}]
    assert messages_of(given, None) == [
        {"role": "developer", "content": "x"},
        {"role": "user", "content": "a\nb"},
    ]


def test_the_items_of_one_answer_are_one_message_again() -> None:
    given = [dict(USER), thought("hm"), said("I ask."), call("f", "c1"), call("g", "c2"),
             output("c1"), output("c2", [{"type": "input_text", "text": "43"}]), said("85")]  # fmt: skip
    messages = messages_of(given, None)
    assert [each["role"] for each in messages] == ["user", "assistant", "tool", "tool", "assistant"]
    answer = messages[1]
    assert answer["reasoning_content"] == "hm" and answer["content"] == "I ask."
    assert answer["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert messages[2] == {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "f"}
    assert messages[3]["content"] == "43" and messages[4] == {"role": "assistant", "content": "85"}


def test_two_answers_in_a_row_stay_two() -> None:
    messages = messages_of([dict(USER), said("one"), said("two"), thought("hm"), said("three")], None)
    assert [each.get("content") for each in messages] == ["hi", "one", "two", "three"]
    assert messages[3]["reasoning_content"] == "hm" and "reasoning_content" not in messages[2]


def test_sealed_reasoning_comes_back_as_it_was() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": sealed("grübel 🤔")}
    assert messages_of([dict(USER), item, said("a")], None)[1]["reasoning_content"] == "grübel 🤔"


@pytest.mark.parametrize("content", ["gAAAA", "groschen:%%%", "groschen:/w==", ""])
def test_reasoning_that_another_server_sealed_is_refused(content: str) -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": content}
    with pytest.raises(ApiFault) as caught:
        messages_of([item], None)
    assert caught.value.error.param == "input[0].encrypted_content"


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"role": "user", "content": [IMAGE]}, "input[1].content[0].type"),
        ({"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_file"}]},
         "input[1].content[1].type"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[1].content[0].text"),
        ({"role": "king", "content": "a"}, "input[1].role"),
        ({"role": "user"}, "input[1].content"),
        ({"role": "user", "content": "a", "mood": "good"}, "input[1].mood"),
        ({"type": "item_reference", "id": "msg_1"}, "input[1]"),
        ({"type": "web_search_call", "id": "ws_1"}, "input[1].type"),
        ({"type": 5}, "input[1].type"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "input[1].call_id"),
        (output("call_9"), "input[1].call_id"),
        (output("call_1", [IMAGE]), "input[1].output[0].type"),
        ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]}, "input[1].summary"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_named_by_its_place(item: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiFault) as caught:
        messages_of([dict(USER), item], None)
    assert caught.value.status == 400 and caught.value.error.param == param


def test_no_items_are_refused() -> None:
    with pytest.raises(ApiFault, match="no items"):
        messages_of([], None)
