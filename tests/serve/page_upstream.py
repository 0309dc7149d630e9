"""A stand-in for the server, for tests of the chat page alone: the page's own routes, and an API that streams
recorded answers. What the page does with the real one is tested against `groschen serve penny`.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from groschen.serve.host import Host
from groschen.serve.limits import KnownHosts
from groschen.serve.pages import routes
from groschen.serve.served import Wanted

RICH = """## The root of 2

Assume \\(\\sqrt{2} = \\frac{a_1*b*c}{d}\\) with `$x$ \\(y\\)` left alone; $5 and $10 stay money. Then

\\[ \\int_0^1 x^2 \\, dx = \\frac{1}{3} \\qquad \\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix} \\]

1. First **bold**, then *soft*, 3*5+8*2 stays a sum
2. [a link](https://example.org/) and ![a picture](https://example.org/x.png)

```python
def merge(spans):
    return sorted(spans)  # <b>not bold</b>
```

| n | value |
|--:|:--|
| 1 | one |
| 2 | two |

<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>
<answer>(8-5)*3</answer>
"""
THOUGHT = "8-3=5\n5*5=25 ✗\n5-5=0 ✗\n\n8-5=3\n3*3=9 ✓\n"
CHANCES = (0.97, 0.72, 0.41, 0.18, 0.04)


@dataclass
class Upstream:
    """What the stand-in does next, and what it was sent."""

    delay_s: float = 0.0
    key: str = ""
    answers: list[str] = field(default_factory=list)  # used up in turn; RICH when empty
    faults: list[tuple[int, dict[str, object], dict[str, str]]] = field(default_factory=list)
    breaks_after: int = 0  # chunks, then the connection is cut
    bodies: list[dict[str, object]] = field(default_factory=list)
    was_left: int = 0  # streams that the page ended


def app(upstream: Upstream, models: tuple[str, ...] = ("penny", "teacher")) -> Starlette:
    """The stand-in."""

    def refusal(request: Request) -> Response | None:
        if upstream.key and request.headers.get("authorization") != f"Bearer {upstream.key}":
            error = {"message": "Incorrect API key provided.", "type": "invalid_request_error", "code": None}
            return JSONResponse({"error": error}, 401)
        if upstream.faults and request.method == "POST":
            status, error, headers = upstream.faults.pop(0)
            return JSONResponse({"error": error}, status, headers)
        return None

    async def list_models(request: Request) -> Response:
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "groschen"} for name in models]
        return refusal(request) or JSONResponse({"object": "list", "data": listed})

    async def chat(request: Request) -> Response:
        body = json.loads(await request.body())
        refused = refusal(request)
        if refused is not None:
            return refused
        upstream.bodies.append(body)
        text = upstream.answers.pop(0) if upstream.answers else RICH
        if not body.get("stream"):
            return JSONResponse({"choices": [{"message": {"role": "assistant", "content": text}}]})
        return StreamingResponse(_stream(upstream, body, text), media_type="text/event-stream")

    host = Host([Wanted(name=name, source=name) for name in models])
    host.state = "ready"
    own = [
        Route("/v1/models", list_models),
        Route("/v1/chat/completions", chat, methods=["POST"]),
    ]
    made = Starlette(routes=[*own, *routes()], middleware=[Middleware(KnownHosts)])
    made.state.host = host
    return made


async def _stream(upstream: Upstream, body: dict[str, object], text: str) -> AsyncIterator[bytes]:
    thought = [] if body.get("reasoning_effort") == "none" else pieces(THOUGHT)
    sent = 0
    try:
        yield event({"role": "assistant", "content": ""})
        for part, tokens in (("reasoning", thought), ("content", pieces(text))):
            for place, piece in enumerate(tokens):
                await asyncio.sleep(upstream.delay_s)
                delta = (
                    {"content": piece}
                    if part == "content"
                    else {"reasoning_content": piece, "reasoning": piece}
                )
                logprobs = {part: [logprob_of(piece, place)]} if body.get("logprobs") else None
                yield event(delta, logprobs=logprobs)
                sent += 1
                if upstream.breaks_after == sent:
                    upstream.breaks_after = 0
                    return
        yield event({}, finish_reason="stop")
        usage = {
            "prompt_tokens": 34, "completion_tokens": sent, "total_tokens": 34 + sent,
            "completion_tokens_details": {"reasoning_tokens": len(thought)},
        }  # fmt: skip
        yield (
            b"data: " + json.dumps({"choices": [], "usage": usage, "model": body["model"]}).encode() + b"\n\n"
        )
        yield b"data: [DONE]\n\n"
    except (asyncio.CancelledError, GeneratorExit):
        upstream.was_left += 1
        raise


def pieces(text: str) -> list[str]:
    """A text in tokens of about four characters."""
    return [text[at : at + 4] for at in range(0, len(text), 4)]


def event(delta: dict[str, str], finish_reason: str | None = None, logprobs: object = None) -> bytes:
    """One event of the stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def logprob_of(piece: str, place: int) -> dict[str, object]:
    """A token with a probability that depends on its place, and two others."""
    chance = CHANCES[place % len(CHANCES)]
    others = [(piece, chance), ("other", (1 - chance) * 0.6), (" \n", (1 - chance) * 0.3)]
    listed = [{"token": each, "logprob": math.log(share), "bytes": None} for each, share in others]
    return {"token": piece, "logprob": math.log(chance), "bytes": None, "top_logprobs": listed}
