"""What this server answers, as the official client's helpers hand it on, is taken back as history."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from groschen.serve.prompt import _for_template
from groschen.text.chat import ChatTemplate
from serve.serving import PUZZLE, Server

USER: ChatCompletionMessageParam = {"role": "user", "content": "Make 24 from 2, 3 and 4."}
MORE: ChatCompletionMessageParam = {"role": "user", "content": "Make 10 from 1, 2 and 7."}


class Sum(BaseModel):
    """Adds."""

    a: Literal[1, 2, 3]
    b: Literal[1, 2, 3]


FORCED: dict[str, Any] = {
    "model": "tooled", "messages": [USER], "tools": [openai.pydantic_function_tool(Sum)], "seed": 1,
    "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 300, "thinking_budget": 9,
}  # fmt: skip
BEYOND = ("thinking_budget",)


@pytest.fixture(scope="module")
def client(tooled: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{tooled.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def fields(**more: Any) -> dict[str, Any]:
    """The client takes what OpenAI does not have in `extra_body`."""
    asked = {**FORCED, **more}
    return {**{k: v for k, v in asked.items() if k not in BEYOND}, "extra_body": {"thinking_budget": 9}}


def created(client: openai.OpenAI) -> Any:
    return client.chat.completions.create(**fields()).choices[0].message


def parsed(client: openai.OpenAI) -> Any:
    return client.chat.completions.parse(**fields()).choices[0].message


def streamed(client: openai.OpenAI) -> Any:
    with client.chat.completions.stream(**fields()) as stream:
        return stream.get_final_completion().choices[0].message


def parsed_content(client: openai.OpenAI) -> Any:
    asked = {"tools": openai.omit, "tool_choice": openai.omit, "parallel_tool_calls": openai.omit}
    return client.chat.completions.parse(**fields(**asked, response_format=Sum)).choices[0].message


AS_SENT: dict[str, Callable[[Any], Any]] = {
    "the object": lambda message: message,
    "model_dump": lambda message: message.model_dump(mode="json", warnings=False),
    "to_dict": lambda message: message.to_dict(mode="json", warnings=False),
}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # of the client about its own `parsed`
@pytest.mark.parametrize("way", AS_SENT.values(), ids=AS_SENT)
@pytest.mark.parametrize("helper", [created, parsed, streamed, parsed_content])
def test_an_answer_is_taken_back_as_history(
    client: openai.OpenAI, helper: Callable[[openai.OpenAI], Any], way: Callable[[Any], Any]
) -> None:
    message = helper(client)
    history: list[Any] = [USER, way(message)]
    history += [
        {"role": "tool", "tool_call_id": call.id, "content": "7"} for call in message.tool_calls or []
    ]
    again = client.chat.completions.create(model="tooled", messages=[*history, MORE], max_tokens=3, seed=1)
    assert again.usage is not None and again.usage.completion_tokens == 3


@pytest.mark.parametrize("way", AS_SENT.values(), ids=AS_SENT)
@pytest.mark.parametrize("is_call", [True, False])
def test_the_items_of_a_parsed_response_are_taken_back(
    client: openai.OpenAI, is_call: bool, way: Callable[[Any], Any]
) -> None:
    tool = {"type": "function", "name": "Sum", "parameters": Sum.model_json_schema(), "strict": None}
    asked: dict[str, Any] = {"tools": [tool], "tool_choice": "required"} if is_call else {"text_format": Sum}
    reply = client.responses.parse(
        model="tooled",
        input="Add 3 and 4.",
        max_output_tokens=300,
        extra_body={"thinking_budget": 9},
        **asked,
    )
    assert reply.status == "completed"
    back: list[Any] = [{"role": "user", "content": "Add 3 and 4."}, *map(way, reply.output)]
    back += [
        {"type": "function_call_output", "call_id": item.call_id, "output": "7"}
        for item in reply.output
        if item.type == "function_call"
    ]
    back.append({"role": "user", "content": "And now?"})
    again = client.responses.create(model="tooled", input=back, max_output_tokens=3)
    assert again.usage is not None and again.usage.output_tokens == 3


CALL = {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
NONE = "{% if message.content is none %}none{% else %}text:{{ message.content }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("[{{ message.content }}]", "[]"),
        ("[{{ 'a' + message.content }}]", "[a]"),
        ("[{{ message['content'] | trim }}]", "[]"),
        (NONE, "none"),
        ("{% if message['content'] is not none %}text{% else %}calls{% endif %}", "calls"),
    ],
    ids=["printed", "added to", "filtered", "asked for", "asked for by its key"],
)
@pytest.mark.parametrize(
    "content", [{}, {"content": None}, {"content": ""}], ids=["left out", "null", "empty"]
)
def test_the_content_of_an_answer_that_is_calls_alone_is_what_its_template_expects(
    tooled: Server, monkeypatch: pytest.MonkeyPatch, template: str, shown: str, content: dict[str, Any]
) -> None:
    served = tooled.host.models[0]
    source = "{% for message in messages %}{% if message.role == 'assistant' %}" + template
    chat = ChatTemplate(source + "{% endif %}{% endfor %}")
    opened = replace(served.opened, text=replace(served.opened.text, template=chat))
    monkeypatch.setattr(served, "opened", opened)
    message = {"role": "assistant", "tool_calls": [CALL], **content}
    assert chat.render(_for_template([*PUZZLE, message], served)) == shown


@pytest.mark.parametrize("arguments", ['"arguments": ""', '"arguments": null', '"arguments": "{}"', '"x": 1'])
def test_a_call_without_arguments_is_taken_back(tooled: Server, arguments: str) -> None:
    call = f'{{"id": "call_1", "type": "function", "function": {{"name": "clock", {arguments}}}}}'
    messages = [*PUZZLE, {"role": "assistant", "content": None, "tool_calls": ["CALL"]}, *PUZZLE]
    body = json.dumps({"model": "tooled", "messages": messages, "max_tokens": 2}).replace('"CALL"', call)
    reply = tooled.post("/v1/chat/completions", body.encode())
    assert (reply.status == 200) == ("x" not in arguments), reply.body
