"""A vocabulary from GGUF metadata gives the ids of the model's own tokenizer."""

import io
import json
import unicodedata
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, GemmaTokenizer, Qwen2Tokenizer
from transformers.tokenization_utils_base import generate_merges

from groschen.errors import BadFile, Unsupported
from groschen.model.gguf_format import read_gguf
from groschen.text.gguf_vocab import tokenizer_from_gguf
from groschen.text.load import load_text
from groschen.text.pieces import byte_alphabet
from groschen.text.tokenizer import Tokenizer
from text.samples import CORPUS, NASTY, sentencepiece_like

# llama.cpp's test vocabularies whose pre-tokenizer is known here.
KNOWN = [
    "gpt-2",
    "qwen2",
    "qwen35",
    "llama-bpe",
    "llama-spm",
    "phi-3",
    "deepseek-coder",
    "refact",
    "starcoder",
    "command-r",
]
UNKNOWN = ["mpt", "falcon", "deepseek-llm"]


@pytest.mark.parametrize("name", KNOWN)
def test_ids_are_those_that_llama_cpp_gives(reference_vocabularies: list[Path], name: str) -> None:
    (path,) = [path for path in reference_vocabularies if path.name == f"ggml-vocab-{name}.gguf"]
    tokenizer = tokenizer_from_gguf(read_gguf(path).metadata)
    *texts, end = Path(f"{path}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = Path(f"{path}.out").read_text(encoding="utf-8").splitlines()
    assert len(texts) == len(lines) > 40 and not end
    for text, line in zip(texts, lines, strict=True):
        # Qwen's own tokenizer composes characters first, llama.cpp does not: other ids for a decomposed text.
        if not name.startswith("qwen") or unicodedata.is_normalized("NFC", text):
            assert tokenizer.encode(text) == [int(i) for i in line.split()], repr(text)


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_pre_tokenizer_is_refused_by_name(reference_vocabularies: list[Path], name: str) -> None:
    (path,) = [path for path in reference_vocabularies if path.name == f"ggml-vocab-{name}.gguf"]
    with pytest.raises(Unsupported, match=f"'{name}'.*known are"):
        tokenizer_from_gguf(read_gguf(path).metadata)


@pytest.mark.real
def test_real_vocabulary_equals_transformers_on_all_of_gsm8k(
    real_gguf: Path, gsm8k_questions: list[str]
) -> None:
    metadata = read_gguf(real_gguf).metadata
    ours = tokenizer_from_gguf(metadata)
    tokens, merges = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]
    pairs = [tuple(merge.split(" ")) for merge in merges]
    reference = Qwen2Tokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=pairs)
    for text in [*gsm8k_questions, *NASTY]:
        ids = reference.encode(text, add_special_tokens=False)
        assert ours.encode(text) == ids, repr(text)
        assert ours.decode(ids) == reference.decode(ids, clean_up_tokenization_spaces=False), repr(text)


@pytest.mark.slow  # transformers reads the file for 40 seconds
@pytest.mark.real
def test_real_vocabulary_equals_what_transformers_makes_of_the_gguf_file(
    real_gguf: Path, gsm8k_questions: list[str]
) -> None:
    text = load_text(real_gguf)
    reference = AutoTokenizer.from_pretrained(real_gguf.parent, gguf_file=real_gguf.name)
    # transformers 5.23 forgets here that Qwen's tokenizer composes characters; decomposed texts have other
    # ids.
    for sentence in [*gsm8k_questions[:500], *NASTY, "<|im_start|>user\nHi<|im_end|>\n<tool_call>"]:
        if unicodedata.is_normalized("NFC", sentence):
            assert text.tokenizer.encode(sentence) == reference.encode(sentence, add_special_tokens=False), (
                sentence
            )
    assert text.tokenizer.eos_ids[0] == reference.eos_token_id
    assert text.tokenizer.pad_id == reference.pad_token_id
    assert text.chat_template().sources["default"] == reference.chat_template


