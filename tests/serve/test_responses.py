"""`/v1/responses` through the official client against a real server."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from groschen.records import SamplingParams
from groschen.serve import faults, fields
from groschen.serve.events import Content
from groschen.serve.generation import Ask, Piece, Usage
from groschen.serve.responses import _View
from groschen.serve.responses_fields import FORM, ask_of
from serve.serving import Server

PUZZLE = "Make 24 from 2, 3 and 4."
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def create(client: openai.OpenAI, seed: int = 5, **more: Any) -> Response:
    return client.responses.create(
        model="penny",
        input=more.pop("input", PUZZLE),
        extra_body={"seed": seed, **more.pop("extra", {})},
        **more,
    )


def refused(client: openai.OpenAI, **fields: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **fields)
    return caught.value


# -- whole


def test_a_response_is_typed_and_says_what_was_asked(client: openai.OpenAI) -> None:
    response = create(client, max_output_tokens=400, temperature=0.5, top_p=0.9, metadata={"who": "me"})
    Response.model_validate(response.model_dump(warnings=False))
    assert response.status == "completed" and response.error is None and response.output_text
    assert response.id.startswith("resp_") and response.model == "penny" and response.object == "response"
    assert (response.temperature, response.top_p, response.max_output_tokens) == (0.5, 0.9, 400)
    assert response.metadata == {"who": "me"} and response.to_dict()["store"] is False
    usage = response.usage
    assert usage is not None and usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert 0 <= usage.output_tokens_details.reasoning_tokens <= usage.output_tokens


def test_the_same_seed_gives_the_same_output_and_the_seed_is_told(client: openai.OpenAI) -> None:
    first, again = create(client, seed=11), create(client, seed=11)
    assert first.output_text == again.output_text
    assert first.to_dict()["seed"] == 11
    drawn = client.responses.create(model="penny", input=PUZZLE).to_dict()["seed"]
    assert isinstance(drawn, int)


def test_the_text_is_that_of_the_chat_endpoint(client: openai.OpenAI) -> None:
    response = create(client, seed=12, temperature=0.8)
    chat = client.chat.completions.create(
        model="penny", messages=[{"role": "user", "content": PUZZLE}], seed=12, temperature=0.8
    )
    message = chat.choices[0].message
    assert response.output_text == message.content
    thoughts = [item.content[0].text for item in response.output if item.type == "reasoning" and item.content]
    assert "".join(thoughts) == (message.to_dict().get("reasoning_content") or "")


def test_an_answer_that_is_cut_is_incomplete(client: openai.OpenAI) -> None:
    response = create(client, max_output_tokens=2)
    assert response.status == "incomplete" and response.output[-1].status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None and response.usage.output_tokens == 2


def test_a_conversation_goes_on_with_the_output_as_input(client: openai.OpenAI) -> None:
    first = create(client)
    items: list[Any] = [{"role": "user", "content": PUZZLE}]
    items += [item.model_dump(exclude_none=True) for item in first.output]
    items += [{"role": "user", "content": "Make 10 from 2, 3 and 5."}]
    assert create(client, input=items).status == "completed"


def test_logprobs_of_the_text_are_there_if_they_are_included(client: openai.OpenAI) -> None:
    response = create(client, include=["message.output_text.logprobs"], top_logprobs=2)
    part = response.output[-1].content[0]
    assert part.type == "output_text" and part.logprobs
    assert "".join(bytes(each.bytes).decode() for each in part.logprobs) == part.text
    assert all(len(each.top_logprobs) == 2 and each.logprob <= 0 for each in part.logprobs)


# -- streams


def test_every_event_is_typed_and_numbered(server: Server) -> None:
    body = {"model": "penny", "input": PUZZLE, "seed": 5, "stream": True}
    reply = server.post("/v1/responses", body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    blocks = [block for block in reply.body.decode().split("\n\n") if block and not block.startswith(":")]
    events = [json.loads(block.split("\ndata: ")[1]) for block in blocks]
    for number, event in enumerate(events):
        EVENT.validate_python(event)
        assert event["sequence_number"] == number
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"
    assert events[0]["response"]["output"] == [] and events[0]["response"]["status"] == "in_progress"


def test_a_stream_adds_up_to_the_whole_response(client: openai.OpenAI) -> None:
    whole, text = create(client, seed=21), ""
    with client.responses.create(model="penny", input=PUZZLE, stream=True, extra_body={"seed": 21}) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                text += event.delta
            last = event
    assert last.type == "response.completed"
    assert last.response.output_text == text == whole.output_text
    assert last.response.usage is not None and whole.usage is not None
    assert last.response.usage.output_tokens == whole.usage.output_tokens


def test_the_stream_helper_accumulates(client: openai.OpenAI) -> None:
    with client.responses.stream(model="penny", input=PUZZLE, extra_body={"seed": 21}) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.output_text == snapshots[-1] == create(client, seed=21).output_text


def test_a_stream_that_is_cut_ends_with_incomplete(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="penny", input=PUZZLE, stream=True, max_output_tokens=2))
    assert events[-1].type == "response.incomplete"


def test_a_client_that_leaves_frees_its_row(server: Server, client: openai.OpenAI) -> None:
    stream = client.responses.create(model="penny", input=PUZZLE, stream=True, extra_body={"seed": 1})
    next(iter(stream))
    stream.close()
    assert server.is_empty()


class Cent(BaseModel):
    """A small schema."""

    value: int
    is_enough: bool


def test_parse_gives_the_record(client: openai.OpenAI) -> None:
    response = client.responses.parse(model="penny", input=PUZZLE, text_format=Cent, extra_body={"seed": 2})
    assert isinstance(response.output_parsed, Cent)
    with client.responses.stream(
        model="penny", input=PUZZLE, text_format=Cent, extra_body={"seed": 2}
    ) as stream:
        assert stream.get_final_response().output_parsed == response.output_parsed


def test_any_json_object_is_one(client: openai.OpenAI) -> None:
    response = create(client, text={"format": {"type": "json_object"}}, max_output_tokens=900)
    if response.status == "completed":
        assert isinstance(json.loads(response.output_text), dict)


# -- refused


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("background", True),
        ("truncation", "auto"),
        ("store", True),
        ("conversation", "conv_1"),
        ("max_tool_calls", 3),
        ("service_tier", "priority"),
        ("prompt", {"id": "pmpt_1"}),
    ],
)
def test_a_field_that_is_not_honoured_is_named(client: openai.OpenAI, field: str, value: Any) -> None:
    error = refused(client, **{field: value})
    assert error.param == field and error.code == "unsupported_parameter"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"extra": {"sed": 1}}, "sed"),
        ({"extra": {"n": 2}}, "n"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
         "input[0].content[0].type"),
    ],
)  # fmt: skip
def test_a_field_with_a_wrong_value_is_named(
    client: openai.OpenAI, fields: dict[str, Any], param: str
) -> None:
    assert refused(client, **fields).param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"store": False}, {"background": False}, {"truncation": "disabled"}, {"service_tier": "auto"},
        {"user": "me"}, {"prompt_cache_key": "k"}, {"safety_identifier": "s"}, {"extra": {"n": 1}},
        {"text": {"format": {"type": "text"}, "verbosity": "medium"}}, {"include": []}, {"tools": []},
    ],
)  # fmt: skip
def test_a_field_that_changes_nothing_is_taken(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    assert create(client, max_output_tokens=1, **fields).status == "incomplete"


def test_an_unknown_model_and_too_long_an_input_are_told(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="shilling", input="a")
    error = refused(client, input="9 " * 5000)
    assert error.code == "context_length_exceeded" and error.param == "input"


# -- tools, as far as they go without a model that has them


TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}


def asked(**more: Any) -> Ask:
    body = fields.decode(json.dumps({"model": "m", "input": "a", **more}).encode(), FORM)
    return ask_of(body, SamplingParams(temperature=0.3))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, "auto"),
        ("required", "required"),
        ("none", "none"),
        ({"type": "function", "name": "f"}, "f"),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
            "required",
        ),
    ],
)
def test_a_choice_of_tools_reaches_the_model(choice: Any, expected: str) -> None:
    ask = asked(tools=[TOOL, {**TOOL, "name": "g"}], tool_choice=choice, parallel_tool_calls=False)
    assert ask.tool_choice == expected and ask.parallel_tool_calls is False
    names = [tool["function"]["name"] for tool in ask.tools]
    assert names == (["f"] if isinstance(choice, dict) and "mode" in choice else ["f", "g"])
    assert ask.tools[0] == {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object"}, "strict": True},
    }


def test_settings_that_are_left_out_are_the_models() -> None:
    assert asked().sampling.temperature == 0.3
    assert asked(temperature=0).sampling.temperature == 0


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        ([TOOL], {"type": "function", "name": "h"}),
        ([TOOL, TOOL], "auto"),
        ([], "required"),
        ([{**TOOL, "name": "none"}], {"type": "function", "name": "none"}),
    ],
)
def test_a_choice_that_can_not_be_is_refused(tools: list[Any], choice: Any) -> None:
    with pytest.raises(faults.ApiFault):
        asked(tools=tools, tool_choice=choice)


class Broken:
    """A generation whose engine dies after a few words."""

    def __init__(self, ask: Ask) -> None:
        self.ask, self.seed, self.fingerprint = ask, 1, "fp"
        self.usage = Usage(prompt_tokens=3, cached_tokens=0, completion_tokens=1, reasoning_tokens=0)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        yield Piece(0, (Content("half"),), ())
        raise faults.unavailable("the engine has failed", "engine_dead")


def test_a_stream_whose_engine_dies_ends_with_failed() -> None:
    body = fields.decode(b'{"model": "m", "input": "a", "stream": true}', FORM)
    view = _View(Broken(ask_of(body, SamplingParams())), body)
    sent: list[bytes] = []

    async def emit(piece: bytes) -> None:
        sent.append(piece)

    asyncio.run(view.write(emit))
    last = json.loads(b"".join(sent).decode().strip().split("\ndata: ")[-1])
    EVENT.validate_python(last)
    assert last["type"] == "response.failed" and last["response"]["status"] == "failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "the engine has failed"}
    assert last["response"]["output"][0]["content"][0]["text"] == "half"
