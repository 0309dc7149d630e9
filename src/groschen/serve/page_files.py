"""The files of the chat page, with the headers that let a browser trust and keep them.

Each file is served under two addresses: `/static/DIGEST/name`, where DIGEST hangs on all files together, so
that a browser may keep it for ever and the modules of one page always belong together; and `/static/name`,
which is asked again each time. Leaves out compression: the page is read from this machine or a near one.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"

# Scripts, styles and fonts come from this server alone, and a page can talk to nobody else. Model output is
# hostile text: it can't become a script even where the sanitiser would fail, since only the sanitiser's own
# policy may turn text into markup (Trusted Types).
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
SAFE_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file as it goes out; `tag` is its ETag."""

    body: bytes
    kind: str
    tag: str


@dataclass(frozen=True, slots=True)
class PageFiles:
    """All files below page/, by their path; `digest` changes when one of them does."""

    by_name: dict[str, PageFile]
    digest: str

    def address(self, name: str) -> str:
        """Where a page finds this file, for as long as it does not change."""
        return f"/static/{self.digest}/{name}"


@cache
def page_files() -> PageFiles:
    """The files, read once."""
    found = dict(_walk(files("groschen.serve") / "page", ""))
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name} {found[name].tag}\n".encode())
    return PageFiles(found, digest.hexdigest()[:16])


def _walk(folder: Traversable, before: str) -> list[tuple[str, PageFile]]:
    found: list[tuple[str, PageFile]] = []
    for each in folder.iterdir():
        name = before + each.name
        if each.is_dir():
            found += _walk(each, f"{name}/")
            continue
        kind = KINDS.get("." + each.name.rpartition(".")[2])
        if kind is not None:
            body = each.read_bytes()
            found.append((name, PageFile(body, kind, f'"{hashlib.sha256(body).hexdigest()[:32]}"')))
    return found


async def static(request: Request) -> Response:
    """A file of the page, 304 where the browser has it already."""
    held, path = page_files(), str(request.path_params["path"])
    first, _, rest = path.partition("/")
    is_fixed = first == held.digest
    file = held.by_name.get(rest if is_fixed else path)
    if file is None:
        return PlainTextResponse("There is no such file.\n", 404, headers=SAFE_HEADERS)
    headers = {**SAFE_HEADERS, "Cache-Control": FOR_EVER if is_fixed else ASK_AGAIN}
    return answer(request, file.body, file.kind, file.tag, headers)


def answer(request: Request, body: bytes, kind: str, tag: str, headers: dict[str, str]) -> Response:
    """The body with its ETag, or 304 if the request names that ETag."""
    headers = {**headers, "ETag": tag}
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(None, 304, headers=headers)
    return Response(body, headers=headers, media_type=kind)