def trained_sentencepiece(**extra: object) -> tuple[sentencepiece.SentencePieceProcessor, dict[str, object]]:
    """A small SentencePiece BPE model and the GGUF metadata that says the same."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 10),
        model_writer=model,
        model_type="bpe",
        vocab_size=700,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        minloglevel=2,
        **extra,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    size = range(processor.get_piece_size())
    types = [
        6 if processor.is_byte(i) else 2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 1
        for i in size
    ]
    return processor, {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [processor.id_to_piece(i) for i in size],
        "tokenizer.ggml.scores": [processor.get_score(i) for i in size],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": processor.bos_id(),
        "tokenizer.ggml.eos_token_id": processor.eos_id(),
        "tokenizer.ggml.unknown_token_id": processor.unk_id(),
        "tokenizer.ggml.add_space_prefix": extra.get("add_dummy_prefix", True),
    }


@pytest.fixture(scope="module", params=[True, False], ids=["prefix", "no prefix"])
def sentencepiece_pair(
    request: pytest.FixtureRequest,
) -> tuple[sentencepiece.SentencePieceProcessor, Tokenizer]:
    processor, metadata = trained_sentencepiece(add_dummy_prefix=request.param)
    return processor, tokenizer_from_gguf(metadata)


def test_scored_vocabulary_equals_sentencepiece_on_odd_texts(
    sentencepiece_pair: tuple[sentencepiece.SentencePieceProcessor, Tokenizer],
) -> None:
    processor, ours = sentencepiece_pair
    for text in [*NASTY, *CORPUS]:
        if not any(
            mark in text for mark in ("<s>", "▁", "\0")
        ):  # <s> is control here; sentencepiece reads ▁ as a space
            assert ours.encode(text) == processor.encode(text), repr(text)
            assert ours.decode(processor.encode(text)) == text


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="ab ieontr.,\nüß12日", max_size=40))
def test_scored_vocabulary_equals_sentencepiece_on_random_texts(
    sentencepiece_pair: tuple[sentencepiece.SentencePieceProcessor, Tokenizer], text: str
) -> None:
    processor, ours = sentencepiece_pair
    assert ours.encode(text) == processor.encode(text)


def test_gemma_s_order_of_merges_is_that_of_its_ids() -> None:
    vocabulary, metadata = gemma_like()
    ours = tokenizer_from_gguf(metadata)
    reference = GemmaTokenizer(
        vocab=vocabulary, merges=generate_merges(vocabulary, {t: -i for t, i in vocabulary.items()})
    )
    for text in [*CORPUS, "a  b   c", "  quick", "the\n\nfox", "über 日本"]:
        assert ours.encode(text) == reference.encode(text, add_special_tokens=False), repr(text)
        assert ours.decode(ours.encode(text)) == text
    assert ours.encode("fox", add_special=True)[0] == ours.bos_id == vocabulary["<bos>"]


def gemma_like() -> tuple[dict[str, int], dict[str, object]]:
    """A vocabulary as Gemma's files hold it: scores that say nothing, runs of spaces stored as spaces."""
    trained = json.loads(sentencepiece_like(space="none").to_str())["model"]["vocab"]
    pieces = [piece for piece in sorted(trained, key=lambda piece: trained[piece]) if piece[0] != "<"]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens = [*special, "▁▁", "▁▁▁", *(piece for piece in pieces if piece not in ("▁▁", "▁▁▁"))]
    types = [3, 3, 3, 2, *[6] * 256, 4, 4, *[1] * (len(tokens) - 262)]
    return {token: i for i, token in enumerate(tokens)}, {
        "general.architecture": "gemma3",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [
            token.replace("▁", " ") if set(token) == {"▁"} and len(token) > 1 else token for token in tokens
        ],
        "tokenizer.ggml.scores": [-1000.0] * len(tokens),
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_space_prefix": False,
    }


