"""`/glance`: how the server is, for a watch, e-ink, a terminal or a link preview; and a plain form to ask.

One small page without scripts that draws itself anew; the same as plain text for whoever does not ask for
HTML. The form puts one question to one model through our own API, so keys, limits and refusals are those of
the API; it is a page of its own, since a page that draws itself anew would lose what is being typed. Leaves
out conversations, which are the chat page's, and pages of other origins, which `limits.py` keeps out.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from html import escape
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message

from groschen import machine
from groschen.evals.report_text import Words
from groschen.serve.health import health_of
from groschen.serve.host import Host
from groschen.serve.page_files import SAFE_HEADERS
from groschen.serve.page_words import language_of, words_of

_REFRESH_S = 10
_LONGEST_FORM = 1 << 16  # bytes
_STYLE = (
    ":root{color-scheme:light dark;--ink:light-dark(#1f1b16,#ece6dc);--muted:light-dark(#5d554b,#b5ab9d);"
    "--accent:light-dark(#9a4a14,#eda268)}"
    "body{margin:.5rem;font:1.1rem/1.35 system-ui,sans-serif;color:var(--ink);"
    "background:light-dark(#fbf9f5,#161412);max-width:40rem;overflow-wrap:anywhere}"
    "h1,p{margin:0 0 .5rem}h1{font-size:1rem;font-weight:400;color:var(--muted)}"
    ".big{font:600 clamp(1.3rem,9vw,2.1rem)/1.15 Charter,Cambria,Georgia,serif;"
    "font-variant-numeric:tabular-nums lining-nums}"
    ".dead{color:light-dark(#a3261c,#f49d93)}.text{white-space:pre-wrap}.note{color:var(--muted);font-size:.95rem}"
    "a{color:var(--accent)}label{display:block;margin:.6rem 0 .2rem}"
    "textarea,select,button{font:inherit;width:100%;box-sizing:border-box;padding:.6rem;min-height:44px;"
    "color:inherit;background:transparent;border:1px solid var(--muted);border-radius:.5rem}"
    "option{background:Canvas;color:CanvasText}button{margin-top:.6rem;font-weight:600}"
    ":focus-visible{outline:3px solid light-dark(#1d5b87,#84bbe6);outline-offset:2px}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    **SAFE_HEADERS,
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Vary": "Accept, Accept-Language, Cookie",
}


@dataclass(frozen=True, slots=True)
class Glance:
    """What the three lines say. tokens_per_s: what all open answers together have been drawn at."""

    state: str
    models: tuple[str, ...]
    running: int
    waiting: int
    tokens_per_s: float


def glance_of(host: Host) -> Glance:
    """How the host is at this moment."""
    health, now = health_of(host), machine.seconds()
    speeds = [
        ticket.num_tokens / (now - ticket.first_s)
        for ticket in host.tickets
        if ticket.has_begun and now > ticket.first_s
    ]
    names = tuple(health.models) or tuple(wanted.name for wanted in host.wanted)
    return Glance(health.status, names, health.running, health.waiting, sum(speeds))


async def glance(request: Request) -> Response:
    """The three lines as HTML or as text; with `?ask` the form."""
    words, seen = words_of(language_of(request)), glance_of(request.app.state.host)
    if "ask" in request.query_params:
        return _page(words, words("glance.ask"), _form(words, seen))
    lines = _lines(words, seen)
    if "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse("\n".join(lines) + "\n", headers=HEADERS)
    look = "big dead" if seen.state == "dead" else "big"
    body = f'<p class="{look}">{escape(lines[0])}</p>'
    body += "".join(f'<p class="big">{escape(line)}</p>' for line in lines[1:])
    is_still = "still" in request.query_params
    address, key = ("/glance", "glance.moving") if is_still else ("/glance?still", "glance.still")
    other = _link(address, words(key))
    body += f"<p>{_link('/glance?ask', words('glance.ask'))} \u00b7 {other}</p>"
    return _page(words, ", ".join(seen.models), body, " \u00b7 ".join(lines), refreshes=not is_still)


def _lines(words: Words, seen: Glance) -> list[str]:
    speed = words.number(seen.tokens_per_s, 0 if seen.tokens_per_s >= 10 else 1)
    work = words("glance.work", running=words.count(seen.running), waiting=words.count(seen.waiting))
    return [
        words(f"glance.{seen.state}"),
        ", ".join(seen.models),
        f"{work} \u00b7 {words('glance.speed', speed=speed)}" if seen.running else work,
    ]


async def ask(request: Request) -> Response:
    """The answer to one question, whole, as plain as it came."""
    words, host = words_of(language_of(request)), request.app.state.host
    fields = await _fields(request)
    if fields is None:
        return PlainTextResponse(words("glance.too_long") + "\n", 413, headers=HEADERS)
    seen, text, model = glance_of(host), fields.get("text", "").strip(), fields.get("model", "")
    if not text:
        return _page(words, words("glance.ask"), _form(words, seen), status=400)
    status, answer = await _through_api(request, model, text)
    heading = words("glance.answer" if status == 200 else "glance.refused", model=model)
    body = f'<p class="note text">{escape(text)}</p><p><b>{escape(heading)}</b></p>'
    body += f'<p class="text" dir="auto">{escape(answer)}</p>' + _form(words, seen, model)
    return _page(words, heading, body, status=status)


def _form(words: Words, seen: Glance, chosen: str = "") -> str:
    options = "".join(
        f"<option{' selected' if name == chosen else ''}>{escape(name)}</option>" for name in seen.models
    )
    return (
        f'<form method="post" action="/glance"><label for="model">{escape(words("bar.model"))}</label>'
        f'<select id="model" name="model">{options}</select>'
        f'<label for="text">{escape(words("composer.label"))}</label>'
        '<textarea id="text" name="text" rows="4" required></textarea>'
        f"<button>{escape(words('glance.send'))}</button></form>"
        f'<p class="note">{escape(words("glance.wait"))} '
        f"{_link('/glance', words('glance.back'))}</p>"
    )


def _link(address: str, text: str) -> str:
    return f'<a href="{address}">{escape(text)}</a>'


def _page(
    words: Words, title: str, body: str, preview: str = "", *, refreshes: bool = False, status: int = 200
) -> Response:
    about = escape(preview or title)
    text = (
        f'<!doctype html><html lang="{words.language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="disabled-adaptations" content="watch">'
        f'<meta property="og:title" content="groschen"><meta property="og:description" content="{about}">'
        '<meta property="og:type" content="website">'
        f"<title>groschen: {escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>groschen</h1>{body}</main></body></html>\n"
    )
    headers = {**HEADERS, "Content-Language": words.language}
    if refreshes:  # as a header: the page can be held still, which a tag inside of it could not be
        headers["Refresh"] = str(_REFRESH_S)
    return Response(text, status, headers=headers, media_type="text/html; charset=utf-8")


# -- the form
# --------------------------------------------------------------------------------------------------------


async def _fields(request: Request) -> dict[str, str] | None:
    """The fields of the form; None if it is too long."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _LONGEST_FORM:
            return None
    found = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[-1] for name, values in found.items()}


async def _through_api(request: Request, model: str, text: str) -> tuple[int, str]:
    """Status and text of the model's answer, or what the API says against it."""
    sent = json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode()
    kept = [pair for pair in request.scope["headers"] if pair[0] in (b"authorization", b"host")]
    path = "/v1/chat/completions"
    headers = [*kept, (b"content-type", b"application/json"), (b"content-length", str(len(sent)).encode())]
    ours = ("type", "asgi", "http_version", "scheme", "server", "client", "root_path", "state", "extensions")
    scope = {name: request.scope[name] for name in ours if name in request.scope}
    scope |= {
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
    }
    to_send: list[Message] = [{"type": "http.request", "body": sent, "more_body": False}]
    status, received = 500, b""

    async def receive() -> Message:
        return to_send.pop() if to_send else await request.receive()  # then: until the reader has gone

    async def send(message: Message) -> None:
        nonlocal status, received
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            received += message.get("body", b"")

    await request.app(scope, receive, send)
    if not received:
        return status, ""  # the reader has gone
    answer = json.loads(received)
    if status != 200:
        return status, str(answer["error"]["message"])
    return status, str(answer["choices"][0]["message"]["content"] or "")
