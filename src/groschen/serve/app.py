"""The application: every route, and what stands around them all.

From the outside in: a log line and an id for each request, names and origins, keys, the length of the queue,
the size of a body; then the routes. Leaves out sockets and signals (`command.py`).
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groschen.serve import chat, completions, embeddings, health, metrics, models, openapi, pages, responses
from groschen.serve.faults import HANDLERS, fault_of
from groschen.serve.host import Host
from groschen.serve.keys import KeyFile, RequireKey
from groschen.serve.limits import LOCAL_NAMES, MAX_BODY_BYTES, BodyLimit, KnownHosts, QueueLimit
from groschen.serve.logs import CLIENT_GONE, RequestLog
from groschen.serve.metrics import Metrics
from groschen.serve.wire import ClientGoneError

log = logging.getLogger("groschen.serve")

_NO_BUGS = (GeneratorExit, KeyboardInterrupt, SystemExit)

MAX_QUEUE = 1024
DRAIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AppConfig:
    """What the door lets in."""

    keys: KeyFile | None = None
    max_queue: int = MAX_QUEUE  # requests that wait for a row
    max_body: int = MAX_BODY_BYTES
    host_names: frozenset[str] | None = LOCAL_NAMES  # that this server answers to; None: any
    logs_prompts: bool = False


def application(make_host: Callable[[], Host], config: AppConfig | None = None) -> Starlette:
    """The ASGI application. Its host begins to load its models when the application starts.

    make_host: called in the event loop; the host is `app.state.host` from then on.
    """
    config = config or AppConfig()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        host = make_host()
        app.state.host, app.state.metrics = host, Metrics(host)
        host.start()
        try:
            yield
        finally:
            await host.stop(0.0)

    def host() -> Host:
        found = app.state.host
        assert isinstance(found, Host)
        return found

    def counts() -> Metrics:
        found = app.state.metrics
        assert isinstance(found, Metrics)
        return found

    around = [
        Middleware(RequestLog, shows_text=config.logs_prompts),
        Middleware(_CatchAll),
        Middleware(KnownHosts, names=config.host_names),
        *([Middleware(RequireKey, keys=config.keys)] if config.keys is not None else []),
        Middleware(QueueLimit, rows=lambda: host().num_rows, limit=config.max_queue),
        Middleware(BodyLimit, limit=config.max_body),
    ]
    routes = [
        chat.route(),
        completions.route(),
        responses.route(),
        embeddings.route(),
        *models.routes(),
        health.route(host),
        metrics.route(counts),
        openapi.route(),
        *pages.routes(),
    ]
    handlers = {**HANDLERS, ClientGoneError: _nobody, ClientDisconnect: _nobody}
    app = Starlette(routes=routes, middleware=around, exception_handlers=handlers, lifespan=lifespan)
    return app


class _CatchAll:
    """A bug becomes a 500 in our shape; inside of the log, so that line and id are those of the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def send_and_see(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_see)
        except asyncio.CancelledError:
            # The server leaves and waits for this client no longer: no bug, and nobody is left to tell.
            if scope["type"] != "http":
                raise
        except _NO_BUGS:
            raise
        except BaseException as error:  # a panic in Rust is no Exception
            if scope["type"] != "http" or has_begun:
                raise
            request_id = scope.get("state", {}).get("request_id")
            log.exception("request %s failed", request_id)
            await fault_of(error, request_id=request_id).response()(scope, receive, send)


async def _nobody(_request: Request, _error: Exception) -> Response:
    """The client has gone; what is returned reaches nobody but the log."""
    return Response(status_code=CLIENT_GONE)