def byte_level_metadata(**changes: object) -> dict[str, object]:
    """A byte-level vocabulary of 256 bytes, one merge and two added tokens."""
    tokens = [*byte_alphabet(), "in", "<|im_end|>", "<think>", "[PAD259]"]
    metadata: dict[str, object] = {
        "general.architecture": "qwen2",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [*[1] * 257, 3, 4, 5],
        "tokenizer.ggml.merges": ["i n"],
        "tokenizer.ggml.eos_token_id": 257,
    }
    return metadata | {f"tokenizer.ggml.{name}": value for name, value in changes.items()}


def test_token_types_decide_what_is_special_and_padding_rows_are_no_tokens() -> None:
    tokenizer = tokenizer_from_gguf(byte_level_metadata())
    assert tokenizer.vocab_size == 259
    assert tokenizer.special_ids == {257}
    assert tokenizer.encode("in<think>in<|im_end|>") == [256, 258, 256, 257]
    assert tokenizer.decode([256, 258, 257, 259, 300], skip_special=True) == "in<think>"


def test_begin_and_end_tokens_are_added_only_if_the_file_says_so() -> None:
    tokenizer = tokenizer_from_gguf(
        byte_level_metadata(bos_token_id=257, add_bos_token=True, add_eos_token=True)
    )
    assert tokenizer.encode("in", add_special=True) == [257, 256, 257]
    assert tokenizer.encode("in") == [256]
    assert tokenizer_from_gguf(byte_level_metadata(bos_token_id=257)).encode("in", add_special=True) == [256]


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"model": "bert"}, Unsupported, "kind 'bert'"),
        ({"pre": "falcon"}, Unsupported, "pre-tokenizer 'falcon'"),
        ({"tokens": []}, BadFile, "0 tokens and 260 token types"),
        ({"token_type": [1, 2]}, BadFile, "260 tokens and 2 token types"),
        ({"token_type": ["x"] * 260}, BadFile, "token_type in the GGUF file holds 'x', expected int"),
        ({"model": "llama", "scores": ["x"] * 260}, BadFile, "holds 'x', expected float"),
        ({"merges": ["i zz"]}, BadFile, "merges 'i' and 'zz'"),
        ({"eos_token_id": 9999}, BadFile, "eos token is 9999"),
        ({"tokens": "text"}, BadFile, "expected a list"),
        ({"model": "llama"}, BadFile, "260 tokens and 0 scores"),
        ({"model": "llama", "remove_extra_whitespaces": True}, Unsupported, "remove_extra_whitespaces"),
    ],
)
def test_broken_metadata_is_one_clear_sentence(
    changes: dict[str, object], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        tokenizer_from_gguf(byte_level_metadata(**changes))


@pytest.mark.parametrize("name", ["padding", "unknown"])
@pytest.mark.parametrize("value", [-1, 260, 259, 2**32 - 1])
def test_an_id_that_nothing_needs_may_lie_outside_of_the_vocabulary(name: str, value: int) -> None:
    metadata = byte_level_metadata(**{f"{name}_token_id": value})
    text = load_text(metadata)
    assert text.tokenizer.encode("in") == [256]
    assert text.tokenizer.pad_id == 257  # the first that ends a completion
    assert "pad_token" not in text.named_tokens


def test_two_tokens_of_one_text_are_refused() -> None:
    metadata = byte_level_metadata()
    tokens = list(metadata["tokenizer.ggml.tokens"])  # type: ignore[call-overload]
    tokens[258] = tokens[256]
    with pytest.raises(BadFile, match="tokens 256 and 258 have one text, 'in'"):
        load_text({**metadata, "tokenizer.ggml.tokens": tokens})


@pytest.mark.timeout(10)
def test_tokens_of_a_hundred_thousand_letters_are_refused_before_they_are_cut() -> None:
    metadata = byte_level_metadata()
    tokens = [*list(metadata["tokenizer.ggml.tokens"])[:258], "a" * 100_000, "<new>"]  # type: ignore[call-overload]
    with pytest.raises(BadFile, match="many thousand letters"):
        load_text({**metadata, "tokenizer.ggml.tokens": tokens})
