"""A crowd of clients in a process of its own, so that the server's memory can be told from theirs.

    python crowd.py PORT COUNT SEED TOKENS

Each opens a stream at once; every third vanishes at a random moment, without a word. Prints one JSON object:
the text of each client that stayed (by its number), how many were connected at once, and the seconds it took.
"""

import asyncio
import hashlib
import json
import random
import sys
import time

LIMIT_S = 240.0
PUZZLE = [{"role": "user", "content": "Make 24 from 2, 3 and 4."}]


class Crowd:
    """All clients of one wave."""

    def __init__(self, port: int, count: int, seed: int, tokens: int) -> None:
        self.port, self.tokens = port, tokens
        chooser = random.Random(seed)
        # After so many seconds, be it in the queue, in the prompt or in the answer; None: never.
        self.patience = [chooser.uniform(0, 3) if i % 3 == 0 else None for i in range(count)]
        self.open, self.most_open = 0, 0

    async def run(self) -> dict[str, object]:
        begun = time.perf_counter()
        visits = [asyncio.wait_for(self.visit(i), LIMIT_S) for i in range(len(self.patience))]
        ends = await asyncio.gather(*visits)
        seconds = time.perf_counter() - begun
        kept = {i: text for i, text in enumerate(ends) if text is not None}
        return {"texts": kept, "most_open": self.most_open, "seconds": seconds}

    async def visit(self, number: int) -> str | None:
        """The hash of what a client was sent; None for one that has vanished."""
        body = {"model": "penny", "messages": PUZZLE, "seed": number, "stream": True, "ignore_eos": True,
                "max_tokens": self.tokens}  # fmt: skip
        content = json.dumps(body).encode()
        head = (f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
                f"content-length: {len(content)}\r\nconnection: close\r\n\r\n").encode()  # fmt: skip
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            writer.write(head + content)
            try:
                received = await asyncio.wait_for(reader.read(-1), self.patience[number])
            except TimeoutError:
                writer.transport.abort()
                return None
            return digest(received)
        finally:
            self.open -= 1
            writer.close()


def digest(received: bytes) -> str:
    """Of the text of a stream that has ended as it should, else what was wrong with it."""
    if b"200 OK" not in received[:20] or b"[DONE]" not in received:
        return f"broken: {received[:300]!r} ... {received[-300:]!r}"
    text = ""
    for line in received.decode().splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                text += choice["delta"].get("reasoning", "") + "|" + choice["delta"].get("content", "")
    return hashlib.sha256(text.replace("|", "").encode()).hexdigest()[:16]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Crowd(*map(int, sys.argv[1:])).run())))  # noqa: T201
