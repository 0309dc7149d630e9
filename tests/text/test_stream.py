"""What a stream emits, together, is the decoded text up to the first stop string, however the ids come."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groschen.errors import BadRequest
from groschen.text.stream import TextStream
from groschen.text.tokenizer import Tokenizer
from text.samples import CORPUS, NASTY, byte_level, ours, sentencepiece_like


@pytest.fixture(scope="module", params=["byte level", "prepend", "none"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return ours(byte_level() if request.param == "byte level" else sentencepiece_like(request.param))


def first_stop(text: str, stop: list[str]) -> tuple[str, str | None]:
    """The text cut at the stop string that is complete first, the longest of those that end together;
    found slowly.
    """
    for end in range(len(text) + 1):
        ending = sorted((one for one in stop if text[:end].endswith(one)), key=len, reverse=True)
        if ending:
            return text[: end - len(ending[0])], ending[0]
    return text, None


ids_of = st.lists(st.integers(0, 700), max_size=40)
texts = st.one_of(st.sampled_from([*NASTY, *CORPUS]), st.text(alphabet="ab<\n 😀é", max_size=30))
stops = st.lists(
    st.one_of(st.text(alphabet="ab<\n 😀é", min_size=1, max_size=5), st.just("\ufffd")), max_size=4
)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), ids=ids_of, text=texts, stop=stops, skip=st.booleans(), as_text=st.booleans())
def test_stream_equals_decode_cut_at_the_stop_string(
    tokenizer: Tokenizer,
    data: st.DataObject,
    ids: list[int],
    text: str,
    stop: list[str],
    skip: bool,
    as_text: bool,
) -> None:
    ids = tokenizer.encode(text) if as_text else ids
    stream = TextStream(tokenizer, stop, skip_special=skip)
    emitted, at = "", 0
    while at < len(ids):
        size = data.draw(st.integers(1, 4))
        emitted += stream.push(ids[at : at + size])
        at += size
    emitted += stream.finish()
    expected, found = first_stop(tokenizer.decode(ids, skip_special=skip), stop)
    assert (emitted, stream.stopped) == (expected, found)
    assert stream.finish() == ""


@settings(max_examples=200, deadline=None)
@given(ids=ids_of, stop=stops)
def test_nothing_emitted_is_ever_taken_back(tokenizer: Tokenizer, ids: list[int], stop: list[str]) -> None:
    stream = TextStream(tokenizer, stop, skip_special=False)
    emitted = ""
    for count, token_id in enumerate(ids, start=1):
        emitted += stream.push([token_id])
        final = TextStream(tokenizer, stop, skip_special=False)
        assert (final.push(ids[:count]) + final.finish()).startswith(emitted)
        assert stream.num_tokens <= count


def test_half_a_character_is_not_shown_until_it_is_whole() -> None:
    tokenizer = ours(byte_level())
    ids = tokenizer.encode("\U0001f9ff!")
    stream = TextStream(tokenizer)
    shown = [stream.push([i]) for i in ids]
    assert len(shown) >= 4 and shown == [*[""] * (len(ids) - 2), "\U0001f9ff", "!"]


def test_broken_bytes_are_shown_as_soon_as_nothing_can_repair_them() -> None:
    tokenizer = ours(byte_level())
    start, letter = tokenizer.encode("\U0001f9ff")[0], tokenizer.encode("a")[0]
    stream = TextStream(tokenizer)
    assert [stream.push([start]), stream.push([letter]), stream.push([start])] == ["", "\ufffda", ""]
    assert stream.finish() == "\ufffd"


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    tokenizer = ours(byte_level())
    stream = TextStream(tokenizer, ["</answer>"])
    assert stream.push(tokenizer.encode("is 4</ans")) == "is 4"
    assert stream.push(tokenizer.encode("wers</answer> and more")) == "</answers"
    assert stream.stopped == "</answer>"
    assert stream.push(tokenizer.encode("more")) == stream.finish() == ""


def test_count_of_tokens_ends_with_the_one_that_completed_the_stop_string() -> None:
    tokenizer = ours(byte_level())
    before, stop, behind = (tokenizer.encode(text) for text in ("one", "\n\n", "two"))
    stream = TextStream(tokenizer, ["\n\n"])
    stream.push([*before, *stop, *behind])
    assert stream.num_tokens == len(before) + len(stop)


def test_special_tokens_are_skipped_or_shown() -> None:
    tokenizer = ours(byte_level())
    ids = tokenizer.encode("a<|im_end|>")
    assert TextStream(tokenizer).push(ids) == "a"
    assert TextStream(tokenizer, skip_special=False).push(ids) == "a<|im_end|>"


def test_the_encoder_s_first_space_is_not_shown_but_later_ones_are() -> None:
    tokenizer = ours(sentencepiece_like("prepend"))
    stream = TextStream(tokenizer)
    assert "".join(stream.push([i]) for i in tokenizer.encode(" the fox")) == " the fox"


def test_a_text_that_continues_another_one_keeps_its_first_space() -> None:
    tokenizer = ours(sentencepiece_like("prepend"))
    drawn = tokenizer.encode("over the fox")
    whole = tokenizer.decode([*tokenizer.encode("jumps"), *drawn])
    assert "jumps" + TextStream(tokenizer, continues=True).push(drawn) == whole == "jumps over the fox"
    stream = TextStream(tokenizer, [" over"], continues=True)
    assert stream.push(drawn) == "" and stream.stopped == " over"


def test_empty_stop_string_is_refused() -> None:
    with pytest.raises(BadRequest, match="empty"):
        TextStream(ours(byte_level()), ["x", ""])
