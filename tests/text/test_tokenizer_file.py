"""A tokenizer.json from anybody is built within bounds or refused, and a text that breaks it is an error."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import tiny_engine, tiny_model
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from groschen.errors import BadFile, BadRequest, Unsupported
from groschen.model.gguf_splits import SPLITS
from groschen.records import Request
from groschen.text.load import load_text
from groschen.text.regular_expressions import is_bounded
from groschen.text.tokenizer import SpecialIds, Tokenizer
from text.samples import byte_level, sentencepiece_like

DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
SLOW = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}


def folder_with(place: Path, backend: Backend | None = None, **changes: Any) -> Path:
    """A folder whose tokenizer.json has other parts: `model__dropout=0.5` reaches inside."""
    content = json.loads((backend or byte_level()).to_str())
    for name, value in changes.items():
        *owners, key = name.split("__")
        owner = content
        for step in owners:
            owner = owner[step]
        owner[key] = value
    (place / "tokenizer.json").write_text(json.dumps(content))
    return place


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"normalizer": {"type": "Sequence", "normalizers": [DOUBLING] * 30}}, "times as long"),
        ({"normalizer": {"type": "Sequence", "normalizers": [DOUBLING] * 5}}, "32 times as long"),
        ({"decoder": {"type": "Sequence", "decoders": [DOUBLING] * 30}}, "times as long"),
        ({"normalizer": {**DOUBLING, "pattern": {"Regex": "x*"}, "content": "y" * 99}}, "times as long"),
        ({"normalizer": {**DOUBLING, "content": "b" * 5000}}, "more than 1,000 characters|times as long"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 99}}, "99 parts"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "'Precompiled'"),
        ({"normalizer": {"type": ["NFC"]}}, "type"),
        ({"normalizer": "NFC"}, "'NFC', expected an object"),
        ({"pre_tokenizer": SLOW}, "without bound"),
        ({"pre_tokenizer": {**SLOW, "pattern": {"Regex": "["}}}, "without bound"),
        ({"pre_tokenizer": {**SLOW, "pattern": {"String": ""}}}, "expected a String or a Regex"),
        ({"pre_tokenizer": {**SLOW, "pattern": 7}}, "expected a String or a Regex"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": {}}}, "expected a list"),
        ({"model": {"type": "Oracle"}}, "'Oracle'"),
        ({"model__dropout": 0.5}, "'dropout'"),
        ({"model__vocab": {"a": -1}}, "the id -1"),
        ({"model__vocab": {"a": 2**32 - 1}}, "the id 4294967295"),
        ({"model__vocab": {"a": 1, "b": 1}}, "one id"),
        ({"added_tokens": [{"id": 2**31, "content": "x", "special": True}]}, "the id 2147483648"),
        ({"added_tokens": {"a": 1}}, "added_tokens"),
        ({"model": None}, "is no tokenizer"),
    ],
)
def test_what_has_no_bounds_is_refused_before_it_is_built(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises((BadFile, Unsupported), match=sentence) as refusal:
        load_text(folder_with(tmp_path, **changes))
    assert "\n" not in str(refusal.value)


def test_the_tokenizers_of_every_family_pass(tmp_path: Path) -> None:
    for index, backend in enumerate((byte_level(), *map(sentencepiece_like, ("prepend", "first", "none")))):
        (tmp_path / str(index)).mkdir()
        assert load_text(folder_with(tmp_path / str(index), backend)).tokenizer.encode("a b")


@pytest.mark.parametrize("name", SPLITS)
def test_the_expressions_of_published_tokenizers_are_bounded(name: str) -> None:
    assert all(map(is_bounded, SPLITS[name].patterns))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"\p{N}{1,3}(?=(?:\p{N}{3})*\b)", True),
        (r"[^\r\n\p{L}\p{N}]?+\p{L}+| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+", True),
        (r"[\p{Lu}&&[^\p{Han}]]*[\p{Ll}&&[^\p{Han}]]+(?i:'s|'t)?", True),
        (r" ?[^(\s|[.,!?])]+", True),
        ("(a+)+", False),
        ("(?:a|a)*b", False),
        ("(a?){64}", False),
        ("a*a*b", False),
        ("a*a*a*", False),
        (r"(.*)\1", False),
        (r"(?<n>a)\k<n>", False),
        ("a{1,1000}", False),
        ("(a", False),
        ("a)", False),
        ("*", False),
        ("[a", False),
        ("a|" * 3000, False),
    ],
)
def test_an_expression_is_bounded_by_its_form(pattern: str, expected: bool) -> None:
    assert is_bounded(pattern) is expected


def test_a_text_that_breaks_the_tokenizer_is_an_error_of_the_request() -> None:
    backend = Backend(models.WordLevel({"a": 0}, unk_token="?"))  # whose token for the unknown is unknown
    backend.decoder, backend.pre_tokenizer = decoders.Fuse(), pre_tokenizers.Whitespace()
    tokenizer = Tokenizer(backend, SpecialIds(eos=()))
    assert tokenizer.encode("a a") == [0, 0]
    with pytest.raises(BadRequest, match="cannot encode the text"):
        tokenizer.encode("b")


def test_a_panic_of_the_library_is_an_error_of_the_request() -> None:
    backend = byte_level()
    backend.normalizer = normalizers.Precompiled(b"\x04\0\0\0\xff\xff\xff\x7f")
    tokenizer = Tokenizer(backend, SpecialIds(eos=()))
    with pytest.raises(BadRequest, match=r"fails on the text|cannot encode"):
        tokenizer.encode("a\u00e9b")


def test_an_added_token_may_have_no_row_and_asking_for_it_is_the_request_s_error(tmp_path: Path) -> None:
    backend = byte_level()
    size = backend.get_vocab_size()
    backend.add_special_tokens([AddedToken("<image>", special=True)])
    text = load_text(folder_with(tmp_path, backend), num_rows=size)
    (added,) = text.tokenizer.encode("<image>")
    assert (added, text.tokenizer.vocab_size) == (size, size + 1)
    with pytest.raises(BadFile, match="do not belong together"):
        load_text(tmp_path, num_rows=size - 5)
    engine = tiny_engine(tiny_model(vocab_size=size, eos_token_id=None))
    with pytest.raises(BadRequest, match=f"token id {size} is not in the vocabulary of {size}"):
        engine.generate([Request(prompt_ids=(added,))])


@pytest.mark.parametrize("value", [-1, 10**9, [-1, 10**300], []])
def test_ids_of_ends_that_no_text_holds_are_left_out(value: object, tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    for name in ("generation_config", "config"):
        (folder / f"{name}.json").write_text(json.dumps({"eos_token_id": value, "pad_token_id": -1}))
    assert load_text(folder).tokenizer.eos_ids == ()


@pytest.mark.parametrize("value", ["x", 1.5, True, [None], {"a": 1}])
def test_ids_of_another_type_name_their_file(value: object, tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(BadFile, match=r"generation_config\.json: 'eos_token_id' must be a whole number"):
        load_text(folder)


def test_a_byte_order_mark_is_no_part_of_a_template(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    (folder / "chat_template.jinja").write_bytes(b"\xef\xbb\xbf{{ messages[0].content }}")
    assert load_text(folder).chat_template().render([{"role": "user", "content": "a"}]) == "a"
