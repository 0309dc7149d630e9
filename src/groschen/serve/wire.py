"""Answers on their way: a stream of server-sent events, and work that ends when its client leaves.

A client that goes away is noticed while it waits, not only when something is sent to it. Leaves out what the
events say. Source: the HTML standard, "Server-sent events"; ASGI 3.0, `http.disconnect`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from groschen import machine
from groschen.serve.faults import fault_of

log = logging.getLogger("groschen.serve")

PING_S = 15.0  # of silence, after which a comment keeps proxies from closing the connection
DONE = b"data: [DONE]\n\n"
_PING = b": ping\n\n"

Emit = Callable[[bytes], Awaitable[None]]
T = TypeVar("T")
_encoder = msgspec.json.Encoder()


class ClientGoneError(Exception):
    """The client closed its connection before the answer was ready."""


def data(value: object) -> bytes:
    """One event of a stream: JSON after `data:`."""
    return b"data: " + _encoder.encode(value) + b"\n\n"


class ChunkHead:
    """What all chunks of one stream say, encoded once."""

    def __init__(self, head: Mapping[str, object]) -> None:
        self._front = b"data: " + _encoder.encode(head)[:-1] + b',"choices":['

    def event(self, choice: Mapping[str, object]) -> bytes:
        """The chunk with this choice."""
        return self._front + _encoder.encode(choice) + b"]}\n\n"


def json_response(value: object, headers: Mapping[str, str] | None = None) -> Response:
    """A whole answer."""
    return Response(_encoder.encode(value), 200, headers, "application/json")


async def unless_gone(request: Request, work: Coroutine[object, object, T]) -> T:
    """What `work` returns; it is cancelled, and ClientGoneError raised, when the client leaves.

    The body of the request must have been read.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_gone(request.receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError
    finally:
        await _end(task, watcher)


class EventStream(Response):
    """An answer that `write` sends piece by piece; each piece is whole events.

    When the client leaves, `write` is cancelled. `close` is awaited in every case. An exception after the
    headers becomes a last event with OpenAI's error object.
    """

    def __init__(
        self,
        write: Callable[[Emit], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
        headers: Mapping[str, str] | None = None,
        ping_s: float = PING_S,
    ) -> None:
        self.status_code, self.background, self.body = 200, None, b""
        self._write, self._close, self._ping_s = write, close, ping_s
        own = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
        }
        self.init_headers({**own, **(headers or {})})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, as ASGI wants it."""
        tasks = [
            asyncio.create_task(self._send_all(scope, send)),
            asyncio.create_task(_gone(receive)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            await _end(*tasks)
            await self._close()

    async def _send_all(self, scope: Scope, send: Send) -> None:
        self._last_s = machine.seconds()

        async def emit(piece: bytes) -> None:
            self._last_s = machine.seconds()
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pinger = asyncio.create_task(self._ping(emit))
        try:
            await self._write(emit)
        except Exception as error:  # the status is sent: the client must learn it from the stream
            fault = fault_of(error, request_id=scope.get("state", {}).get("request_id"))
            if fault.status == 500:
                log.exception("a stream failed")
            await emit(fault.event())
        finally:
            await _end(pinger)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _ping(self, emit: Emit) -> None:
        while True:
            silent_s = machine.seconds() - self._last_s
            if silent_s >= self._ping_s:
                await emit(_PING)
                silent_s = 0.0
            await asyncio.sleep(self._ping_s - silent_s)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: "asyncio.Task[T]") -> None:
    """Cancel what still runs and wait until it has stopped; what it raised is dealt with above."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
