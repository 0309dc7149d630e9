"""One line on stderr for each request, and for whatever else the server has to say.

JSON, one object a line; plain sentences where stderr is a terminal. What somebody asked the model stands in
it only if the server was told to write that too. Leaves out counting over requests (`metrics.py`).
"""

import logging
import re
import secrets
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TextIO

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groschen import machine
from groschen.serve.ticket import Ticket

CLIENT_GONE = 499  # the status in the log when the client left before there was one

LOG = logging.getLogger("groschen.serve")
_REQUESTS = logging.getLogger("groschen.serve.requests")
_QUIET = frozenset({"/health", "/metrics"})  # asked every few seconds by machines
_OWN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MOST_TEXT = 64 * 1024  # bytes of a body that is written into the log, where that was asked for


@dataclass(slots=True)
class RequestRecord:
    """What is known of one HTTP request. tickets: what it asked of the engines."""

    request_id: str
    method: str
    route: str
    begun_s: float
    status: int = CLIENT_GONE
    tickets: list[Ticket] = field(default_factory=list)
    body: bytearray | None = None  # kept only where the log shows it

    def facts(self, key_name: str | None) -> dict[str, object]:
        """What its line says; fields that do not apply are left out."""
        facts: dict[str, object] = {
            "request": self.request_id,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "seconds": round(machine.seconds() - self.begun_s, 4),
        }
        if key_name is not None:
            facts["key"] = key_name
        if self.tickets:
            facts |= self._tokens()
        if self.body is not None:
            facts["body"] = self.body[:_MOST_TEXT].decode("utf-8", "replace")
        return facts

    def _tokens(self) -> dict[str, object]:
        tickets = self.tickets
        begun = [ticket.first_s for ticket in tickets if ticket.has_begun]
        return {
            "model": tickets[0].model,
            "prompt_tokens": sum(len(ticket.request.prompt_ids) for ticket in tickets),
            "generated_tokens": sum(ticket.num_tokens for ticket in tickets),
            "first_token_s": round(min(begun) - self.begun_s, 4) if begun else None,
            "finish_reasons": [reason for ticket in tickets for reason in reasons_of(ticket)],
        }


_current: ContextVar[RequestRecord | None] = ContextVar("groschen_request", default=None)


def note(ticket: Ticket) -> None:
    """Count a ticket to the HTTP request that this task works for, if it works for one."""
    record = _current.get()
    if record is not None:
        record.tickets.append(ticket)


def reasons_of(ticket: Ticket) -> list[str]:
    """Why its samples ended: those that did, and once "abort" or "error" for those that were given up."""
    reasons: list[str] = [str(reason) for reason in ticket.reasons]
    if ticket.fault is not None:
        reasons.append("error")
    elif ticket.was_cancelled or not ticket.has_ended:
        reasons.append("abort")
    return reasons


class RequestLog:
    """The outermost middleware: gives each request its id, and writes its line when the answer has ended.

    A client's own `x-request-id` is kept if it is short and plain; every answer has the header. shows_text:
    write the bodies of requests too.
    """

    def __init__(self, app: ASGIApp, *, shows_text: bool = False) -> None:
        self._app, self._shows_text = app, shows_text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI wants it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own = Headers(scope=scope).get("x-request-id", "")
        request_id = own if _OWN_ID.fullmatch(own) else f"req_{secrets.token_hex(12)}"
        record = RequestRecord(request_id, scope["method"], scope["path"], machine.seconds())
        record.body = bytearray() if self._shows_text else None
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        async def receive_and_keep() -> Message:
            message = await receive()
            if record.body is not None and len(record.body) < _MOST_TEXT:
                record.body += message.get("body", b"")
            return message

        token = _current.set(record)
        try:
            await self._app(scope, receive_and_keep, send_with_id)
        except Exception:
            record.status = 500 if record.status == CLIENT_GONE else record.status
            raise
        finally:
            _current.reset(token)
            is_quiet = record.route in _QUIET and record.status in (200, 503)
            level = logging.DEBUG if is_quiet else logging.INFO
            if _REQUESTS.isEnabledFor(level):
                facts = record.facts(scope["state"].get("key_name"))
                _REQUESTS.log(level, "request", extra={"facts": facts})


# -- lines
# --------------------------------------------------------------------------------------------------------


class JsonLines(logging.Formatter):
    """Each record as one JSON object: time (UTC), level, message or facts of a request, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        facts = _facts(record)
        line: dict[str, object] = {"time": time.replace("+00:00", "Z"), "level": record.levelname.lower()}
        line |= facts if facts is not None else {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class PlainLines(logging.Formatter):
    """The same for somebody who watches."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        facts = _facts(record)
        text = _sentence(facts) if facts is not None else record.getMessage()
        mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{time}  {mark}{text}{trace}"


def set_up(stream: TextIO | None = None, *, is_plain: bool | None = None, level: int = logging.INFO) -> None:
    """Send what groschen and uvicorn have to say to stderr; uvicorn's own line for each request is dropped.

    is_plain: sentences instead of JSON; None: if the stream is a terminal.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainLines() if (stream.isatty() if is_plain is None else is_plain) else JsonLines())
    for name in ("groschen", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate = [logging.NullHandler()], False


def _facts(record: logging.LogRecord) -> Mapping[str, object] | None:
    facts = getattr(record, "facts", None)
    return facts if isinstance(facts, dict) else None


def _sentence(facts: Mapping[str, object]) -> str:
    """What a client said in it is shown, never obeyed: no line of its own, no command to the terminal."""
    parts = [f"{facts['method']} {facts['route']} {facts['status']}"]
    if "model" in facts:
        parts.append(f"{facts['model']}  {facts['prompt_tokens']} + {facts['generated_tokens']} tokens")
    first = facts.get("first_token_s")
    parts.append(f"{facts['seconds']:.2f} s" + (f", first token after {first:.2f} s" if first else ""))
    reasons = facts.get("finish_reasons")
    if isinstance(reasons, list) and reasons:
        parts.append(", ".join(sorted(set(reasons))))
    parts += [f"key {facts['key']}"] if "key" in facts else []
    parts.append(str(facts["request"]))
    parts += [str(facts["body"])] if "body" in facts else []
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in "  ".join(parts))
