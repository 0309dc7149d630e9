"""The line of each request."""

import http.client
import io
import json
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from groschen.errors import BadFile
from groschen.serve import chat, logs
from groschen.serve.logs import RequestLog
from serve.serving import PUZZLE, Server

SECRET = "my grandmother's recipe"


@pytest.fixture
def restored() -> Iterator[None]:
    """Loggers as they were before the test set them up."""
    names = ("groschen", "uvicorn", "uvicorn.access")
    before = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate,
                     logging.getLogger(name).level) for name in names}  # fmt: skip
    yield
    for name, (handlers, propagate, level) in before.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def app_of(*, shows_text: bool = False) -> TestClient:
    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await request.body())

    async def fail(request: Request) -> PlainTextResponse:
        raise RuntimeError("broken")

    routes = [Route("/v1/echo", echo, methods=["POST"]), Route("/health", echo), Route("/fail", fail)]
    app = Starlette(routes=routes, middleware=[Middleware(RequestLog, shows_text=shows_text)])
    return TestClient(app, raise_server_exceptions=False)


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def requests_of(stream: io.StringIO, *ids: str) -> list[dict[str, Any]]:
    """The lines of these requests, once they are there: a line is written after the last byte has left.

    So the line of a request that another test made may still come into this one's stream.
    """
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = {line["request"]: line for line in lines_of(stream) if "route" in line}
        if found.keys() >= set(ids):
            return [found[each] for each in ids]
        time.sleep(0.01)
    raise AssertionError(stream.getvalue())


@pytest.mark.usefixtures("restored")
def test_a_request_is_one_line_of_json_without_its_text() -> None:
    stream = io.StringIO()
    logs.set_up(stream)
    answer = app_of().post("/v1/echo?key=hidden", content=SECRET)
    (line,) = lines_of(stream)
    assert line["request"] == answer.headers["x-request-id"]
    assert (line["method"], line["route"], line["status"], line["level"]) == ("POST", "/v1/echo", 200, "info")
    assert line["time"].endswith("Z") and line["seconds"] >= 0
    assert SECRET not in stream.getvalue() and "hidden" not in stream.getvalue()


@pytest.mark.usefixtures("restored")
def test_the_text_is_there_if_it_was_asked_for_and_is_cut() -> None:
    stream = io.StringIO()
    logs.set_up(stream)
    client = app_of(shows_text=True)
    client.post("/v1/echo", content=SECRET)
    client.post("/v1/echo", content="x" * 1_000_000)
    first, second = lines_of(stream)
    assert first["body"] == SECRET and len(second["body"]) <= 65536


@pytest.mark.usefixtures("restored")
def test_a_clients_own_id_is_kept_if_it_is_plain() -> None:
    stream = io.StringIO()
    logs.set_up(stream)
    client = app_of()
    for own, is_kept in (
        ("trace-1.a_B", True),
        ("a" * 65, False),
        ('x"\n{"level":"fake"}', False),
        ("", False),
    ):
        headers = {"x-request-id": own.replace("\n", "%0A")}
        given = client.post("/v1/echo", headers=headers).headers["x-request-id"]
        assert (given == own) is is_kept and (is_kept or given.startswith("req_"))
    assert len({line["request"] for line in lines_of(stream)}) == 4


@pytest.mark.usefixtures("restored")
def test_a_health_check_is_not_worth_a_line_and_an_error_is() -> None:
    stream = io.StringIO()
    logs.set_up(stream)
    client = app_of()
    client.get("/health")
    client.get("/fail")
    assert [(line["route"], line["status"]) for line in lines_of(stream)] == [("/fail", 500)]


@pytest.mark.usefixtures("restored")
def test_a_traceback_stays_inside_its_line() -> None:
    stream = io.StringIO()
    logs.set_up(stream)
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        logging.getLogger("groschen.serve").exception("it broke: %s", "here")
    (line,) = lines_of(stream)
    assert line["message"] == "it broke: here" and "two\nlines" in line["exception"]


