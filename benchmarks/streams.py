"""Clients of a chat server over HTTP: streamed answers in a closed loop.

Plain asyncio streams; of a stream's events only the one with the counts is parsed while the clock runs,
because the client shares its cores with the server. Leaves out starting servers (servers.py), the probe of
/health (health_probe.py, a process of its own) and what the times mean (serve_figures.py). Source: RFC 9112
section 7.1 (chunks), the HTML standard's server-sent events.
"""

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from health_probe import HealthProbe
from programs import Failed

_HOST = "127.0.0.1"
_TEXT = re.compile(rb'"(?:reasoning_)?content"\s*:\s*"(?!")')
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_ERROR = re.compile(rb'^\s*\{\s*"error"')


@dataclass
class Stream:
    """One streamed answer. Times are those of time.perf_counter, in seconds.

    ended: when the counts arrived, right after the last token; None before that.
    """

    sent: float
    times: list[float] = field(default_factory=list)
    """When each event with text arrived."""
    events: list[bytes] = field(default_factory=list)
    prompt_tokens: int = 0
    tokens: int = 0
    ended: float | None = None

    def text(self) -> str:
        """The whole answer; parses every event, so not while something is measured."""
        deltas = [json.loads(event)["choices"][0]["delta"] for event in self.events]
        return "".join(each.get("content") or each.get("reasoning_content") or "" for each in deltas)

    def take(self, event: bytes) -> None:
        """The data of one server-sent event. Raises Failed for an error."""
        if _TEXT.search(event):
            self.times.append(time.perf_counter())
            self.events.append(event)
        if _USAGE.search(event):
            usage = json.loads(event)["usage"]
            self.prompt_tokens, self.tokens = usage["prompt_tokens"], usage["completion_tokens"]
            self.ended = time.perf_counter()
        elif _ERROR.match(event):
            raise Failed(f"the stream told an error: {event[:300].decode(errors='replace')}")


@dataclass(frozen=True)
class Load:
    """What clients saw. `health`: seconds to its first byte, if it was probed; `cut`: the limit came before
    the last end.
    """

    clients: int
    begun: float
    ended: float
    streams: list[Stream]
    health: list[float]
    cut: bool


async def load(port: int, bodies: Sequence[bytes], clients: int, limit_s: float, probes: bool) -> Load:
    """Sends every body once; each client sends its next when its last is answered. Raises Failed."""
    waiting, streams = deque(bodies), list[Stream]()

    async def client() -> None:
        while waiting:
            body = waiting.popleft()
            streams.append(Stream(time.perf_counter()))
            await chat(port, body, streams[-1])

    probing = await HealthProbe.start(port) if probes else None
    begun = time.perf_counter()
    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    _, pending = await asyncio.wait(tasks, timeout=limit_s, return_when=asyncio.FIRST_EXCEPTION)
    ended = time.perf_counter()
    for task in pending:
        task.cancel()
    settled = await asyncio.gather(*tasks, return_exceptions=True)
    health = await probing.seconds() if probing else []
    for each in settled:
        if isinstance(each, Exception):
            raise Failed(f"{type(each).__name__}: {each}") from each
    return Load(clients, begun, ended, streams, health, bool(pending))


async def chat(port: int, body: bytes, stream: Stream) -> None:
    """One streamed chat completion. Raises Failed for an answer that is not 200 or that counts no tokens."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {_HOST}:{port}\r\nContent-Type: application/json\r\n"
    head += f"Accept: text/event-stream\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection(_HOST, port)
    try:
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        pieces = _pieces(reader, b"transfer-encoding: chunked" in answer)
        if answer.split(None, 2)[1] != b"200":
            words = b"".join([piece async for piece in pieces])[:300].decode(errors="replace")
            raise Failed(f"{answer.splitlines()[0].decode()}: {words}")
        rest = b""
        async for piece in pieces:
            *events, rest = (rest + piece).split(b"\n\n")
            for event in events:
                stream.take(event.removeprefix(b"data:"))
    finally:
        writer.close()
    if stream.ended is None or not stream.tokens:
        raise Failed("a stream ended without counting its tokens")


async def _pieces(reader: asyncio.StreamReader, is_chunked: bool) -> AsyncIterator[bytes]:
    """The body as it arrives."""
    if not is_chunked:
        while piece := await reader.read(65536):
            yield piece
        return
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]
