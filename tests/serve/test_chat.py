"""Chat over HTTP, against a real server."""

import asyncio
import contextlib
import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from groschen.serve import chat
from groschen.serve.answer import logprobs_json
from groschen.serve.events import TokenInfo
from groschen.serve.faults import ApiFault
from groschen.serve.wire import EventStream, data
from serve.serving import PUZZLE, Server


def text_of(choice: dict[str, Any]) -> str:
    return (choice["message"].get("reasoning") or "") + "|" + (choice["message"]["content"] or "")


def test_an_answer_has_the_shape_that_clients_expect(server: Server) -> None:
    reply = server.chat(seed=1).json()
    assert reply["object"] == "chat.completion" and reply["model"] == "penny" and reply["seed"] == 1
    assert reply["id"].startswith("chatcmpl-") and reply["system_fingerprint"].startswith("fp_")
    choice = reply["choices"][0]
    assert choice["index"] == 0 and choice["finish_reason"] == "stop" and choice["logprobs"] is None
    message = choice["message"]
    assert message["role"] == "assistant" and message["refusal"] is None and "tool_calls" not in message
    assert message["reasoning"] == message["reasoning_content"] != ""
    assert "<think>" not in message["reasoning"] + message["content"]
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]


def test_a_stream_says_the_same_as_a_whole_answer(server: Server) -> None:
    whole = server.chat(seed=1).json()
    chunks = server.chat(seed=1, stream=True).events()
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert all("role" not in choice["delta"] for choice in choices[1:])
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert choices[-1]["delta"] == {}
    message = whole["choices"][0]["message"]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == message["content"]
    assert "".join(choice["delta"].get("reasoning", "") for choice in choices) == message["reasoning"]
    assert all("usage" not in chunk for chunk in chunks)


def test_a_stream_counts_tokens_only_if_asked_to(server: Server) -> None:
    chunks = server.chat(seed=1, stream=True, stream_options={"include_usage": True}).events()
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] > 0
    assert chunks[-1]["usage"]["total_tokens"] == server.chat(seed=1).json()["usage"]["total_tokens"]


def test_samples_of_one_stream_are_told_apart_by_their_index(server: Server) -> None:
    whole = server.chat(seed=1, n=3).json()
    found = {0: "", 1: "", 2: ""}
    ends = []
    for chunk in server.chat(seed=1, n=3, stream=True).events():
        choice = chunk["choices"][0]
        found[choice["index"]] += choice["delta"].get("content", "")
        ends += [choice["index"]] if choice["finish_reason"] else []
    assert sorted(ends) == [0, 1, 2]
    assert [found[i] for i in range(3)] == [choice["message"]["content"] for choice in whole["choices"]]


def test_a_seed_gives_the_same_text_alone_and_among_63_others(server: Server) -> None:
    alone = server.chat(seed=11).json()["choices"][0]
    with ThreadPoolExecutor(64) as pool:
        crowd = list(pool.map(lambda seed: server.chat(seed=seed, max_tokens=60).json(), range(100, 163)))
        among = pool.submit(server.chat, seed=11)
        more = list(pool.map(lambda seed: server.chat(seed=seed, max_tokens=60).json(), range(200, 262)))
    assert among.result().json()["choices"][0] == alone
    assert len({text_of(reply["choices"][0]) for reply in crowd + more}) > 10


def test_logprobs_are_those_of_the_tokens_of_each_part(server: Server) -> None:
    reply = server.chat(seed=1, logprobs=True, top_logprobs=3).json()
    choice = reply["choices"][0]
    for part, text in (
        ("content", choice["message"]["content"]),
        ("reasoning", choice["message"]["reasoning"]),
    ):
        tokens = choice["logprobs"][part]
        spelled = bytes(byte for token in tokens for byte in token["bytes"]).decode()
        assert text in spelled
        for token in tokens:
            top = [each["logprob"] for each in token["top_logprobs"]]
            assert top == sorted(top, reverse=True) and 1 <= len(top) <= 3 and token["logprob"] <= top[0] <= 0
    streamed = [chunk["choices"][0]["logprobs"] for chunk in server.chat(
        seed=1, logprobs=True, top_logprobs=3, stream=True).events()]  # fmt: skip
    assert [t for each in streamed if each for t in each["content"]] == choice["logprobs"]["content"]


