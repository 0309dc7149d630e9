"""Ten schemas, twenty answers each at temperature 1, over HTTP: all whole, and valid by another validator."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from serve.serving import Server

SCHEMAS: Mapping[str, dict[str, Any]] = json.loads((Path(__file__).parent / "ten_schemas.json").read_text())
COUNT = 20


def answers(server: Server, name: str, **more: Any) -> list[dict[str, Any]]:
    """The choices of one request; the thinking is kept short, the answer has all the room there is."""
    asked = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMAS[name], "strict": True}}
    fields = {"response_format": asked, "n": COUNT, "temperature": 1, "top_p": 1, "seed": 4, **more}
    reply = server.chat(thinking_budget=9, max_tokens=800, **fields)
    assert reply.status == 200, reply.body
    choices: list[dict[str, Any]] = reply.json()["choices"]
    return choices


def test_there_are_ten() -> None:
    assert len(SCHEMAS) == 10


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_answer_is_whole_and_valid(server: Server, name: str) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMAS[name])
    texts = set()
    for choice in answers(server, name):
        content = choice["message"]["content"]
        assert choice["finish_reason"] == "stop", f"cut off after {content!r}"
        validator.validate(json.loads(content))
        texts.add(content)
    assert len(texts) >= 5, "the schema, not the model, wrote it"


@pytest.mark.parametrize("name", ["references", "one of several objects"])
def test_a_streamed_answer_is_the_whole_one(server: Server, name: str) -> None:
    (whole,) = answers(server, name, n=1)
    asked = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMAS[name]}}
    chunks = server.chat(
        response_format=asked, temperature=1, top_p=1, seed=4, thinking_budget=9, max_tokens=800, stream=True
    ).events()
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == whole["message"]["content"]
