"""Texts that are too long are told from those that fit, without being encoded whole."""

import random

import pytest

from groschen.errors import BadRequest
from groschen.text.lengths import SLICE_CHARS, tokens_beyond
from groschen.text.tokenizer import Tokenizer
from text.samples import CORPUS, byte_level, ours, sentencepiece_like

TOKENIZERS = {"byte level": byte_level(), "sentencepiece": sentencepiece_like("prepend")}
LONG = " ".join(CORPUS) * (3 * SLICE_CHARS // len(" ".join(CORPUS)))


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return ours(TOKENIZERS[request.param])


@pytest.mark.parametrize("text", [LONG, "x" * 50_000, " " * 50_000, "日本語😀" * 9_000], ids=range(4))
def test_a_text_within_its_limit_is_never_called_too_long(tokenizer: Tokenizer, text: str) -> None:
    chooser = random.Random(1)
    for cut in [*(chooser.randrange(len(text)) for _ in range(8)), 0]:
        count = len(tokenizer.encode(text[cut:]))
        assert tokens_beyond(tokenizer, [text[cut:]], count) is None


def test_a_text_that_is_clearly_too_long_is_called_so(tokenizer: Tokenizer) -> None:
    count = len(tokenizer.encode(LONG))
    told = tokens_beyond(tokenizer, [LONG], count * 9 // 10)
    assert told is not None and count * 9 // 10 < told <= count


def test_many_texts_count_together(tokenizer: Tokenizer) -> None:
    count = len(tokenizer.encode(LONG))
    assert tokens_beyond(tokenizer, [LONG] * 3, 2 * count) is not None
    assert tokens_beyond(tokenizer, [LONG] * 3, 3 * count) is None


def test_no_more_is_encoded_than_it_takes(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    count = Tokenizer.num_tokens

    def counted(self: Tokenizer, text: str) -> int:
        encoded.append(len(text))
        return count(self, text)

    monkeypatch.setattr(Tokenizer, "num_tokens", counted)
    assert tokens_beyond(tokenizer, [LONG * 100], 1000) is not None
    assert encoded == [SLICE_CHARS]
    assert tokens_beyond(tokenizer, ["short"], 1000) is None and encoded == [SLICE_CHARS]


def test_half_a_surrogate_pair_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(BadRequest, match="surrogate"):
        tokens_beyond(tokenizer, ["x" * 100 + "\ud800"], 10)


@pytest.mark.parametrize("length", [4095, 4096, 4097, 50_000])
def test_a_long_text_has_the_ids_of_the_library_s_own_encoder(tokenizer: Tokenizer, length: int) -> None:
    text = LONG[:length]
    assert tokenizer.encode(text) == tokenizer.backend.encode(text, add_special_tokens=False).ids
