"""What is refused before anything is done for it."""

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from groschen import machine
from groschen.serve import faults
from groschen.serve.limits import BodyLimit, KnownHosts, QueueLimit
from serve.serving import Server

MEGABYTE = 1024 * 1024


async def count(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


def counting_app(limit: int, seconds: float = 60.0) -> Starlette:
    return Starlette(
        routes=[Route("/v1/completions", count, methods=["POST"])],
        middleware=[Middleware(BodyLimit, limit=limit, seconds=seconds)],
        exception_handlers={**faults.HANDLERS},
    )


@contextmanager
def running(app: ASGIApp, http: Any = "auto") -> Iterator[int]:
    """A real server; its port. http: what makes its connections."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off", http=http))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = machine.seconds() + 10
        while not server.started:
            assert machine.seconds() < deadline, "the server did not start"
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


# -- bodies


@pytest.mark.parametrize(("size", "status"), [(0, 200), (100, 200), (101, 413)])
def test_a_body_may_have_the_limit_and_not_a_byte_more(size: int, status: int) -> None:
    client = TestClient(counting_app(100))
    assert client.post("/v1/completions", content=b"x" * size).status_code == status
    in_chunks = client.post("/v1/completions", content=iter([b"x" * (size // 2), b"x" * (size - size // 2)]))
    assert in_chunks.status_code == status
    if status == 413:
        assert in_chunks.json()["error"]["code"] == "request_too_large"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_of_100_mb_is_refused_without_being_kept(is_chunked: bool) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * MEGABYTE

    with running(counting_app(8 * MEGABYTE)) as port:
        before = machine.resident_bytes()
        headers = {} if is_chunked else {"content-length": str(100 * MEGABYTE)}
        answer = httpx2.post(f"http://127.0.0.1:{port}/v1/completions", content=pieces(), headers=headers)
        assert answer.status_code == 413 and answer.headers["connection"] == "close"
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert machine.resident_bytes() - before < 30 * MEGABYTE
        small = httpx2.post(f"http://127.0.0.1:{port}/v1/completions", content=b"abc")
        assert small.text == "3", "the server goes on"


@pytest.mark.parametrize("size_mb", [9, 14, 60])
def test_a_client_that_sends_all_before_it_looks_for_an_answer_gets_413(size_mb: int) -> None:
    with running(counting_app(8 * MEGABYTE)) as port:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        line.request("POST", "/v1/completions", b"x" * (size_mb * MEGABYTE))
        answer = line.getresponse()
        assert answer.status == 413 and b"request_too_large" in answer.read()
        line.close()


def test_a_body_that_never_ends_is_given_up() -> None:
    with (
        running(counting_app(100, seconds=0.3)) as port,
        socket.create_connection(("127.0.0.1", port)) as line,
    ):
        line.settimeout(10)
        line.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nabc")
        answer = b""
        while part := line.recv(4096):
            answer += part
        assert answer.startswith(b"HTTP/1.1 408") and b"request_timeout" in answer


# -- the queue


def test_the_request_behind_a_full_queue_gets_429_and_a_place_is_given_back() -> None:
    asyncio.run(_fill_the_queue())


async def _fill_the_queue() -> None:
    go_on = asyncio.Event()

    async def wait(_: Request) -> PlainTextResponse:
        await go_on.wait()
        return PlainTextResponse("done")

    async def health(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ready")

    app = QueueLimit(
        Starlette(routes=[Route("/v1/completions", wait, methods=["POST"]), Route("/health", health)]),
        rows=lambda: 2,
        limit=3,
    )
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        tasks = []
        for _ in range(5):
            tasks.append(asyncio.create_task(client.post("/v1/completions")))
            await asyncio.sleep(0.01)
        refused = await client.post("/v1/completions")
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.headers["x-queue-depth"] == "3"
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert (await client.get("/health")).status_code == 200
        tasks.pop().cancel()  # a client that leaves gives its place back
        await asyncio.sleep(0.01)
        tasks.append(asyncio.create_task(client.post("/v1/completions")))
        await asyncio.sleep(0.01)
        go_on.set()
        answers = await asyncio.gather(*tasks)
        assert [answer.status_code for answer in answers] == [200] * 5
        assert [answer.headers["x-queue-position"] for answer in answers] == ["0", "0", "1", "2", "3"]
        assert (await client.post("/v1/completions")).headers["x-queue-depth"] == "0"


# -- names and origins


def hosted(names: frozenset[str] | None) -> TestClient:
    async def ok(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    routes = [Route("/v1/models", ok), Route("/v1/completions", ok, methods=["POST"])]
    return TestClient(KnownHosts(Starlette(routes=routes), names=names))


LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:8000", 403),
        ("localhost:8000@evil.example", 403),
        ("", 403),
    ],
)
def test_a_name_that_points_here_by_rebinding_is_refused(host: str, status: int) -> None:
    assert hosted(LOCAL).get("/v1/models", headers={"host": host}).status_code == status
    assert hosted(None).get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # no browser
        ({"sec-fetch-site": "same-origin", "origin": "https://proxy.example"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "http://localhost:3000"}, 403),
        ({"origin": "http://localhost:8000"}, 200),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),  # no address at all
    ],
)
def test_a_page_of_another_origin_starts_nothing(headers: dict[str, str], status: int) -> None:
    client = hosted(LOCAL)
    answer = client.post("/v1/completions", headers={"host": "localhost:8000", **headers})
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers
    assert client.get("/v1/models", headers={"host": "localhost:8000", **headers}).status_code == 200


# -- the whole server


def test_the_official_client_is_told_that_100_mb_are_too_much(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            client.completions.create(model="penny", prompt="9" * 100_000_000)
        assert caught.value.status_code == 413 and caught.value.code == "request_too_large"
        assert client.completions.create(model="penny", prompt="1+1=", max_tokens=1).usage is not None


def test_a_foreign_name_and_a_foreign_page_are_refused(server: Server) -> None:
    assert server.get("/v1/models", host="evil.example").error["code"] == "host_not_allowed"
    body = {"model": "penny", "prompt": "1+1=", "max_tokens": 1}
    refused = server.post("/v1/completions", body, origin="https://evil.example")
    assert refused.error["code"] == "origin_not_allowed"
    kept = server.post("/v1/completions", body, origin=server.url)
    assert kept.status == 200 and kept.headers["x-queue-position"] == "0"
