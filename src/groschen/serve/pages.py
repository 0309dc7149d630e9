"""The pages of the server: the chat page at `/`, its files under `/static/`, and `/glance`.

The chat page is a client of our own API like any other: it is filled in by scripts that talk to
`/v1/chat/completions`, and this module knows nothing of models. Leaves out keys: the page holds nothing that
is secret, and asks for the key where the API wants one.
"""

import hashlib
import re
from functools import cache
from html import escape

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from groschen.serve.glance import ask, glance
from groschen.serve.page_files import KINDS, SAFE_HEADERS, answer, page_files, static
from groschen.serve.page_words import language_of, words_of

_NOT_MODULES = {"theme.js", "vendor/purify.js", "vendor/katex.js"}  # plain scripts, named in the page itself


def routes() -> list[BaseRoute]:
    """The routes of all pages, beside those of the API. Reads the files now, so that no request waits."""
    page_files()
    return [
        Route("/", chat_page, methods=["GET"]),
        Route("/glance", glance, methods=["GET"]),
        Route("/glance", ask, methods=["POST"]),
        Route("/static/{path:path}", static, methods=["GET"]),
    ]


async def chat_page(request: Request) -> Response:
    """The chat page in the language of the request; its scripts do the rest."""
    language = language_of(request)
    body = _chat_page(language)
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        **SAFE_HEADERS,
        "Cache-Control": "no-cache",
        "Vary": "Accept-Language, Cookie",
        "Content-Language": language,
    }
    return answer(request, body, KINDS[".html"], tag, headers)


@cache
def _chat_page(language: str) -> bytes:
    """page.html with {{language}}, {{static:name}}, {{modules}} and {{key of a sentence}} filled in."""
    files, words = page_files(), words_of(language)

    def filled(match: re.Match[str]) -> str:
        name = match[1]
        if name == "language":
            return language
        if name == "modules":  # all at once: each would else be found only when another one has come
            modules = [each for each in sorted(files.by_name) if each.endswith(".js")]
            paths = [files.address(each) for each in modules if each not in _NOT_MODULES]
            return "\n".join(f'<link rel="modulepreload" href="{path}">' for path in paths)
        if name.startswith("static:"):
            return files.address(name.removeprefix("static:"))
        return escape(words(name))

    text = files.by_name["page.html"].body.decode()
    return re.sub(r"\{\{([a-z_.:/-]+)\}\}", filled, text).encode()
