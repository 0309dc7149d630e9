"""What is too long is refused before it is rendered or encoded, and by the right name."""

from typing import Any

import pytest

from groschen.serve import fields
from groschen.text.chat import ChatTemplate
from groschen.text.lengths import SLICE_CHARS
from groschen.text.tokenizer import Tokenizer
from serve.serving import PUZZLE, Server

WORDS = " ".join(f"word{number % 997}" for number in range(870_000))  # 7 MB
MANY = [{"role": "user", "content": "a"}]
REQUESTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": ("chat/completions", {"messages": [{"role": "user", "content": WORDS}]}, "messages"),
    "a part": (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": WORDS}]}]},
        "messages",
    ),
    "completions": ("completions", {"prompt": WORDS}, "prompt"),
    "several prompts": ("completions", {"prompt": ["1 + 1", WORDS]}, "prompt"),
    "token ids": ("completions", {"prompt": [5] * 500_000}, "prompt"),
    "responses": ("responses", {"input": WORDS}, "input"),
    "an item": ("responses", {"input": [{"role": "user", "content": WORDS}]}, "input"),
    "embeddings": ("embeddings", {"input": WORDS}, "input"),
    "10,000 messages": ("chat/completions", {"messages": MANY * 10_000}, "messages"),
    "10,000 items": ("responses", {"input": MANY * 10_000}, "input"),
}


@pytest.mark.parametrize(("path", "body", "param"), REQUESTS.values(), ids=REQUESTS)
def test_what_is_certainly_too_long_is_neither_rendered_nor_encoded(
    server: Server, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any], param: str
) -> None:
    counted: list[int] = []
    num_tokens = Tokenizer.num_tokens

    def count(self: Tokenizer, text: str) -> int:
        counted.append(len(text))
        return num_tokens(self, text)

    def encode(self: Tokenizer, text: str, **_: object) -> list[int]:
        assert len(text) < 1000, "a long text is encoded"
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def render(*_: object, **__: object) -> str:
        raise AssertionError("a long conversation is rendered")

    monkeypatch.setattr(Tokenizer, "num_tokens", count)
    monkeypatch.setattr(Tokenizer, "encode", encode)
    monkeypatch.setattr(ChatTemplate, "_render", render)
    error = server.post(f"/v1/{path}", {"model": "penny", **body}).error
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert "maximum context length is 1024 tokens" in error["message"]
    assert sum(counted) <= 2 * SLICE_CHARS


def test_more_characters_than_templates_may_handle_are_named_as_what_they_are(server: Server) -> None:
    thought = {"role": "assistant", "content": "so", "reasoning_content": "x" * 8_000_001}
    error = server.chat(messages=[*PUZZLE, thought, *PUZZLE]).error
    assert error["param"] == "messages" and "8,000,0" in error["message"]
    assert "template" not in error["message"]


def test_250_000_messages_are_refused_before_they_are_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> object:
        raise AssertionError("they are read")

    body = b'{"model": "penny", "messages": [%s]}' % b",".join([b'{"role":"user","content":"a"}'] * 250_000)
    assert len(body) < 8 * 1024 * 1024
    monkeypatch.setattr(fields, "decode", decode)
    error = server.post("/v1/chat/completions", body).error
    assert "250,000 messages" in error["message"] and error["code"] == "array_above_max_length"


def test_words_that_only_quote_a_message_are_none(server: Server) -> None:
    text = '{"role": "user"} ' * 70_000
    assert (
        server.chat(messages=[{"role": "user", "content": text}]).error["code"] == "context_length_exceeded"
    )
