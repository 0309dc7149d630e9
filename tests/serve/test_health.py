"""Whether the server takes requests, asked from the outside."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from groschen.serve import health
from serve.serving import PENNY, Server, serving


def host(state: str, *, is_draining: bool = False) -> Any:
    models = (SimpleNamespace(name="penny"),) if state != "loading" else ()
    return SimpleNamespace(state=state, is_draining=is_draining, models=models, num_running=2, queue_depth=1)


@pytest.mark.parametrize(
    ("state", "is_draining", "status", "said"),
    [
        ("loading", False, 503, "loading"),
        ("ready", False, 200, "ready"),
        ("ready", True, 503, "draining"),
        ("dead", False, 503, "dead"),
        ("dead", True, 503, "dead"),
    ],
)
def test_each_state_has_its_answer(state: str, is_draining: bool, status: int, said: str) -> None:
    given = host(state, is_draining=is_draining)
    reply = TestClient(Starlette(routes=[health.route(lambda: given)])).get("/health")
    assert reply.status_code == status and reply.json()["status"] == said
    assert ("retry-after" in reply.headers) is (status == 503)
    assert reply.headers["cache-control"] == "no-store"


def test_health_answers_while_the_model_loads_and_requests_are_told_to_wait() -> None:
    with serving((PENNY,), waits=False) as server:
        first = server.get("/health")
        if first.status == 503:  # a fast machine may have loaded it by now
            assert first.json()["status"] == "loading"
            refused = server.chat()
            assert refused.status in (503, 200)
            if refused.status == 503:
                assert refused.error["code"] == "model_loading" and "retry-after" in refused.headers
        deadline = time.monotonic() + 60
        while server.get("/health").status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert server.chat(max_tokens=1).status == 200


def test_a_ready_server_says_what_it_serves(server: Server) -> None:
    reply = server.get("/health")
    assert reply.status == 200
    assert reply.json() == {"status": "ready", "models": ["penny"], "running": 0, "waiting": 0}
