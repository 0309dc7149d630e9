"""How much a client may ask for, and from where: the size and the pace of a body, the length of the queue,
the names that the server answers to.

Pure ASGI middleware; each refusal is an error of `faults.py`. No CORS header is ever sent, so a page of
another origin can read nothing; `KnownHosts` sees to it that it can't start anything either. Leaves out keys
(`keys.py`) and how long a prompt may be (the engine knows).
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from math import ceil

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groschen import machine
from groschen.serve import faults
from groschen.serve.faults import ApiFault

MAX_BODY_BYTES = 8 * 1024 * 1024
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
GENERATING = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"})

_BODY_SECONDS = 60.0  # for a whole body: a client that sends a byte now and then holds a connection for ever
# How much of a body that is too large is read and thrown away: what clients send before they look for an
# answer.
_LINGER_SECONDS, _LINGER_BYTES = 10.0, 256 * 1024 * 1024
_SILENCE_SECONDS = 1.0  # without a byte of it: the client has stopped, or waits for the answer
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class BodyLimit:
    """Refuses a body of more than `limit` bytes with 413 as soon as that is known, a slow one with 408."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES, seconds: float = _BODY_SECONDS) -> None:
        self._app, self._limit, self._seconds = app, limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI wants it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._limit:
            await self._refuse(faults.too_large(self._limit), receive, send)
            return
        body = _Body(receive, self._limit, self._seconds)
        begun = False

        async def send_and_see(message: Message) -> None:
            nonlocal begun
            if body.fault is not None and not begun:  # the application's own answer to the exception
                return
            begun = True
            await send(message)

        try:
            await self._app(scope, body.receive, send_and_see)
        except ApiFault as fault:
            if fault is not body.fault:
                raise
        if body.fault is not None and not begun:
            await self._refuse(body.fault, receive, send)

    async def _refuse(self, fault: ApiFault, receive: Receive, send: Send) -> None:
        """The whole answer first; then the body is read and thrown away before the connection is closed,
        because a client that still sends when it is closed loses the answer.
        """
        response = fault.response()
        start = {"type": "http.response.start", "status": fault.status, "headers": response.raw_headers}
        await send(start)
        await send({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
        thrown, deadline = 0, machine.seconds() + _LINGER_SECONDS
        while thrown < _LINGER_BYTES and (left := deadline - machine.seconds()) > 0:
            try:
                message = await asyncio.wait_for(receive(), min(left, _SILENCE_SECONDS))
            except TimeoutError:
                break
            thrown += len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                break
        await send({"type": "http.response.body", "body": b""})


class _Body:
    """`receive` of one request, counted and timed until the body is whole."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive, self._limit, self._seconds = receive, limit, seconds
        self._deadline = machine.seconds() + seconds
        self._size, self._is_whole = 0, False
        self.fault: ApiFault | None = None

    async def receive(self) -> Message:
        """The next message. Raises ApiFault when there is too much of it or it comes too slowly."""
        if self._is_whole:
            return await self._receive()
        try:
            left = max(self._deadline - machine.seconds(), 0.0)
            message = await asyncio.wait_for(self._receive(), left)
        except TimeoutError:
            self.fault = ApiFault(
                f"The body was not whole after {self._seconds:.0f} s.",
                status=408,
                code="request_timeout",
                headers={"connection": "close"},
            )
            raise self.fault from None
        self._size += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._size > self._limit:
            self.fault = faults.too_large(self._limit)
            raise self.fault
        return message


class QueueLimit:
    """Refuses with 429 what would wait behind `limit` others, before its body is read.

    rows: how many requests the engines work on at once. A request that generates is counted from its arrival
    to the last byte of its answer. The headers `x-queue-depth` (requests that waited when it came) and
    `x-queue-position` (its own place, 0: none before it waits) go with every answer.
    """

    def __init__(
        self, app: ASGIApp, rows: Callable[[], int], limit: int, paths: Iterable[str] = GENERATING
    ) -> None:
        self._app, self._rows, self._limit = app, rows, limit
        self._paths = frozenset(paths)
        self._num_open = 0
        self._last_end: float | None = None
        self._seconds_each = 1.0  # between two answers that end, smoothed; 1 until one has ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI wants it."""
        if scope["type"] != "http" or scope["path"] not in self._paths or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        waiting = max(self._num_open - self._rows(), 0)
        is_behind = self._num_open >= self._rows()
        if is_behind and waiting >= self._limit:
            fault = faults.queue_full(waiting, self._limit, self._retry_after_s(waiting))
            await fault.response()(scope, receive, send)
            return
        position = waiting + 1 if is_behind else 0

        async def send_with_place(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-queue-depth"], headers["x-queue-position"] = str(waiting), str(position)
            await send(message)

        self._num_open += 1
        try:
            await self._app(scope, receive, send_with_place)
        finally:
            self._num_open -= 1
            self._ended()

    def _ended(self) -> None:
        now = machine.seconds()
        if self._last_end is not None:
            self._seconds_each += 0.1 * (min(now - self._last_end, 60.0) - self._seconds_each)
        self._last_end = now

    def _retry_after_s(self, waiting: int) -> int:
        """When about half of those who wait have been served; 1 to 60 s."""
        return min(max(ceil(waiting * self._seconds_each / 2), 1), 60)


class KnownHosts:
    """Refuses what a page of another origin could send through the browser of somebody at this machine.

    names: the host names that this server answers to, None for any. A name that an attacker lets point to
    127.0.0.1 (DNS rebinding) is not among them. Requests that change something must come from the same origin
    if a browser sends them, as `Sec-Fetch-Site` or `Origin` tells.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str] | None = LOCAL_NAMES) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI wants it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            fault = self._unknown(headers) or _foreign(scope["method"], headers)
            if fault is not None:
                await fault.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _unknown(self, headers: Headers) -> ApiFault | None:
        name = _host_name(headers.get("host", ""))
        if self._names is None or name in self._names:
            return None
        return ApiFault(
            f"The host {faults.short(name)} is not one that this server answers to; it is bound to this "
            "machine only: use http://127.0.0.1, or start it with --host.",
            status=403,
            code="host_not_allowed",
        )


def _foreign(method: str, headers: Headers) -> ApiFault | None:
    """The fault of a request that another origin's page sent, None otherwise."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if method in _SAFE_METHODS or site in ("same-origin", "none") or (site is None and origin is None):
        return None
    if site is None and origin is not None and origin.partition("://")[2] == headers.get("host"):
        return None
    return ApiFault(
        "A page of another origin may not use this server.", status=403, code="origin_not_allowed"
    )


def _host_name(host: str) -> str:
    """Without the port, in small letters; `[::1]:80` is `::1`."""
    found = re.fullmatch(r"\[([^\]]*)\](?::\d*)?|([^:]*)(?::\d*)?", host.strip().lower())
    return (found[1] or found[2] or "") if found else ""