def test_lists_of_a_whole_answer_are_made_beside_the_event_loop(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(tokens: list[TokenInfo]) -> Any:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return logprobs_json(tokens)

    monkeypatch.setattr(chat, "logprobs_json", made)
    assert server.chat(seed=1, max_tokens=3, logprobs=True).status == 200


def test_the_most_probable_text_is_drawn_at_temperature_0(server: Server) -> None:
    texts = {text_of(server.chat(temperature=0).json()["choices"][0]) for _ in range(3)}
    assert len(texts) == 1


def test_a_bias_forbids_a_token(server: Server) -> None:
    tokenizer = server.host.models[0].opened.text.tokenizer
    banned = tokenizer.encode("4")[0]
    reply = server.chat(seed=1, n=4, logit_bias={str(banned): -100})
    assert all("4" not in choice["message"]["content"] for choice in reply.json()["choices"])


def test_a_cut_answer_says_length(server: Server) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        reply = server.chat(seed=1, **{field: 3}).json()
        assert reply["choices"][0]["finish_reason"] == "length"
        assert reply["usage"]["completion_tokens"] == 3


def test_a_budget_ends_the_thinking(server: Server) -> None:
    for field in ("thinking_budget", "thinking_token_budget"):
        usage = server.chat(seed=1, **{field: 5}).json()["usage"]
        assert usage["completion_tokens_details"]["reasoning_tokens"] <= 5 + 2  # and both tags
    assert server.chat(seed=1, thinking_budget=0).json()["choices"][0]["message"]["content"] != ""


SCHEMA = {
    "type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
    "required": ["a", "b"], "additionalProperties": False,
}  # fmt: skip


def test_an_answer_keeps_to_the_schema_whatever_is_drawn(server: Server) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "pair", "schema": SCHEMA, "strict": True}}
    reply = server.chat(seed=5, n=16, response_format=asked, max_tokens=400).json()
    for choice in reply["choices"]:
        if choice["finish_reason"] == "stop":
            value = json.loads(choice["message"]["content"])
            assert isinstance(value["a"], int) and value["b"] in ("x", "y") and len(value) == 2
    assert sum(choice["finish_reason"] == "stop" for choice in reply["choices"]) >= 14


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"guided_choice": ["yes", "no"]}, {"yes", "no"}),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, {"yes", "no"}),
        ({"guided_regex": "[ab]{2}"}, {"aa", "ab", "ba", "bb"}),
        ({"guided_grammar": 'start: "p" | "q"'}, {"p", "q"}),
    ],
)
def test_vllms_names_for_forms_are_understood(
    server: Server, fields: dict[str, Any], allowed: set[str]
) -> None:
    reply = server.chat(seed=1, n=4, **fields).json()
    assert {choice["message"]["content"] for choice in reply["choices"]} <= allowed


def test_a_held_answer_may_look_like_reasoning(server: Server) -> None:
    text = "<think>2</think>3"
    (choice,) = server.chat(seed=1, guided_choice=[text], thinking_budget=9).json()["choices"]
    assert choice["message"]["content"] == text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"max_tokens": 5000}, "messages"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"seed": 1.5}, "seed"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}},
         "stream_options.include_obfuscation"),
        ({"store": True}, "store"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"functions": []}, "functions"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"tempreature": 1}, "tempreature"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"reasoning_effort": "much"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs.enable_thinking"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
         "response_format.json_schema.schema"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"guided_regex": "(("}, "guided_regex"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "nobody", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}]},
         "messages[0].content[0].image_url"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ],
)  # fmt: skip
def test_what_is_not_honoured_is_refused_by_name(server: Server, fields: dict[str, Any], param: str) -> None:
    reply = server.chat(**fields)
    assert reply.status == 400 and reply.error["param"] == param, reply.error
    assert reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "me"}, {"metadata": {"a": "b"}}, {"store": False}, {"service_tier": "auto"}, {"n": None},
        {"logit_bias": None}, {"stop": None}, {"stop": []}, {"modalities": ["text"]}, {"tools": []},
        {"tool_choice": "none"}, {"response_format": {"type": "text"}}, {"parallel_tool_calls": True},
        {"top_k": -1}, {"min_p": 0.05}, {"repetition_penalty": 1.1}, {"presence_penalty": 0.5},
        {"prompt_cache_key": "a"}, {"safety_identifier": "b"}, {"logprobs": False}, {"stream": False},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Make 24 from 2, 3 and 4."}]}]},
        {"messages": [*PUZZLE, {"role": "assistant", "content": "6", "refusal": None}, *PUZZLE]},
    ],
)  # fmt: skip
def test_what_changes_nothing_or_can_be_done_is_taken(server: Server, fields: dict[str, Any]) -> None:
    assert server.chat(seed=1, max_tokens=4, **fields).status == 200


def test_an_unknown_model_is_a_404_with_its_neighbour(server: Server) -> None:
    reply = server.chat(model="peny")
    assert reply.status == 404 and reply.error["code"] == "model_not_found"
    assert "'penny'" in reply.error["message"]


def test_a_client_that_leaves_frees_its_row(server: Server) -> None:
    for is_stream in (True, False):
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        ) as connection:
            body = {
                "model": "penny",
                "messages": PUZZLE,
                "max_tokens": 900,
                "ignore_eos": True,
                "stream": is_stream,
            }
            connection.request(
                "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
            )
            if is_stream:
                assert connection.getresponse().read(20)
            else:
                deadline = time.monotonic() + 10
                while not server.host.tickets and time.monotonic() < deadline:
                    time.sleep(0.005)
                assert server.host.tickets
        assert server.is_empty(), f"stream {is_stream}: still open {server.host.tickets}"


# -- streams as such
# --------------------------------------------------------------------------------------------------------


def sent_by(response: EventStream, seconds_until_gone: float = 60.0) -> bytes:
    """What a response sends to a client that stays for a while."""
    sent = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(seconds_until_gone)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    asyncio.run(response({"type": "http", "state": {}}, receive, send))
    return b"".join(sent)


def test_silence_is_broken_by_comments_and_a_fault_becomes_the_last_event() -> None:
    closed = []

    async def close() -> None:
        closed.append(True)

    async def write(emit: Any) -> None:
        await emit(data({"a": 1}))
        await asyncio.sleep(0.25)
        raise ApiFault("the engine is gone", status=503, code="engine_dead")

    body = sent_by(EventStream(write, close, ping_s=0.1))
    events = body.decode().split("\n\n")
    assert events[0] == 'data: {"a":1}' and events[1:3] == [": ping", ": ping"]
    assert json.loads(events[3].removeprefix("data: "))["error"]["message"] == "the engine is gone"
    assert closed == [True]


def test_a_stream_whose_client_leaves_is_cancelled_and_closed() -> None:
    log = []

    async def close() -> None:
        log.append("closed")

    async def write(emit: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            log.append("cancelled")

    sent_by(EventStream(write, close), 0.05)
    assert log == ["cancelled", "closed"]
