"""The official client when something goes wrong: the class of each error, retries, timeouts, open streams."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from groschen.serve.app import AppConfig
from groschen.serve.keys import KeyFile, make_key
from groschen.serve.served import Wanted
from serve.serving import Server, serving
from serve.test_openai_client import SAID, ask, complete, strict_client

LONG: dict[str, Any] = {"max_tokens": 900, "extra_body": {"ignore_eos": True}}
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}]
BAD_SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nothing"}}}
CALLED = {"type": "function", "function": {"name": "f"}}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with strict_client(server) as made:
        yield made


# -- what was wrong with the request


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 9}, "temperature"),
        ({"messages": [{"role": "user", "content": "9 " * 5000}]}, "messages"),
        ({"messages": IMAGE}, "messages[0].content[0].image_url"),
        ({"response_format": BAD_SCHEMA}, None),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"tools": [CALLED]}, "tools"),
        ({"extra_body": {"tempreature": 1}}, "tempreature"),
        ({"extra_body": {"stop_token_ids": [1_000_000]}}, "stop_token_ids"),
        ({"extra_body": {"stop_token_ids": [-1]}}, "stop_token_ids"),
        ({"logit_bias": {"1000000": 1}}, "logit_bias"),
        ({"temperature": 1e-6}, "temperature"),
        ({"extra_body": {"repetition_penalty": 0.001}}, "repetition_penalty"),
        ({"stop": "<|user|>\n"}, "stop"),
        ({"tools": [{"type": "function", "function": {"name": "f\n"}}]}, "tools[0].function.name"),
        (
            {"extra_body": {"response_format": {"type": "json_object", "schema": {}}}},
            "response_format.schema",
        ),
        ({"messages": [{"role": "user", "content": "hi", "id": "msg_1"}]}, "messages[0].id"),
        ({"n": 1000}, "n"),
        ({"stream": True, "n": 1000}, "n"),
        ({"modalities": ["audio"], "audio": {"voice": "ash", "format": "wav"}}, None),
    ],
)
def test_a_bad_chat_is_a_bad_request_error(
    client: openai.OpenAI, fields: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **fields)
    error = caught.value
    assert error.status_code == 400 and error.type == "invalid_request_error" and error.message
    assert str(error.request_id).startswith("req_")
    assert error.param is not None if param is None else error.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": "9 " * 5000}, "prompt"),
        ({"suffix": "a"}, "suffix"),
        ({"extra_body": {"stop_token_ids": [1_000_000]}}, "stop_token_ids"),
        ({"logprobs": 99}, "logprobs"),
    ],
)
def test_a_bad_completion_is_a_bad_request_error(
    client: openai.OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, **fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 1e-6}, "temperature"),
        ({"input": "9 " * 5000}, "input"),
        ({"max_output_tokens": 100_000}, "input"),
        ({"tools": [{"type": "function", "name": "f\n", "parameters": {}, "strict": None}]}, "tools[0].name"),
        (
            {"text": {"format": {"type": "json_schema", "name": "a\n", "schema": {}, "strict": None}}},
            "text.format.name",
        ),
    ],
)
def test_a_bad_response_is_a_bad_request_error(
    client: openai.OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": "penny", "input": "Hi", **fields})
    assert caught.value.param == param


@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses", "embeddings", "models"])
def test_an_unknown_model_is_a_not_found_error(client: openai.OpenAI, endpoint: str) -> None:
    calls: dict[str, Any] = {
        "chat": lambda: ask(client, model="shilling"),
        "completions": lambda: complete(client, model="shilling"),
        "responses": lambda: client.responses.create(model="shilling", input="a"),
        "embeddings": lambda: client.embeddings.create(model="shilling", input="a"),
        "models": lambda: client.models.retrieve("shilling"),
    }
    with pytest.raises(openai.NotFoundError) as caught:
        calls[endpoint]()
    assert caught.value.code == "model_not_found" and "penny" in caught.value.message


@pytest.mark.parametrize("call", ["files", "images", "moderations", "stored"])
def test_an_endpoint_that_is_not_there_is_a_not_found_error(client: openai.OpenAI, call: str) -> None:
    calls: dict[str, Any] = {
        "files": client.files.list,
        "images": lambda: client.images.generate(prompt="a"),
        "moderations": lambda: client.moderations.create(input="a"),
        "stored": lambda: client.responses.retrieve("resp_1"),
    }
    with pytest.raises(openai.NotFoundError) as caught:
        calls[call]()
    assert caught.value.code == "unknown_url"


def test_a_body_of_9_mb_is_an_api_status_error_413(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, messages=[{"role": "user", "content": "9" * 9_000_000}])
    assert caught.value.status_code == 413 and caught.value.code == "request_too_large"


# -- keys


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    path: Path = tmp_path_factory.mktemp("keys") / "keys"
    key = make_key("me", path)
    with serving(app_config=AppConfig(keys=KeyFile(path))) as running:
        yield running, key


@pytest.mark.parametrize("key", ["none", "sk-groschen-wrong", "ключ"])
def test_a_wrong_key_is_an_authentication_error(guarded: tuple[Server, str], key: str) -> None:
    with strict_client(guarded[0], api_key=key) as client:
        if not key.isascii():
            with pytest.raises((openai.AuthenticationError, UnicodeEncodeError)):
                client.models.list()
            return
        with pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
    assert caught.value.code == "invalid_api_key" and guarded[1] not in caught.value.message


def test_the_right_key_opens_everything(guarded: tuple[Server, str]) -> None:
    with strict_client(guarded[0], api_key=guarded[1]) as client:
        assert client.models.list().data and complete(client).usage.completion_tokens > 0


# -- too many, and not there


def test_a_full_queue_is_a_rate_limit_error_and_a_retry_waits_and_succeeds() -> None:
    narrowest = AppConfig(max_queue=0)
    with serving(app_config=narrowest) as narrow, strict_client(narrow, timeout=60) as client:
        rows = narrow.host.num_rows
        streams: list[Any] = []
        try:
            streams = [ask(client, **LONG, seed=i, stream=True) for i in range(rows)]
            with pytest.raises(openai.RateLimitError) as caught:
                complete(client)
            wait = int(caught.value.response.headers["retry-after"])
            assert wait >= 1 and caught.value.code == "rate_limit_exceeded"
            timer = threading.Timer(0.2, streams[0].close)
            timer.start()
            begun = time.monotonic()
            assert complete(client.with_options(max_retries=3)).choices[0].text
            assert time.monotonic() - begun >= wait * 0.9, "the client came back before it was told to"
            timer.join()
        finally:
            for stream in streams:
                stream.close()
        assert narrow.is_empty(20)


def test_a_model_that_can_not_be_opened_is_an_internal_server_error_503() -> None:
    broken = [Wanted(name="broken", source="/nowhere/at-all")]
    with serving(broken) as dead, strict_client(dead) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client, model="broken")
        assert caught.value.status_code == 503 and "no model" in caught.value.message


# -- raw answers, timeouts, streams that are left


@pytest.mark.parametrize("endpoint", ["chat", "completions", "models"])
def test_a_raw_answer_shows_its_id_and_place(client: openai.OpenAI, endpoint: str) -> None:
    calls: dict[str, Any] = {
        "chat": lambda: client.chat.completions.with_raw_response.create(
            model="penny",
            messages=SAID,
            max_tokens=2,
        ),
        "completions": lambda: client.completions.with_raw_response.create(model="penny", prompt="a"),
        "models": client.models.with_raw_response.list,
    }
    raw = calls[endpoint]()
    assert raw.status_code == 200 and raw.headers["x-request-id"] == raw.request_id
    assert raw.parse() is not None and raw.request_id.startswith("req_")
    if endpoint != "models":
        assert raw.headers["x-queue-position"].isdecimal()


def test_two_answers_never_share_an_id(client: openai.OpenAI) -> None:
    answers = [complete(client, max_tokens=1) for _ in range(5)]
    assert len({each.id for each in answers}) == len({each._request_id for each in answers}) == 5


def test_a_client_that_times_out_leaves_nothing_behind(server: Server, client: openai.OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=0.15), **LONG)
    assert server.is_empty()


@pytest.mark.parametrize("endpoint", ["chat", "completions", "helper", "raw"])
def test_a_closed_stream_frees_its_row(server: Server, client: openai.OpenAI, endpoint: str) -> None:
    # So long that it cannot end by itself meanwhile; the helper takes no first chunk but of sample 0.
    long: dict[str, Any] = LONG if endpoint == "helper" else {**LONG, "n": 32}
    with contextlib.ExitStack() as stack:
        if endpoint == "helper":
            chat: Any = client.chat.completions
            stream = stack.enter_context(chat.stream(model="penny", messages=SAID, **long))
        elif endpoint == "raw":
            create: Any = client.chat.completions.with_streaming_response.create
            stream = stack.enter_context(create(model="penny", messages=SAID, stream=True, **long))
            lines = stream.iter_lines()  # kept: an iterator that is thrown away closes the connection
            assert next(lines).startswith("data: ")
        else:
            # The client's type of a chunk of completions wants a finish reason in each; nobody sends one.
            plain = stack.enter_context(
                openai.OpenAI(base_url=client.base_url, api_key="none", max_retries=0)
            )
            stream = (ask if endpoint == "chat" else complete)(plain, **long, stream=True)
        if endpoint != "raw":
            next(iter(stream))
        until = time.monotonic() + 10
        while server.host.num_running < 1 and time.monotonic() < until:
            time.sleep(0.002)  # the first event says who answers, before the first row runs
        assert endpoint == "helper" or server.host.num_running >= 1
        stream.close()
    assert server.is_empty()


def test_cancelled_tasks_of_the_asynchronous_client_leave_nothing_behind(server: Server) -> None:
    async def work() -> list[str]:
        made = openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
        )
        async with made as client:
            create: Any = client.chat.completions.create
            fixed = {"model": "penny", "messages": SAID}
            lost = [asyncio.create_task(create(**fixed, **LONG, seed=i)) for i in range(6)]
            kept = [asyncio.create_task(create(**fixed, seed=7)) for _ in range(3)]
            await asyncio.sleep(0.2)
            for task in lost:
                task.cancel()
            answers = await asyncio.gather(*kept)
            ends = await asyncio.gather(*lost, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        return [answer.choices[0].message.content for answer in answers]

    texts = asyncio.run(work())
    assert len(set(texts)) == 1 and texts[0]
    assert server.is_empty()
