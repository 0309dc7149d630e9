"""The official client, with its strict typed parsing, against a real server: what it gets when all is well.

Errors are in `test_openai_errors.py`, `/v1/responses` in `test_responses.py` too.
"""

import base64
import enum
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import openai
import pytest
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from serve.serving import PUZZLE, Server
from serve.test_tools import TOOLS, check_calls

TEXT = "Make 24 from 2, 3 and 4."
SAID: Any = PUZZLE  # the client has a type for each role


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with strict_client(server) as made:
        yield made


@pytest.fixture(scope="module")
def tool_client(tooled: Server) -> Iterator[openai.OpenAI]:
    with strict_client(tooled) as made:
        yield made


@pytest.fixture(scope="module")
def plain_client(server: Server) -> Iterator[openai.OpenAI]:
    """For the three answers that OpenAI's own API gives against the client's types: `finish_reason` null in a
    streamed completion, no logprob for the first token of an echo, and vectors in base64.
    """
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def strict_client(server: Server, **more: Any) -> openai.OpenAI:
    """A client that raises where an answer is not of the type it expects. To be closed by the caller."""
    settings = {"api_key": "none", "max_retries": 0, **more}
    return openai.OpenAI(base_url=f"{server.url}/v1", _strict_response_validation=True, **settings)


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": "penny", "messages": PUZZLE, "seed": 1, **fields})


def complete(client: openai.OpenAI, **fields: Any) -> Any:
    return client.completions.create(
        **{"model": "penny", "prompt": TEXT, "seed": 1, "max_tokens": 20, **fields}
    )


def thought(message: Any) -> str:
    return message.to_dict().get("reasoning") or ""


def texts_of(answer: ChatCompletion) -> list[str]:
    return [thought(choice.message) + (choice.message.content or "") for choice in answer.choices]


# -- models


def test_the_list_of_models_is_typed_and_each_can_be_retrieved(client: openai.OpenAI) -> None:
    listed = client.models.list()
    assert [each.id for each in listed] == ["penny"]
    assert client.models.retrieve("penny") == listed.data[0] and listed.data[0].created > 0


# -- chat

STOPPED: list[dict[str, Any]] = [{"stop": "="}, {"stop": ["*", "+"]}, {"stop": ["nowhere to be found"]}]
CHAT_FIELDS: list[dict[str, Any]] = [
    {}, {"n": 3}, {"max_tokens": 7}, {"max_completion_tokens": 7}, {"temperature": 0}, {"top_p": 0.3},
    {"presence_penalty": 1.5}, {"frequency_penalty": -0.5}, {"logprobs": True, "top_logprobs": 4},
    {"logit_bias": {"60": -100}}, {"response_format": {"type": "text"}}, *STOPPED,
    {"extra_body": {"top_k": 3, "min_p": 0.1}}, {"extra_body": {"thinking_budget": 4}},
]  # fmt: skip


