"""How long /health takes to its first byte while others keep the server busy.

    python benchmarks/health_probe.py PORT      (ends when its standard input does; prints a JSON list)

A process of its own: in the loop of the clients that make the load, a probe would wait for them, and their
sixty-four connections at the start would be told as the server's delay. Leaves out the load (streams.py).
"""

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass

from programs import Failed

PROBE_S = 0.1
_HOST = "127.0.0.1"
_LATE_S = 30.0  # for probes that are still open when the load has ended


@dataclass(frozen=True)
class HealthProbe:
    """The running process, seen from the clients."""

    process: Process

    @classmethod
    async def start(cls, port: int) -> "HealthProbe":
        """Returns when the first probe was answered. Raises Failed if none is."""
        command = (sys.executable, __file__, str(port))
        probe = cls(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE))
        assert probe.process.stdout is not None
        if await probe.process.stdout.readline() != b"begun\n":
            raise Failed("the probe of /health got no answer")
        return probe

    async def seconds(self) -> list[float]:
        """Ends the probing. Seconds to each first byte. Raises Failed for a probe without an answer."""
        told, _ = await self.process.communicate(b"")  # which closes its standard input
        if self.process.returncode:
            raise Failed("the probe of /health failed; its error stands above")
        return [float(each) for each in json.loads(told)]


async def probe(port: int) -> list[float]:
    """Asks every PROBE_S on a connection of its own, whether or not the last was answered, until standard
    input ends. Raises Failed for a probe without an answer.
    """
    seconds = [await _first_byte(port)]
    print("begun", flush=True)
    ending = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    open_ones: list[asyncio.Task[float]] = []
    while not ending.done():
        open_ones.append(asyncio.create_task(_first_byte(port)))
        await asyncio.wait([ending], timeout=PROBE_S)
    _, late = await asyncio.wait(open_ones, timeout=_LATE_S)
    if late:
        raise Failed(f"{len(late)} of {len(open_ones)} probes of /health had no answer after {_LATE_S:.0f} s")
    return seconds + [task.result() for task in open_ones]


async def _first_byte(port: int) -> float:
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection(_HOST, port)
    try:
        writer.write(f"GET /health HTTP/1.1\r\nHost: {_HOST}:{port}\r\nConnection: close\r\n\r\n".encode())
        if not await reader.read(1):
            raise Failed("/health closed the connection without an answer")
        return time.perf_counter() - start
    finally:
        writer.close()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(probe(int(sys.argv[1])))))
