"""What a completion adds to its prompt, where the vocabulary puts a space before every text."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from serve.serving import Server, serving, write_sentencepiece_model

PROMPT = "jumps over"


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving([write_sentencepiece_model(tmp_path_factory.mktemp("pieces"))]) as running:
        yield running


def complete(server: Server, forced: str, **fields: Any) -> dict[str, Any]:
    """A completion whose every token is the first one of a text."""
    tokenizer = server.host.models[0].opened.text.tokenizer
    token_id = tokenizer.encode(forced)[0]
    assert tokenizer.token_bytes(token_id) == b" the"
    reply = server.complete(
        **{"model": "pieces", "prompt": PROMPT, "logit_bias": {str(token_id): 100}, "max_tokens": 2, **fields}
    )
    assert reply.status == 200, reply.body
    choice: dict[str, Any] = reply.json()["choices"][0]
    return choice


def test_a_completion_keeps_the_space_before_its_first_word(pieces: Server) -> None:
    assert complete(pieces, "the")["text"] == " the the"
    assert complete(pieces, "the", echo=True)["text"] == "jumps over the the"


def test_a_stop_string_with_that_space_is_met(pieces: Server) -> None:
    choice = complete(pieces, "the", stop=[" the"])
    assert (choice["text"], choice["stop_reason"]) == ("", " the")


def test_offsets_count_that_space(pieces: Server) -> None:
    listed = complete(pieces, "the", echo=True, logprobs=0)
    assert listed["logprobs"]["text_offset"][-2:] == [len("jumps over"), len("jumps over the")]


def test_a_stream_is_the_same_text(pieces: Server) -> None:
    fields = {"model": "pieces", "prompt": PROMPT, "seed": 3, "max_tokens": 20}
    whole = pieces.complete(**fields).json()["choices"][0]["text"]
    streamed = pieces.complete(**fields, stream=True).events()
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == whole


def test_behind_special_tokens_alone_a_text_begins(pieces: Server) -> None:
    assert complete(pieces, "the", prompt=[2])["text"] == "the the"


def test_an_end_token_that_is_none_is_no_end_token(pieces: Server) -> None:
    # 506 is that of config.json, which the vocabulary does not have; -1 and 900,000 are none.
    assert pieces.host.models[0].opened.engine.end_ids == {2, 506}


def test_a_grammar_is_followed_though_its_text_begins_without_that_space(pieces: Server) -> None:
    reply = pieces.complete(model="pieces", prompt=PROMPT, guided_regex="(the|over){2}", max_tokens=20, n=8)
    assert reply.status == 200, reply.body
    for choice in reply.json()["choices"]:
        assert choice["finish_reason"] == "stop" and re.fullmatch("(the|over){2}", choice["text"])
