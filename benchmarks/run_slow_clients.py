"""What a server has left for others while 300 clients send half a head each and others send texts of 7 MB.

    python benchmarks/run_slow_clients.py [--model penny] [--seconds 10] [--repeats 5] [--descriptors 256]

A real `groschen serve` (with --descriptors: one that may open no more files than that), and against it at
once: 300 connections that send half the head of a request and wait, each opened anew when it is closed; one
client that asks about a text of 7 MB again and again; and eight ordinary streams. Meanwhile a process of its
own asks /health every 100 ms. Told are its answers' times, the longest gap in a stream, and what the
server's memory has grown by when all is over. Be alone on the machine: the clients, the probe and the engine
share its cores.
"""

import argparse
import asyncio
import contextlib
import datetime as dt
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from health_probe import HealthProbe
from programs import HERE, Program
from run_engine import commit, is_dirty, machine_words
from servers import PORT, Server

NUM_SLOW, NUM_STREAMS, TEXT_BYTES = 300, 8, 7_000_000
_HALF = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-half: "
_SETTLE_S = 3.0  # from the end of the load to the look at the memory
_HOST = "127.0.0.1"


@dataclass
class Seen:
    """What one repeat has shown. Seconds, but for the counts."""

    health_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)  # the longest of each stream
    refusal_s: list[float] = field(default_factory=list)  # of the long texts
    statuses: dict[int, int] = field(default_factory=dict)
    num_closed: int = 0  # slow connections that the server closed
    num_tokens: int = 0


async def slow_client(port: int, seen: Seen) -> None:
    """Sends half a head and waits; begins again when it is thrown out."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(_HOST, port)
            writer.write(_HALF)
            await reader.read(-1)
            seen.num_closed += 1
            writer.close()
        except OSError:
            pass
        await asyncio.sleep(0.2)


async def post(port: int, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int]:
    """The reader behind the headers of the answer, and its status."""
    reader, writer = await asyncio.open_connection(_HOST, port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {_HOST}\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
    await writer.drain()
    status = int((await reader.readline()).split()[1])
    while (await reader.readline()).strip():
        pass
    return reader, writer, status


async def long_texts(port: int, name: str, seen: Seen) -> None:
    """Asks about 7 MB of text, again and again; each is refused as too long."""
    words = " ".join(f"word{number % 997}" for number in range(TEXT_BYTES // 8))
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": words}]}).encode()
    while True:
        start = time.perf_counter()
        reader, writer, status = await post(port, body)
        await reader.read(-1)
        writer.close()
        seen.statuses[status] = seen.statuses.get(status, 0) + 1
        seen.refusal_s.append(time.perf_counter() - start)
        await asyncio.sleep(0.2)


async def stream(port: int, name: str, seed: int, seen: Seen) -> None:
    """Reads one answer after another; notes the longest wait between two pieces of one."""
    longest = 0.0
    question = [{"role": "user", "content": "Make 24 from 2, 3 and 4."}]
    body = {"model": name, "messages": question, "stream": True, "ignore_eos": True, "max_tokens": 200}
    try:
        while True:
            reader, writer, _ = await post(port, json.dumps({**body, "seed": seed}).encode())
            last = None
            while line := await reader.readline():
                if line.startswith(b"data: {"):
                    now = time.perf_counter()
                    longest = max(longest, now - last) if last is not None else longest
                    last, seen.num_tokens = now, seen.num_tokens + 1
            writer.close()
    finally:
        seen.gaps_s.append(longest)


def resident_mb(session: int) -> float:
    """Of the server's process, MB."""
    lines = Path(f"/proc/{session}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1000


async def under_load(port: int, name: str, seconds: float) -> Seen:
    """Everything at once."""
    seen = Seen()
    probe = await HealthProbe.start(port)
    load = [asyncio.create_task(slow_client(port, seen)) for _ in range(NUM_SLOW)]
    load += [asyncio.create_task(stream(port, name, seed, seen)) for seed in range(NUM_STREAMS)]
    load.append(asyncio.create_task(long_texts(port, name, seen)))
    await asyncio.sleep(seconds)
    seen.health_s = await probe.seconds()
    for task in load:
        task.cancel()
    await asyncio.gather(*load, return_exceptions=True)
    return seen


def measure(flags: argparse.Namespace, log: Path) -> dict[str, object]:
    """One server from its start to its end."""
    limit = f"ulimit -n {flags.descriptors}; " if flags.descriptors else ""
    serve = f"{sys.executable} -m groschen serve {flags.model} --name measured --port {PORT}"
    command = ("bash", "-c", f"{limit}exec {serve}")
    server = Server(Program("groschen", command, {"PYTHONPATH": str(HERE.parent / "src")}), log, 120.0)
    try:
        asyncio.run(under_load(server.port, "measured", 2.0))  # warm: the first of everything
        time.sleep(_SETTLE_S)
        process = server._process.pid
        before_mb, before_s, written = resident_mb(process), server.cpu_seconds(), log.stat().st_size
        seen = asyncio.run(under_load(server.port, "measured", flags.seconds))
        time.sleep(_SETTLE_S)
        return {
            "health_ms": [1000 * each for each in seen.health_s],
            "longest_gap_ms": 1000 * max(seen.gaps_s), "tokens": seen.num_tokens,
            "refusals_s": seen.refusal_s, "statuses": seen.statuses, "slow_closed": seen.num_closed,
            "grown_mb": resident_mb(process) - before_mb, "log_kb": (log.stat().st_size - written) / 1000,
            "cpu_seconds": server.cpu_seconds() - before_s,
        }  # fmt: skip
    finally:
        server.end()


def main() -> None:
    given = argparse.ArgumentParser(description="slow clients and long texts against one server")
    given.add_argument("--model", default="penny")
    given.add_argument("--seconds", type=float, default=10.0)
    given.add_argument("--repeats", type=int, default=5)
    given.add_argument(
        "--descriptors", type=int, default=0, help="files that the server may open; 0: as ever"
    )
    given.add_argument("--allow-dirty", action="store_true")
    flags = given.parse_args()
    dirty = is_dirty()
    if dirty and not flags.allow_dirty:
        raise SystemExit("there are uncommitted changes: commit them, or mark the result with --allow-dirty")
    with contextlib.suppress(AttributeError):  # the clients' own descriptors
        import resource

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    runs = []
    with tempfile.TemporaryDirectory() as place:
        for number in range(flags.repeats):
            runs.append(measure(flags, Path(place) / f"{number}.log"))
            health = runs[-1]["health_ms"]
            assert isinstance(health, list)
            words = {
                name: value for name, value in runs[-1].items() if name not in ("health_ms", "refusals_s")
            }
            print(
                f"/health median {statistics.median(health):.1f} ms, worst {max(health):.1f} ms; {words}",
                flush=True,
            )
    worst = [max(run["health_ms"]) for run in runs]  # type: ignore[call-overload]
    result = {
        "name": "slow-clients", "commit": commit(dirty), "dirty": dirty, "date": dt.date.today().isoformat(),
        "machine": machine_words(), "load_average": os.getloadavg()[0],
        "command": " ".join(["python benchmarks/run_slow_clients.py", *sys.argv[1:]]),
        "unit": "ms to the worst answer of /health in one repeat", "repeats": flags.repeats,
        "median": statistics.median(worst), "min": min(worst), "max": max(worst), "runs": runs,
    }  # fmt: skip
    suffix = f"-{flags.descriptors}" if flags.descriptors else ""
    (HERE / "results" / f"slow-clients{suffix}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
