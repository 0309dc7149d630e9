"""Open connections: how many there may be, and how long one may take to say what it wants.

A connection that has sent no head of a request costs the server a file descriptor, and its client nothing. So
a head has to be whole in time; and where there are too many connections, the one that has waited longest for
a head gives way to the newest, whose head is probably on its way. Open answers are never ended for others.
Leaves out bodies and the queue (`limits.py`).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from groschen import machine
from groschen.serve.faults import ApiFault

log = logging.getLogger("groschen.serve")

HEAD_SECONDS = 10.0  # for the head of a request, from its first byte or from the connection's beginning
MOST_CONNECTIONS = 4096
_OWN_FILES = 64  # descriptors that the process needs for other things than connections
_ADDRESS_SHARE = 0.75  # of all connections that one address may have
_WORD_S = 60.0  # between two lines of the log about the same trouble


class Connections:
    """The connections of one server; belongs to the event loop.

    most: how many there may be. waiting: those that wait for the head of a request, the longest first; an
    answer may have gone before.
    """

    def __init__(self, most: int, head_seconds: float = HEAD_SECONDS) -> None:
        self.most, self.head_seconds = most, head_seconds
        self.most_of_address = max(int(most * _ADDRESS_SHARE), 1)
        self.open: dict[Door, None] = {}
        self.waiting: dict[Door, None] = {}
        self._by_address: Counter[str] = Counter()
        self._said: dict[str, tuple[float, int]] = {}  # when, and how often since

    def admit(self, door: "Door") -> bool:
        """Count a new connection; another may be closed for it. False: there is no room."""
        address = door.address
        has_room = True
        if self._by_address[address] >= self.most_of_address:
            has_room = self._close_oldest(address)
        elif len(self.open) >= self.most:
            has_room = self._close_oldest()
        self.open[door] = None
        self._by_address[address] += 1
        if not has_room:
            self.say("%d more connections were refused: there are too many open answers")
        return has_room

    def forget(self, door: "Door") -> None:
        """A connection is closed."""
        self.waiting.pop(door, None)
        if door in self.open:
            del self.open[door]
            self._by_address -= Counter({door.address: 1})

    def out_of_descriptors(self) -> None:
        """The process may open no more files: one that waits gives way."""
        self.say("%d connections could not be accepted: the process may open no more files (ulimit -n)")
        self._close_oldest()

    def say(self, words: str) -> None:
        """A line in the log with the number of times that it is due, at most one in a minute."""
        last_s, count = self._said.get(words, (-_WORD_S, 0))
        now = machine.seconds()
        if now - last_s >= _WORD_S:
            log.warning(words, count + 1)
            last_s, count = now, -1
        self._said[words] = (last_s, count + 1)

    def _close_oldest(self, address: str | None = None) -> bool:
        """Close the connection that has waited longest for its head; False if none waits."""
        oldest = next((each for each in self.waiting if address in (None, each.address)), None)
        if oldest is None:
            return False
        self.say("%d connections without the head of a request were closed, to make room for others")
        oldest.give_up()
        self.forget(oldest)
        return True


class Door(H11Protocol):
    """One connection."""

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all = connections
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        """Where the client is; without the port."""
        return self.client[0] if self.client else ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        if self._all.admit(self):
            self._all.waiting[self] = None
            self._time_head()
        else:
            self._refuse(
                503, "There are too many connections; try again in a moment.", "too_many_connections"
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._stop_waiting()
        self._all.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer is whole; the next head may have begun to arrive behind it."""
        super().on_response_complete()
        self._watch()

    def give_up(self) -> None:
        """Close it without a word."""
        self._stop_waiting()
        self.transport.abort()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif not self.transport.is_closing():
            self._all.waiting.setdefault(self)
            if self.conn.trailing_data[0]:  # without a byte of it, uvicorn's keep-alive timer runs
                self._time_head()

    def _time_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._all.head_seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        self._all.waiting.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._stop_waiting()
        seconds = f"{self._all.head_seconds:g}"
        self._refuse(408, f"The head of the request was not whole after {seconds} s.", "request_timeout")

    def _refuse(self, status: int, message: str, code: str) -> None:
        """An answer without a request, and the end of the connection."""
        body = ApiFault(message, status=status, code=code).body()
        head = (
            f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        )
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()


_PHRASES = {408: "Request Timeout", 503: "Service Unavailable"}


def most_connections(open_files: int) -> int:
    """How many connections a process may have that may open so many files."""
    return max(min(open_files - _OWN_FILES, MOST_CONNECTIONS), 16)


def on_loop_error(connections: Connections) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """What the event loop calls with what went wrong in it.

    Until Python 3.13, asyncio tells each failed accept by itself, thousands in a second.
    """

    def tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "socket.accept()" in str(context.get("message")):
            connections.out_of_descriptors()
        else:
            loop.default_exception_handler(context)

    return tell