@pytest.mark.parametrize("fields", CHAT_FIELDS, ids=str)
def test_a_stream_and_a_whole_answer_agree_in_every_field(
    client: openai.OpenAI, fields: dict[str, Any]
) -> None:
    whole = ask(client, **fields)
    assert texts_of(ask(client, **fields)) == texts_of(whole), "the same seed gives the same text"
    count = fields.get("n", 1)
    found, reasons = [""] * count, [""] * count
    tokens: list[list[Any]] = [[] for _ in range(count)]
    usage = None
    for chunk in ask(client, **fields, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            delta = choice.delta
            found[choice.index] += (delta.to_dict().get("reasoning") or "") + (delta.content or "")
            reasons[choice.index] += choice.finish_reason or ""
            tokens[choice.index] += (choice.logprobs and choice.logprobs.content) or []
        usage = chunk.usage
    assert found == texts_of(whole) and usage == whole.usage
    assert reasons == [choice.finish_reason for choice in whole.choices]
    if "logprobs" in fields:
        assert tokens == [choice.logprobs.content for choice in whole.choices] != [[]]


@pytest.mark.parametrize("fields", STOPPED, ids=str)
def test_what_stops_a_text_is_not_in_it(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    answer = ask(client, n=4, **fields)
    stops = [fields["stop"]] if isinstance(fields["stop"], str) else fields["stop"]
    contents = [choice.message.content or "" for choice in answer.choices]
    assert all(stop not in content for stop in stops for content in contents)
    assert {choice.finish_reason for choice in answer.choices} == {"stop"}


def test_samples_of_one_request_differ(client: openai.OpenAI) -> None:
    assert len(set(texts_of(ask(client, n=8)))) > 1


def test_a_penalty_on_frequent_tokens_makes_them_rarer(client: openai.OpenAI) -> None:
    def listed(penalty: float) -> Counter[str]:
        answer = complete(client, max_tokens=80, logprobs=0, frequency_penalty=penalty,
                          extra_body={"ignore_eos": True})  # fmt: skip
        return Counter(answer.choices[0].logprobs.tokens)

    assert max(listed(2).values()) < max(listed(0).values()) < max(listed(-2).values())


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"top_p": 1e-6}, {"extra_body": {"top_k": 1}}])
def test_the_most_probable_text_needs_no_seed(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    assert texts_of(ask(client, seed=1, **fields)) == texts_of(ask(client, seed=2, temperature=0))


def test_logprobs_are_typed_and_of_the_drawn_tokens(client: openai.OpenAI) -> None:
    choice = ask(client, logprobs=True, top_logprobs=3).choices[0]
    for token in choice.logprobs.content:
        assert token.logprob <= 0 and 1 <= len(token.top_logprobs) <= 3
        assert bytes(token.bytes).decode(errors="replace") == token.token or token.token.startswith("bytes:")


class Sign(enum.Enum):
    """Ways to reckon."""

    PLUS = "+"
    TIMES = "*"


class Sum(BaseModel):
    """A nested record."""

    sign: Sign
    left: int
    note: Literal["easy", "hard"] | None


def test_parse_gives_records(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="penny", messages=SAID, seed=3, n=3, response_format=Sum, extra_body={"thinking_budget": 9}
    )
    for choice in answer.choices:
        assert isinstance(choice.message.parsed, Sum)
        assert choice.message.parsed == Sum.model_validate_json(choice.message.content or "")


def test_the_stream_helper_adds_up_to_the_answer(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="penny", messages=SAID, seed=1) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    deltas = [event.delta for event in events if event.type == "content.delta"]
    (done,) = [event for event in events if event.type == "content.done"]
    assert "".join(deltas) == done.content == final.choices[0].message.content
    assert done.content == ask(client).choices[0].message.content


def test_the_stream_helper_takes_many_answers_whichever_speaks_first(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="penny", messages=SAID, seed=1, n=32) as stream:
        for _ in stream:
            pass
        found = {choice.index: choice.message.content for choice in stream.get_final_completion().choices}
    assert found == {choice.index: choice.message.content for choice in ask(client, n=32).choices}


def test_the_stream_helper_parses_records(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="penny", messages=SAID, seed=3, response_format=Sum, extra_body={"thinking_budget": 9}
    ) as stream:
        (done,) = [event for event in stream if event.type == "content.done"]
        assert (
            isinstance(done.parsed, Sum)
            and done.parsed == stream.get_final_completion().choices[0].message.parsed
        )


def test_a_cut_answer_is_no_record(client: openai.OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="penny", messages=SAID, max_tokens=1, response_format=Sum, seed=1)


def test_history_goes_back_as_it_came(client: openai.OpenAI) -> None:
    first = ask(client).choices[0].message
    again = ask(client, messages=[*PUZZLE, first, *PUZZLE], max_tokens=3)
    assert again.usage.prompt_tokens > ask(client, max_tokens=3).usage.prompt_tokens


# -- tools

FORCED: dict[str, Any] = {
    "model": "tooled", "tools": TOOLS, "max_tokens": 300, "parallel_tool_calls": False,
    "extra_body": {"thinking_budget": 9},
}  # fmt: skip
NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_calls_are_typed_and_valid(tool_client: openai.OpenAI, choice: Any) -> None:
    answer = ask(tool_client, **FORCED, tool_choice=choice, n=3)
    for each in answer.choices:
        assert each.finish_reason == "tool_calls"
        check_calls([call.to_dict() for call in each.message.tool_calls])
        assert choice == "required" or each.message.tool_calls[0].function.name == "weather"


def test_streamed_arguments_add_up_in_the_helper(tool_client: openai.OpenAI) -> None:
    with tool_client.chat.completions.stream(
        **FORCED,
        messages=SAID,
        seed=1,
        tool_choice=NAMED,
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion().choices[0].message.tool_calls
    deltas = [event for event in events if event.type == "tool_calls.function.arguments.delta"]
    (done,) = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert len(deltas) > 1 and "".join(each.arguments_delta for each in deltas) == done.arguments
    assert final and final[0].function.arguments == done.arguments and final[0].id.startswith("call_")
    assert set(json.loads(done.arguments)) == {"town", "days"}


def test_pydantic_tools_are_parsed(tool_client: openai.OpenAI) -> None:
    answer = tool_client.chat.completions.parse(
        **{**FORCED, "tools": [openai.pydantic_function_tool(Sum)]}, messages=SAID, seed=1,
        tool_choice="required",
    )  # fmt: skip
    (call,) = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Sum)


def test_no_tool_is_called_where_none_may_be(tool_client: openai.OpenAI) -> None:
    answer = ask(tool_client, **FORCED, tool_choice="none", n=4)
    assert all(not choice.message.tool_calls for choice in answer.choices)


def test_responses_call_tools_and_take_their_results(tool_client: openai.OpenAI) -> None:
    tool = {"type": "function", **TOOLS[0]["function"], "strict": True}
    asked: dict[str, Any] = {
        "model": "tooled", "tools": [tool], "tool_choice": "required", "parallel_tool_calls": False,
        "extra_body": {"seed": 1, "thinking_budget": 9},
    }  # fmt: skip
    whole = tool_client.responses.create(input=TEXT, **asked)
    (call,) = [item for item in whole.output if item.type == "function_call"]
    assert call.name == "weather" and set(json.loads(call.arguments)) == {"town", "days"}
    text = ""
    for event in tool_client.responses.create(input=TEXT, stream=True, **asked):
        if event.type == "response.function_call_arguments.delta":
            text += event.delta
        if event.type == "response.function_call_arguments.done":
            assert event.arguments == text
    assert text == call.arguments
    back: list[Any] = [{"role": "user", "content": TEXT}, call.to_dict()]
    back.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
    assert tool_client.responses.create(input=back, **{**asked, "tool_choice": "none"}).usage is not None


# -- completions

COMPLETION_FIELDS: list[dict[str, Any]] = [
    {}, {"n": 3}, {"prompt": [TEXT, "4+3="]}, {"stop": "="}, {"echo": True}, {"logprobs": 2},
    {"temperature": 0}, {"suffix": None, "best_of": 1, "user": "me"}, {"prompt": [31, 32, 33]},
    {"prompt": [[31, 32], [33]], "n": 2}, {"presence_penalty": -1}, {"logit_bias": {"60": 5}},
]  # fmt: skip


@pytest.mark.parametrize("fields", COMPLETION_FIELDS, ids=str)
def test_a_completion_and_its_stream_agree(
    client: openai.OpenAI, plain_client: openai.OpenAI, fields: dict[str, Any]
) -> None:
    whole = complete(client, **fields)
    found, reasons = [""] * len(whole.choices), [""] * len(whole.choices)
    usage = None
    for chunk in complete(plain_client, **fields, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            found[choice.index] += choice.text
            reasons[choice.index] += choice.finish_reason or ""
        usage = chunk.usage
    assert found == [choice.text for choice in whole.choices] and any(found)
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage is not None and usage.total_tokens == whole.usage.total_tokens


@pytest.mark.parametrize("top", [0, 1, 5])
@pytest.mark.parametrize("echo", [False, True])
def test_lists_of_logprobs_have_one_length(
    client: openai.OpenAI, plain_client: openai.OpenAI, top: int, echo: bool
) -> None:
    asked = plain_client if echo else client
    answer = complete(asked, logprobs=top, echo=echo, max_tokens=4, extra_body={"ignore_eos": True})
    lists = answer.choices[0].logprobs
    count = 4 + (answer.usage.prompt_tokens if echo else 0)
    assert {len(lists.tokens), len(lists.token_logprobs), len(lists.top_logprobs)} == {count}
    assert (lists.token_logprobs[0] is None) == echo
    assert all(value <= 0 for value in lists.token_logprobs[1:])


# -- embeddings


@pytest.mark.parametrize("kind", ["float", "base64", None])
def test_vectors_are_the_same_in_every_format(
    client: openai.OpenAI, plain_client: openai.OpenAI, kind: Any
) -> None:
    form = {} if kind is None else {"encoding_format": kind}
    asked = client if kind == "float" else plain_client
    found = asked.embeddings.create(model="penny", input=[TEXT, "7"], **form)
    plain = plain_client.embeddings.create(model="penny", input=[TEXT, "7"])
    for one, two in zip(found.data, plain.data, strict=True):
        vector: Any = one.embedding
        if isinstance(vector, str):
            vector = np.frombuffer(base64.b64decode(vector), "<f4")
        assert np.array_equal(np.asarray(vector, np.float32), np.asarray(two.embedding, np.float32))
