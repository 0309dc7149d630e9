"""A real browser in front of the chat page, for the tests that need one.

Needs the package playwright and a Chromium: the one that GROSCHEN_CHROMIUM names, else the first on the path.
Where either is missing the tests are skipped with a word. GROSCHEN_AXE names axe-core's `axe.min.js`.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.types import ASGIApp

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
Browser, Page = sync_api.Browser, sync_api.Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PHONE, TINY, DESK = (360, 740), (320, 568), (1280, 800)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    named = os.environ.get("GROSCHEN_CHROMIUM")
    path = named or next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium: set GROSCHEN_CHROMIUM to one, or put one on the path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield browser
        browser.close()


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """The address at which an application is served, by a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


@contextmanager
def groschen_serve(*models: str) -> Iterator[str]:
    """The address of the real server, as a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "groschen", "serve", *models, "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(server, address)
        yield address
    finally:
        server.terminate()
        server.communicate(timeout=60)


def _wait_until_ready(server: "subprocess.Popen[str]", address: str) -> None:
    for _ in range(600):
        assert server.poll() is None, server.communicate()[1]
        try:
            with urllib.request.urlopen(f"{address}/health") as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server was not ready within a minute")


@contextmanager
def opened(
    browser: Browser,
    address: str,
    *,
    size: tuple[int, int] = DESK,
    language: str = "en-GB",
    scheme: str = "light",
    is_touch: bool = False,
    bypass_csp: bool = False,
    motion: str = "reduce",
) -> Iterator[Page]:
    """The chat page in a fresh profile. In the end nothing may have failed in it or been asked of others."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, locale=language, color_scheme=scheme,
        has_touch=is_touch, is_mobile=is_touch, bypass_csp=bypass_csp, reduced_motion=motion,
        accept_downloads=True,
    )  # fmt: skip
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    page, wrong = context.new_page(), []
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda note: wrong.append(note.text) if note.type in ("error", "warning") else None)
    page.on("request", lambda request: None if _is_own(request.url, address) else wrong.append(request.url))
    page.goto(address)
    page.wait_for_selector("#message")
    yield page
    context.close()
    # A status of 400 or more is what some of the tests are about.
    assert [text for text in wrong if not text.startswith("Failed to load resource")] == []


def _is_own(url: str, address: str) -> bool:
    return url.startswith((f"{address}/", "data:", "blob:"))


def ask(page: Page, text: str) -> None:
    """Send a message and wait until everything has been answered."""
    page.fill("#message", text)
    page.press("#message", "Enter")
    wait_for_end(page)


def wait_for_end(page: Page) -> None:
    """Until no answer is being written."""
    page.wait_for_selector(".answer")
    until(page, "!document.querySelector('.answer[aria-busy=true], .composer .round:not([type=submit])')")


def until(page: Page, expression: str) -> None:
    """Wait until it is true. Playwright's own way evaluates text in the page, which its policy forbids."""
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true within 30 seconds: {expression}")


def last_answer(page: Page) -> str:
    """The text of the last answer."""
    return str(page.locator(".answer > .markdown").last.inner_text())


def module(page: Page, name: str, body: str) -> object:
    """What an expression over a module of the page comes to: `module(page, "tree.js", "m.titleOf('x')")`."""
    app = str(page.locator("script[type=module]").get_attribute("src"))
    return page.evaluate(f"import('{app.replace('app.js', name)}').then((m) => {body})")


def axe_violations(page: Page) -> list[tuple[str, str, str]]:
    """What axe-core finds to be serious or critical: its name, its weight, and where. Needs `bypass_csp`."""
    path = os.environ.get("GROSCHEN_AXE")
    if path is None:
        pytest.skip("no axe-core: set GROSCHEN_AXE to its axe.min.js")
    page.evaluate(Path(path).read_text())
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate("(tags) => axe.run(document, { runOnly: tags })", tags)
    assert len(found["passes"]) > 10
    return [
        (each["id"], each["impact"], re.sub(r"\s+", " ", each["nodes"][0]["html"])[:200])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
