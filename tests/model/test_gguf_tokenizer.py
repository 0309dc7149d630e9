import itertools
import json
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors

from groschen.errors import BadFile, Unsupported
from groschen.model.gguf_tokenizer import tokenizer_metadata
from tokenizer_samples import PRE_TOKENIZERS, TEXT, byte_level, sentencepiece_like

CONFIG = {"eos_token": "<|im_end|>", "bos_token": None, "pad_token": {"content": "<|endoftext|>"}}
SP_CONFIG = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def metadata(tokenizer: Tokenizer, config: dict[str, Any] = CONFIG, vocab_size: int = 400) -> dict[str, Any]:
    fields = tokenizer_metadata(json.loads(tokenizer.to_str()), config, vocab_size)
    return {key.removeprefix("tokenizer.ggml."): field.value for key, field in fields.items()}


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_a_byte_level_tokenizer_gets_the_name_of_its_splitting_and_all_its_tokens(name: str) -> None:
    tokenizer = byte_level(name)
    found = metadata(tokenizer)
    assert (found["model"], found["pre"]) == ("gpt2", name)
    assert len(found["tokens"]) == len(found["token_type"]) == 400
    vocab = tokenizer.get_vocab()
    assert {token: number for number, token in enumerate(found["tokens"]) if number < len(vocab)} == vocab
    assert found["tokens"][len(vocab) :] == [f"[PAD{number}]" for number in range(len(vocab), 400)]
    assert found["token_type"][len(vocab) :] == [5] * (400 - len(vocab))
    assert [found["token_type"][vocab[token]] for token in ("<|im_end|>", "<tool>", "the")] == [3, 4, 1]
    assert found["eos_token_id"] == vocab["<|im_end|>"]
    assert found["padding_token_id"] == vocab["<|endoftext|>"]
    assert "bos_token_id" not in found
    assert found["add_bos_token"] is False
    assert [tuple(merge.split(" ")) for merge in found["merges"]] == [
        tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]
    ]


def greedy_pieces(text: str, tokens: list[str], scores: list[float]) -> list[str]:
    """SentencePiece's BPE: again and again join the leftmost neighbours that score highest."""
    score = dict(zip(tokens, scores, strict=True))
    pieces = list(text)
    while True:
        pairs = enumerate(itertools.pairwise(pieces))
        joined = [(score.get(left + right), -at) for at, (left, right) in pairs]
        known = [(value, at) for value, at in joined if value is not None]
        if not known:
            return pieces
        at = -max(known)[1]
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]


@pytest.mark.parametrize("prepends_space", [True, False])
def test_scores_merge_as_the_merges_do(prepends_space: bool) -> None:
    tokenizer = sentencepiece_like(prepends_space=prepends_space)
    found = metadata(tokenizer, SP_CONFIG, 700)
    assert (found["model"], found["add_space_prefix"]) == ("llama", prepends_space)
    vocab = tokenizer.get_vocab()
    assert [found["token_type"][vocab[token]] for token in ("<unk>", "<s>", "<0x0A>", "\u2581the")] == [
        2,
        3,
        6,
        1,
    ]
    tokens = [
        token if kind == 1 else f"never {number}"
        for number, (token, kind) in enumerate(zip(found["tokens"], found["token_type"], strict=True))
    ]
    for text in TEXT[:5]:
        spaced = tokenizer.normalizer.normalize_str(text)
        assert greedy_pieces(spaced, tokens, found["scores"]) == tokenizer.encode(text).tokens


def test_a_beginning_token_is_added_where_the_template_adds_it() -> None:
    tokenizer = byte_level("llama-bpe")
    config = {**CONFIG, "bos_token": "<|endoftext|>"}
    assert metadata(tokenizer, config)["add_bos_token"] is False
    assert metadata(tokenizer, {**config, "add_bos_token": True})["add_bos_token"] is True
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]),
        ]
    )
    found = metadata(tokenizer, config)
    assert (found["add_bos_token"], found["add_eos_token"], found["bos_token_id"]) == (True, False, 0)


def test_chat_templates_are_kept_by_name() -> None:
    tokenizer = byte_level("qwen2")
    assert metadata(tokenizer, {**CONFIG, "chat_template": "T"})["tokenizer.chat_template"] == "T"
    named = [{"name": "default", "template": "D"}, {"name": "tools", "template": "U"}]
    found = metadata(tokenizer, {**CONFIG, "chat_template": named})
    assert (found["tokenizer.chat_template"], found["tokenizer.chat_template.tools"]) == ("D", "U")


def unknown_splitting(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def lower_case(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Lowercase()


def space_in_front(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (unknown_splitting, "no known name for how this tokenizer splits"),
        (lower_case, "the normalizer 'Lowercase'"),
        (space_in_front, "adds a space in front"),
    ],
)
def test_what_llama_cpp_has_no_name_for_is_refused(spoil: Any, what: str) -> None:
    tokenizer = byte_level("qwen2")
    spoil(tokenizer)
    with pytest.raises(Unsupported, match=what):
        metadata(tokenizer)


def test_whether_whole_words_skip_merging_is_part_of_the_name() -> None:
    state = json.loads(byte_level("qwen2").to_str())
    state["model"]["ignore_merges"] = True
    with pytest.raises(Unsupported, match="ignore_merges True"):
        tokenizer_metadata(state, CONFIG, 400)


def test_other_kinds_of_tokenizer_are_refused() -> None:
    for kind in ("Unigram", "WordPiece"):
        with pytest.raises(Unsupported, match=f"'{kind}'"):
            tokenizer_metadata({"model": {"type": kind, "vocab": []}}, CONFIG, 400)


def test_merges_that_no_scores_can_say_are_refused() -> None:
    state = json.loads(sentencepiece_like(prepends_space=False).to_str())
    state["model"]["merges"] = [["a", "bc"], ["x", "y"], ["ab", "c"]]
    with pytest.raises(Unsupported, match="not ordered by their results"):
        tokenizer_metadata(state, SP_CONFIG, 700)


def test_contradictions_are_bad_files() -> None:
    tokenizer = byte_level("qwen2")
    with pytest.raises(BadFile, match="'<nope>' as bos_token"):
        metadata(tokenizer, {**CONFIG, "bos_token": "<nope>"})
    with pytest.raises(BadFile, match="names no eos_token"):
        metadata(tokenizer, {})
    with pytest.raises(BadFile, match="the embedding has 300 rows"):
        metadata(tokenizer, vocab_size=300)