@pytest.mark.usefixtures("restored")
def test_somebody_who_watches_reads_a_sentence() -> None:
    stream = io.StringIO()
    logs.set_up(stream, is_plain=True)
    app_of().post("/v1/echo", headers={"x-request-id": "abc"})
    logging.getLogger("groschen.serve").warning("careful")
    first, second = stream.getvalue().splitlines()
    assert "POST /v1/echo 200" in first and first.endswith("abc")
    assert second.endswith("warning: careful")


@pytest.mark.usefixtures("restored")
def test_a_terminal_obeys_no_client() -> None:
    stream = io.StringIO()
    logs.set_up(stream, is_plain=True)
    client = app_of(shows_text=True)
    client.get("/v1/%1b]0;x%07%0a12:00:00")
    client.post("/v1/echo", content="\x1b[2J\n\x9b1m\u202eGrüße")
    first, second = stream.getvalue().splitlines()
    assert first.isprintable() and r"/v1/\x1b]0;x\x07\n12:00:00 404" in first
    assert second.isprintable() and second.endswith(r"\x1b[2J\n\x9b1m\u202eGrüße")


@pytest.mark.usefixtures("restored")
def test_the_line_of_a_generation_counts_its_tokens(server: Server) -> None:
    stream = io.StringIO()
    logs.set_up(stream)
    reply = server.chat(messages=[{"role": "user", "content": SECRET}], max_tokens=3, n=2, seed=4)
    prompts = server.complete(prompt=["1+1=", "2+2="], max_tokens=2)
    refused = server.chat(messages=PUZZLE, temperature=9)
    ids = [each.headers["x-request-id"] for each in (reply, prompts, refused)]
    chat, completion, wrong = requests_of(stream, *ids)
    usage = reply.json()["usage"]
    assert chat["model"] == "penny" and chat["prompt_tokens"] == usage["prompt_tokens"]
    assert chat["generated_tokens"] == usage["completion_tokens"] and len(chat["finish_reasons"]) == 2
    assert 0 < chat["first_token_s"] <= chat["seconds"]
    assert completion["generated_tokens"] == prompts.json()["usage"]["completion_tokens"]
    assert len(completion["finish_reasons"]) == 2
    assert (wrong["status"], refused.status) == (400, 400) and "model" not in wrong
    assert SECRET not in stream.getvalue()


@pytest.mark.usefixtures("restored")
def test_the_cause_of_a_500_is_in_the_log_alone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise BadFile("a secret file is corrupt")

    monkeypatch.setattr(chat, "ask_of", broken)
    stream = io.StringIO()
    logs.set_up(stream)
    reply = server.chat()
    assert reply.status == 500 and "secret" not in reply.body.decode()
    requests_of(stream, reply.headers["x-request-id"])
    assert any("a secret file is corrupt" in line.get("exception", "") for line in lines_of(stream))


@pytest.mark.usefixtures("restored")
def test_a_client_that_leaves_is_in_the_log(server: Server) -> None:
    stream = io.StringIO()
    logs.set_up(stream)

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    body = json.dumps({"model": "penny", "messages": PUZZLE, "stream": True, "ignore_eos": True})
    headers = {"content-type": "application/json", "x-request-id": "leaves"}
    connection.request("POST", "/v1/chat/completions", body, headers)
    connection.getresponse().read(50)
    connection.close()
    assert server.is_empty()
    (line,) = requests_of(stream, "leaves")
    assert line["finish_reasons"] == ["abort"] and line["generated_tokens"] > 0


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/glance"])
def test_a_client_that_leaves_in_its_body_is_no_failure(server: Server, path: str) -> None:
    stream = io.StringIO()
    logs.set_up(stream)
    own = f"leaves-in-its-body{path.replace('/', '.')}"
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 50\r\nx-request-id: {own}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + b"{")
    (line,) = requests_of(stream, own)
    assert (line["route"], line["status"], line["level"]) == (path, logs.CLIENT_GONE, "info")
    assert not any("exception" in each for each in lines_of(stream))
