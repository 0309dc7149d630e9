"""`/health`: whether requests are taken, answered by the event loop alone, whatever the engines are doing.

200 when ready; 503 while the models load, while the server drains, and when an engine is dead. Leaves out the
engines: nothing here waits for them.
"""

from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from groschen.serve.host import Host

_RETRY_AFTER_S = {"loading": "2", "draining": "10", "dead": "30"}


class Health(msgspec.Struct):
    """The answer."""

    status: str  # "loading", "ready", "draining" or "dead"
    models: list[str]  # in service
    running: int  # requests that have their first token and not their last
    waiting: int  # requests that wait for their first token


def health_of(host: Host) -> Health:
    """How the host is at this moment."""
    status = "draining" if host.is_draining and host.state != "dead" else host.state
    models = [served.name for served in host.models]
    return Health(status, models, host.num_running, host.queue_depth)


def route(host: Callable[[], Host]) -> Route:
    """The route; `host` is asked at each request."""

    async def answer(_: Request) -> Response:
        health = health_of(host())
        is_ready = health.status == "ready"
        headers = {"cache-control": "no-store"}
        if not is_ready:
            headers["retry-after"] = _RETRY_AFTER_S[health.status]
        return Response(msgspec.json.encode(health), 200 if is_ready else 503, headers, "application/json")

    return Route("/health", answer, methods=["GET"])
