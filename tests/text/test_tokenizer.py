"""Token ids to text and back: the bytes are the true ones, alone and together."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models
from transformers import PreTrainedTokenizerFast

from groschen.errors import BadRequest, Unsupported
from groschen.text.tokenizer import SpecialIds, Tokenizer
from text.samples import CORPUS, NASTY, byte_level, ours, sentencepiece_like

KINDS = {
    "byte level": lambda: byte_level(plain=("<think>", "</think>")),
    "prepend": lambda: sentencepiece_like("prepend"),
    "first": lambda: sentencepiece_like("first"),
    "none": lambda: sentencepiece_like("none"),
}


@pytest.fixture(scope="module", params=list(KINDS))
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return ours(KINDS[request.param]())


def test_decoding_gives_back_every_text(tokenizer: Tokenizer) -> None:
    for text in [*NASTY, *CORPUS]:
        if "▁" in text and not tokenizer.spelling.byte_level:
            continue  # SentencePiece can't tell its metaspace from a space
        if (
            text.startswith(" ")
            and tokenizer.spelling.strips_first_space
            and has_no_prefix_before_spaces(tokenizer)
        ):
            continue
        assert tokenizer.decode(tokenizer.encode(text)) == text, repr(text)


def has_no_prefix_before_spaces(tokenizer: Tokenizer) -> bool:
    """Metaspace leaves a text that begins with a space as it is, so that first space is lost in decoding."""
    return tokenizer.encode(" a") == tokenizer.encode("a")


def test_decoding_equals_the_tokenizers_library_on_valid_text(tokenizer: Tokenizer) -> None:
    for text in [*NASTY, *CORPUS]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == tokenizer.backend.decode(ids, skip_special_tokens=False), repr(text)
        assert tokenizer.decode(ids, skip_special=True) == tokenizer.backend.decode(ids), repr(text)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_bytes_of_tokens_together_are_the_text(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3), max_size=30))
    text = b"".join(tokenizer.token_bytes(i) for i in ids).decode("utf-8", "replace")
    if tokenizer.spelling.strips_first_space:
        text = text.removeprefix(" ")
    assert tokenizer.decode(ids) == text


def test_every_byte_has_a_token_with_exactly_that_byte(tokenizer: Tokenizer) -> None:
    single = {tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)}
    assert {bytes([byte]) for byte in range(256)} <= single


def test_a_character_cut_in_two_is_whole_again_in_a_longer_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a\U0001f9ff")
    assert len(ids) >= 4
    assert tokenizer.decode(ids[:-1]).endswith("\ufffd")
    assert tokenizer.decode(ids) == "a\U0001f9ff"


def test_added_token_in_the_byte_alphabet_stands_for_itself() -> None:
    backend = byte_level(special=("é", "Ġ"))
    tokenizer = ours(backend)
    assert tokenizer.token_bytes(backend.token_to_id("é")) == b"\xc3\xa9"
    assert tokenizer.decode(tokenizer.encode("xéĠ")) == "xéĠ"


def test_control_text_is_spelled_out_when_it_is_not_to_be_parsed() -> None:
    tokenizer = ours(byte_level(plain=("<think>", "<｜User｜>")))
    text = "a<|im_end|>b<｜User｜><think>"
    parsed = set(tokenizer.encode(text))
    assert {tokenizer.control["<|im_end|>"], tokenizer.control["<｜User｜>"]} <= parsed
    spelled = tokenizer.encode(text, parse_special=False)
    assert not set(spelled) & set(tokenizer.control.values())
    assert tokenizer.decode(spelled) == text
    assert tokenizer.backend.token_to_id("<think>") in spelled  # a tag, not a control token


def test_a_tag_stays_in_the_text_where_its_vocabulary_calls_it_special() -> None:
    tokenizer = ours(byte_level(special=("<think>", "<tool_call>", "<|im_end|>")), "<|im_end|>")
    ids = tokenizer.encode("<think>a<tool_call>b<|im_end|>")
    assert tokenizer.decode(ids, skip_special=True) == "<think>a<tool_call>b"


def test_spelled_out_ids_equal_transformers_split_special_tokens() -> None:
    backend = byte_level()
    reference = PreTrainedTokenizerFast(tokenizer_object=backend, split_special_tokens=True)
    for text in ["<|im_end|>", "x <|im_start|>system\n", *NASTY]:
        assert ours(backend).encode(text, parse_special=False) == reference.encode(
            text, add_special_tokens=False
        )


def test_a_vocabulary_that_spells_a_control_token_as_a_word_is_found_out() -> None:
    backend = Backend(models.BPE({"<": 0, "a": 1, ">": 2, "<a>": 3}, [], ignore_merges=True))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<a>"])
    with pytest.raises(BadRequest, match="spells the control token '<a>'"):
        Tokenizer(backend, SpecialIds(eos=(3,))).encode("<a>", parse_special=False)


def test_padding_and_truncation_in_the_file_are_not_obeyed() -> None:
    backend = byte_level()
    backend.enable_truncation(2)
    backend.enable_padding(length=8)
    assert len(ours(backend).encode("one two three four five six")) > 8


def test_ids_with_a_duty() -> None:
    backend = byte_level()
    end, begin = backend.token_to_id("<|im_end|>"), backend.token_to_id("<|im_start|>")
    tokenizer = Tokenizer(backend, SpecialIds(eos=(end, begin)))
    assert (tokenizer.eos_ids, tokenizer.pad_id, tokenizer.bos_id) == ((end, begin), end, None)
    assert Tokenizer(backend, SpecialIds(eos=())).pad_id == 0
    assert Tokenizer(backend, SpecialIds(eos=(end,), pad=begin, bos=begin)).pad_id == begin


def test_wrong_ids_and_broken_text_are_refused() -> None:
    tokenizer = ours(byte_level())
    for call in (tokenizer.token_bytes, tokenizer.token_text):
        with pytest.raises(BadRequest, match="-1 is not a token id"):
            call(-1)
    assert tokenizer.token_bytes(tokenizer.vocab_size) == b""
    with pytest.raises(BadRequest, match="surrogate pair at character 1"):
        tokenizer.encode("a\ud800")


@pytest.mark.parametrize("decoder", [None, decoders.WordPiece(), decoders.Strip("x", 2, 0), decoders.CTC()])
def test_decoder_that_can_not_be_undone_is_refused(decoder: object) -> None:
    backend = byte_level()
    source = json.loads(backend.to_str()) | {"decoder": decoder and json.loads(decoder.__getstate__())}
    with pytest.raises(Unsupported, match="decoder"):
        ours(Backend.from_str(json.dumps(source)))


@pytest.mark.parametrize(("scheme", "strips"), [("always", True), ("first", True), ("never", False)])
def test_metaspace_decoder_is_read(scheme: str, strips: bool) -> None:
    backend = sentencepiece_like("first")
    backend.decoder = decoders.Metaspace("▁", scheme)
    tokenizer = ours(backend)
    assert tokenizer.spelling.strips_first_space is strips
    assert tokenizer.token_bytes(backend.token_to_id("▁")) == b" "
