"""Errors as the openai client reads them."""

import json

import httpx2
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from groschen.errors import BadFile, BadRequest, DoesNotFit, Unsupported
from groschen.serve import faults, fields
from groschen.serve.faults import ApiFault
from groschen.serve.fields import Form, Strict

CASES: list[tuple[Exception, int, type[openai.APIStatusError], str | None]] = [
    (faults.invalid("no", "n"), 400, openai.BadRequestError, None),
    (faults.not_honoured("audio", "no voice"), 400, openai.BadRequestError, "unsupported_parameter"),
    (faults.unknown_model("penn", ["penny"]), 404, openai.NotFoundError, "model_not_found"),
    (faults.no_key(), 401, openai.AuthenticationError, None),
    (faults.wrong_key(), 401, openai.AuthenticationError, "invalid_api_key"),
    (faults.too_large(10), 413, openai.APIStatusError, "request_too_large"),
    (faults.queue_full(9, 9, 3), 429, openai.RateLimitError, "rate_limit_exceeded"),
    (faults.unavailable("loading", "model_loading"), 503, openai.InternalServerError, "model_loading"),
    (BadRequest("bad"), 400, openai.BadRequestError, "invalid_value"),
    (DoesNotFit("long"), 400, openai.BadRequestError, "context_length_exceeded"),
    (Unsupported("no template"), 400, openai.BadRequestError, "unsupported_value"),
    (BadFile("/secret/path is corrupt"), 500, openai.InternalServerError, "internal_error"),
    (RuntimeError("secret"), 500, openai.InternalServerError, "internal_error"),
]


def client_of(error: Exception) -> openai.OpenAI:
    async def fail(request: Request) -> Response:
        request.state.request_id = "req_1"
        raise error

    app = Starlette(
        routes=[Route("/v1/completions", fail, methods=["POST"])],
        exception_handlers={**faults.HANDLERS, Exception: faults.answer_error},
    )
    # The test client is of the httpx family that the openai client takes.
    http = TestClient(app, raise_server_exceptions=False)
    return openai.OpenAI(base_url="http://testserver/v1", api_key="k", http_client=http, max_retries=0)


@pytest.mark.parametrize(("error", "status", "kind", "code"), CASES)
def test_the_client_raises_the_error_of_the_status(
    error: Exception, status: int, kind: type[openai.APIStatusError], code: str | None
) -> None:
    with pytest.raises(kind) as caught:
        client_of(error).completions.create(model="penny", prompt="a")
    assert caught.value.status_code == status and caught.value.code == code
    assert "secret" not in str(caught.value)


def test_an_internal_error_says_under_which_id_the_log_has_it() -> None:
    with pytest.raises(openai.InternalServerError, match="req_1"):
        client_of(RuntimeError("secret")).completions.create(model="penny", prompt="a")


def test_a_full_queue_says_when_to_come_back() -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        client_of(faults.queue_full(8, 8, 3)).completions.create(model="penny", prompt="a")
    headers = caught.value.response.headers
    assert headers["retry-after"] == "3" and headers["x-queue-depth"] == "8"


def test_an_unknown_url_and_a_wrong_method_have_the_same_shape() -> None:
    app = TestClient(Starlette(exception_handlers={**faults.HANDLERS}))
    error = app.get("/v1/modles").json()["error"]
    assert error == {
        "message": "Unknown request URL: GET '/v1/modles'.",
        "type": "invalid_request_error",
        "param": None,
        "code": "unknown_url",
    }


def test_the_event_of_a_broken_stream_raises_in_the_client() -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        body = b'data: {"choices": [], "id": "1"}\n\n' + faults.internal("req_2").event()
        return httpx2.Response(200, content=body, headers={"content-type": "text/event-stream"})

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = openai.OpenAI(base_url="http://x/v1", api_key="k", http_client=http)
    with pytest.raises(openai.APIError, match="req_2"):
        list(client.completions.create(model="penny", prompt="a", stream=True))


def test_the_nearest_model_is_named_and_a_long_name_is_cut() -> None:
    assert "did you mean 'penny'?" in str(faults.unknown_model("peny", ["penny", "qwen"]))
    assert "served here: 'penny'" in str(faults.unknown_model("x" * 10_000, ["penny"]))
    assert len(str(faults.unknown_model("x" * 10_000, ["penny"]))) < 250


def test_a_long_word_is_compared_by_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def compare(word: str, *_: object, **__: object) -> list[str]:
        compared.append(word)
        return []

    monkeypatch.setattr(faults, "get_close_matches", compare)
    faults.unknown_model("x" * 10_000, ["penny"])
    with pytest.raises(ApiFault):
        fields.decode(b'{"%s": 1}' % (b"y" * 10_000), Form(Strict))
    assert [len(word) for word in compared] == [100, 100]


def test_the_body_is_exactly_openais() -> None:
    assert json.loads(ApiFault("m", param="p").body()) == {
        "error": {"message": "m", "type": "invalid_request_error", "param": "p", "code": None}
    }
