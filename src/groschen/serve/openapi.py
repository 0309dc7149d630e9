"""`GET /openapi.json`: the API as an OpenAPI 3.1 document, made from the records that read the requests.

What a record says is what is checked, so the document can't differ from the server. Leaves out the pages.
Source: the OpenAPI Specification 3.1.1; msgspec's `schema_components`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from groschen import __version__
from groschen.serve import chat_fields, completions_fields, embeddings, openapi_answers, responses_fields
from groschen.serve.faults import ErrorBody
from groschen.serve.fields import Form, Other
from groschen.serve.health import Health
from groschen.serve.responses import Response as ResponsesAnswer
from groschen.serve.wire import json_response

PATH = "/openapi.json"
Json = dict[str, Any]  # JSON of any shape

_ERRORS = {
    "400": "A field is wrong, unknown or not honoured; `param` names it.",
    "401": "The API key is missing or wrong.",
    "403": "The request comes from another origin's page, or names another host.",
    "404": "There is no such model or path.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "429": "The queue is full; `Retry-After` says when to come back.",
    "500": "The server failed; its log says why.",
    "503": "The models are loading, the server drains, or an engine is dead; see /health.",
}
# Of a stream, each event by itself; `data` is JSON, or `[DONE]` at the end of chats and completions.
_EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
_GET_ERRORS = ("401", "403", "404", "500", "503")


@dataclass(frozen=True, slots=True)
class _Post:
    """An endpoint that takes a body."""

    path: str
    name: str
    summary: str
    form: Form[Any]
    answer: type[msgspec.Struct]
    has_stream: bool = True


@dataclass(frozen=True, slots=True)
class _Get:
    """An endpoint that does not. answer: None for Prometheus' text."""

    path: str
    name: str
    summary: str
    answer: type[msgspec.Struct] | None
    errors: tuple[str, ...] = _GET_ERRORS
    is_open: bool = False  # needs no key


_POSTS = (
    _Post("/v1/chat/completions", "createChatCompletion", "Messages in, a message out.",
          chat_fields.FORM, openapi_answers.ChatCompletion),
    _Post("/v1/completions", "createCompletion", "A text, or token ids, is gone on with.",
          completions_fields.FORM, openapi_answers.Completion),
    _Post("/v1/responses", "createResponse", "Items in, items out; nothing is stored.",
          responses_fields.FORM, ResponsesAnswer),
    _Post("/v1/embeddings", "createEmbedding",
          "Texts as vectors: the mean of the decoder's last hidden states, scaled to length 1.",
          embeddings.FORM, embeddings.Embeddings, has_stream=False),
)  # fmt: skip
_GETS = (
    _Get("/v1/models", "listModels", "What is served.", openapi_answers.Models),
    _Get("/v1/models/{model}", "retrieveModel", "One model.", openapi_answers.Model),
    _Get("/health", "health", "Whether requests are taken.", Health, ("403",), is_open=True),
    _Get("/metrics", "metrics", "Counts and times in Prometheus' text format.", None, ("401", "403", "500")),
)


def route() -> Route:
    """The route."""
    return Route(PATH, answer, methods=["GET"])


async def answer(_: Request) -> Response:
    """The endpoint."""
    return json_response(document(), {"cache-control": "max-age=60"})


@lru_cache(maxsize=1)
def document() -> Json:
    """The document; the same one each time, so not to be changed."""
    bodies = [post.form.record for post in _POSTS]
    answers = [each.answer for each in (*_POSTS, *_GETS) if each.answer is not None]
    _, schemas = msgspec.json.schema_components(
        [*bodies, *answers, ErrorBody], ref_template="#/components/schemas/{name}"
    )
    for post in _POSTS:
        _complete(schemas[post.form.record.__name__], post.form.others)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "groschen",
            "version": __version__,
            "description": "OpenAI's API for the models of this machine. What is not honoured is refused by "
            "name; what is marked as not OpenAI's has the names that vLLM gives it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {}],
        "paths": dict(_paths()),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "If the server was given keys."}
            },
        },
    }


def _paths() -> Iterator[tuple[str, Json]]:
    for post in _POSTS:
        content = {"application/json": {"schema": _reference(post.answer)}}
        if post.has_stream:
            content["text/event-stream"] = {"schema": _EVENT}
        yield (
            post.path,
            {
                "post": {
                    "operationId": post.name,
                    "summary": post.summary,
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": _reference(post.form.record)}},
                    },
                    "responses": {
                        "200": {"description": "The answer.", "content": content},
                        **_faults(_ERRORS),
                    },
                }
            },
        )
    for get in _GETS:
        yield get.path, {"get": _get(get)}


def _get(get: _Get) -> Json:
    content: Json = {"text/plain": {"schema": {"type": "string"}}}
    if get.answer is not None:
        content = {"application/json": {"schema": _reference(get.answer)}}
    responses: Json = {"200": {"description": "The answer.", "content": content}, **_faults(get.errors)}
    if get.answer is Health:
        responses["503"] = {"description": "They are not: `status` says why.", "content": content}
    operation: Json = {"operationId": get.name, "summary": get.summary, "responses": responses}
    if get.is_open:
        operation["security"] = []
    if "{model}" in get.path:
        place = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        operation["parameters"] = [place]
    return operation


def _faults(statuses: Mapping[str, str] | tuple[str, ...]) -> Json:
    content = {"application/json": {"schema": _reference(ErrorBody)}}
    return {status: {"description": _ERRORS[status], "content": content} for status in statuses}


def _reference(record: type[msgspec.Struct]) -> Json:
    return {"$ref": f"#/components/schemas/{record.__name__}"}


def _complete(schema: Json, others: Mapping[str, Other]) -> None:
    """What `fields.py` adds to a record: null stands for the default, and some fields are known but taken
    with few values only.
    """
    properties, required = schema["properties"], schema.get("required", [])
    for name, inner in properties.items():
        if name not in required and {"type": "null"} not in inner.get("anyOf", []):
            default = {"default": inner.pop("default")} if "default" in inner else {}
            properties[name] = {"anyOf": [inner, {"type": "null"}], **default}
    for path, other in others.items():
        if path in properties or "." in path or "[" in path:
            continue
        if other.is_harmless:
            properties[path] = {"description": "Taken, and changes nothing."}
        else:
            properties[path] = {"enum": [*other.harmless, None], "description": f"Not honoured: {other.why}."}
