"""The OpenAPI document against the standard and against what the server does."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import msgspec
import pytest
from jsonschema.protocols import Validator

from groschen.serve import fields, openapi
from groschen.serve.faults import ApiFault
from serve.serving import Server

DOCUMENT: dict[str, Any] = json.loads(msgspec.json.encode(openapi.document()))
FORMS = {post.form.record.__name__: post.form for post in openapi._POSTS}
MINIMAL: dict[str, dict[str, Any]] = {
    "ChatRequest": {"model": "m", "messages": [{"role": "user", "content": "a"}]},
    "CompletionRequest": {"model": "m", "prompt": "a"},
    "ResponsesRequest": {"model": "m", "input": "a"},
    "EmbeddingsRequest": {"model": "m", "input": "a"},
}


def validator(name: str) -> Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return jsonschema.Draft202012Validator(schema)


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from nodes(item)


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    references = {node["$ref"] for node in nodes(DOCUMENT) if isinstance(node.get("$ref"), str)}
    assert {each.removeprefix("#/components/schemas/") for each in references} <= set(schemas)
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_operation_says_its_errors() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            errors = set(operation["responses"]) - {"200"}
            assert {"403"} <= errors if path == "/health" else {"401", "403", "500"} <= errors
            assert method == "get" or {"400", "404", "413", "429", "503"} <= errors


def took(name: str, body: dict[str, Any]) -> bool:
    try:
        fields.decode(json.dumps(body).encode(), FORMS[name])
    except ApiFault:
        return False
    return True


@pytest.mark.parametrize("name", MINIMAL)
def test_a_body_is_valid_by_the_document_if_the_server_decodes_it(name: str) -> None:
    check, minimal = validator(name), MINIMAL[name]
    variants = [minimal, {}, {**minimal, "model": 1}, {**minimal, "foo": 1}]
    properties = DOCUMENT["components"]["schemas"][name]["properties"]
    values: list[Any] = [None, True, False, 0, 1, -1, 1.5, 200, 10**15, "", "auto", "default", [], ["a"], {}]
    variants += [{**minimal, field: value} for field in properties for value in values]
    assert len(variants) > 100
    for body in variants:
        # The document says little about what an endpoint checks by hand; it must never refuse what is taken.
        if took(name, body):
            check.validate(body)
        elif not check.is_valid(body):
            continue
        else:
            field = next((each for each in body if body[each] != minimal.get(each)), "")
            assert field in {"seed"}, f"{name} refuses {body} and the document does not say so"


@pytest.mark.parametrize("name", MINIMAL)
def test_fields_that_change_nothing_and_fields_that_are_refused_are_in_the_document(name: str) -> None:
    properties = DOCUMENT["components"]["schemas"][name]["properties"]
    top = {path for path in FORMS[name].others if "." not in path and "[" not in path}
    assert top <= set(properties)
    refused = [path for path in top if "Not honoured" in properties[path].get("description", "")]
    assert refused and all(None in properties[path]["enum"] for path in refused)


PUZZLE = "Make 24 from 2, 3 and 4."
ANSWERS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": PUZZLE}], "logprobs": True},
    "/v1/completions": {"prompt": "1+1=", "max_tokens": 3, "logprobs": 1},
    "/v1/responses": {"input": PUZZLE},
    "/v1/embeddings": {"input": ["a", "b"]},
}


@pytest.mark.parametrize("path", ANSWERS)
def test_an_answer_is_what_the_document_says(server: Server, path: str) -> None:
    reply = server.post(path, {"model": "penny", **ANSWERS[path]})
    operation = DOCUMENT["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]
    validator(operation["schema"]["$ref"].rsplit("/", 1)[1]).validate(reply.json())
    wrong = server.post(path, {"model": "penny"})
    assert wrong.status == 400
    validator("ErrorBody").validate(wrong.json())


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/penny", "/health"])
def test_what_is_read_is_what_the_document_says(server: Server, path: str) -> None:
    operation = DOCUMENT["paths"][path.replace("penny", "{model}")]["get"]["responses"]["200"]["content"]
    validator(operation["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]).validate(
        server.get(path).json()
    )


def test_the_server_publishes_the_document(server: Server) -> None:
    assert server.get("/openapi.json").json() == DOCUMENT
