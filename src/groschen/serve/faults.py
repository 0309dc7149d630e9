"""What goes wrong in a request, in the shape and with the status that OpenAI's clients map to their errors.

`{"error": {"message", "type", "param", "code"}}` with 400, 401, 403, 404, 405, 413, 415, 429, 500 or 503; a
stream that has begun gets it as its last event. Leaves out reading bodies (`fields.py`) and writing logs.
Source: the OpenAI API reference, "Error codes", and the exceptions of its Python client.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from groschen.errors import BadRequest, DoesNotFit, Unsupported

_LONGEST_WORD = 100  # characters of what a client says that are looked at or shown


class ErrorObject(msgspec.Struct):
    """The inner object of an error."""

    message: str
    type: str
    param: str | None = None  # the field of the request that is to blame
    code: str | None = None  # a word that programs can compare


class ErrorBody(msgspec.Struct):
    """The whole body of an error."""

    error: ErrorObject


class ApiFault(Exception):
    """A request that is answered with an error.

    status: of HTTP. kind: the error's `type`. headers: besides the content type. The message says what was
    found, what was expected and what to do.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = ErrorObject(message, kind, param, code)
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The JSON of the error."""
        return msgspec.json.encode(ErrorBody(self.error))

    def response(self) -> Response:
        """The whole answer."""
        return Response(self.body(), self.status, self.headers, "application/json")

    def event(self) -> bytes:
        """The last event of a stream that had begun: its status was sent long ago."""
        return b"data: " + self.body() + b"\n\n"


def short(text: str) -> str:
    """A client's own word, quoted and cut: an error is no place to repeat a megabyte."""
    return repr(text if len(text) <= _LONGEST_WORD else text[:_LONGEST_WORD] + "…")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a client may have meant; only the beginning of a long one is compared."""
    return next(iter(get_close_matches(word[:_LONGEST_WORD], sorted(known), n=1)), None)


# -- 4xx: the request's fault
# --------------------------------------------------------------------------------------------------------


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiFault:
    """400: a field is wrong; param names it as the client wrote it, `messages[0].content`."""
    return ApiFault(message, param=param, code=code)


def not_honoured(param: str, why: str) -> ApiFault:
    """400: a field that OpenAI's API knows and this server does not honour."""
    return invalid(f"The field '{param}' is not honoured here: {why}", param, "unsupported_parameter")


def unknown_model(name: str, known: Iterable[str]) -> ApiFault:
    """404: no model of this name is served."""
    served = list(known)
    near = nearest(name, served)
    hint = f"did you mean '{near}'?" if near else f"served here: {', '.join(map(repr, served)) or 'none'}"
    return ApiFault(
        f"The model {short(name)} does not exist; {hint}", status=404, param="model", code="model_not_found"
    )


def no_key() -> ApiFault:
    """401: the request has no API key."""
    return _unauthorized(
        "You didn't provide an API key. Send it in the header 'Authorization: Bearer KEY'; whoever started "
        "this server makes one with 'groschen serve --make-key NAME --keys FILE'.",
        None,
    )


def wrong_key() -> ApiFault:
    """401: the key is not in the file of keys. The message does not repeat it: answers end up in logs."""
    return _unauthorized("Incorrect API key provided. Ask whoever started this server.", "invalid_api_key")


def too_large(limit: int) -> ApiFault:
    """413: the body has more bytes than the server takes. The connection is closed: the rest is not read."""
    return ApiFault(
        f"The body is larger than the {limit:,} bytes that this server takes (--max-body raises the limit).",
        status=413, code="request_too_large", headers={"connection": "close"},
    )  # fmt: skip


def queue_full(waiting: int, limit: int, retry_after_s: int) -> ApiFault:
    """429: too many requests wait already."""
    return ApiFault(
        f"{waiting} requests are waiting and the queue holds {limit}; try again in {retry_after_s} s.",
        status=429,
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        headers={
            "retry-after": str(max(retry_after_s, 1)),
            "x-queue-depth": str(waiting),
            "x-queue-limit": str(limit),
        },
    )


# -- 5xx: the server's fault
# --------------------------------------------------------------------------------------------------------


def unavailable(message: str, code: str, retry_after_s: int = 2) -> ApiFault:
    """503: the model loads, the server drains or the engine is dead; code says which."""
    headers = {"retry-after": str(max(retry_after_s, 1))}
    return ApiFault(message, status=503, kind="server_error", code=code, headers=headers)


def internal(request_id: str | None = None) -> ApiFault:
    """500: a bug, or a file that broke while the server ran. What it was stands in the log only."""
    where = f" under the request id {request_id}" if request_id else ""
    return ApiFault(
        f"The server failed to answer this request; the cause is in its log{where}.",
        status=500, kind="server_error", code="internal_error",
    )  # fmt: skip


# -- from other exceptions
# --------------------------------------------------------------------------------------------------------


def fault_of(error: BaseException, param: str | None = None, request_id: str | None = None) -> ApiFault:
    """The fault that an exception is answered with; param: the field to blame where the error names none."""
    match error:
        case ApiFault():
            return error
        case BadRequest():
            return invalid(str(error), error.field or param, "invalid_value")
        case DoesNotFit():
            return invalid(str(error), param, "context_length_exceeded")
        case Unsupported():
            return invalid(str(error), param, "unsupported_value")
        case HTTPException():
            return _of_router(error)
        case _:
            return internal(request_id)


async def answer_error(request: Request, error: Exception) -> Response:
    """Exception handler of the application: every error has the same shape."""
    request_id = request.scope.get("state", {}).get("request_id")
    fault = fault_of(error, request_id=request_id if isinstance(request_id, str) else None)
    if fault.status == 404 and fault.error.code == "unknown_url":
        fault.error.message = f"Unknown request URL: {request.method} {short(request.url.path)}."
    return fault.response()


# What is the request's fault; whatever else escapes belongs into the log as well (`app.py`).
HANDLERS = {
    ApiFault: answer_error,
    BadRequest: answer_error,
    DoesNotFit: answer_error,
    Unsupported: answer_error,
    HTTPException: answer_error,
}


def _unauthorized(message: str, code: str | None) -> ApiFault:
    return ApiFault(message, status=401, code=code, headers={"www-authenticate": "Bearer"})


def _of_router(error: HTTPException) -> ApiFault:
    codes = {404: "unknown_url", 405: "method_not_supported"}
    return ApiFault(
        error.detail, status=error.status_code, code=codes.get(error.status_code), headers=error.headers
    )
