"""Reasoning ends where its budget does, a grammar begins where the reasoning ends, and both count exactly."""

import json
from importlib import resources
from itertools import chain
from pathlib import Path

import pytest
from tests.tiny import byte_tokenizer, tiny_engine, tiny_model
from tokenizers import AddedToken

from groschen.engine.engine import EngineConfig
from groschen.engine.open import Opened, open_engine
from groschen.errors import Unsupported
from groschen.records import Guide, Request, SamplingParams
from groschen.serve.budget import ReasoningGuide, ReasoningTags
from groschen.serve.calling import CallGuide
from groschen.serve.forms.form import LLAMA
from groschen.serve.grammar import Grammars, JsonSchema, Regex
from groschen.text.tokenizer import SpecialIds, Tokenizer

END = 256
OPEN, CLOSE = "<think>", "</think>"


def tags_of(tokenizer: Tokenizer) -> ReasoningTags:
    return ReasoningTags(tokenizer, OPEN, CLOSE, {END})


BYTES = tags_of(byte_tokenizer())  # each tag is seven or eight tokens
ANSWER = Grammars(byte_tokenizer(), {END}).guide(Regex("[0-9]{2}"))


def ids(text: str) -> list[int]:
    return byte_tokenizer().encode(text)


def is_allowed(guide: Guide, token_id: int) -> bool:
    mask = guide.allowed()
    return mask is None or (token_id < 8 * len(mask) and bool(mask[token_id // 8] >> token_id % 8 & 1))


def refused_at(guide: Guide, *parts: str | int) -> int | None:
    """The place of the first token that is not allowed; None if all are. Text is one token for each byte."""
    spelled = (ids(part) if isinstance(part, str) else [part] for part in parts)
    for place, token_id in enumerate(chain.from_iterable(spelled)):
        if not is_allowed(guide, token_id):
            return place
        guide.accept(token_id)
    return None


def only_choice(guide: Guide) -> int | None:
    mask = guide.allowed()
    found = [] if mask is None else [i for i in range(8 * len(mask)) if mask[i // 8] >> i % 8 & 1]
    return found[0] if len(found) == 1 else None


def test_after_the_budget_the_close_tag_is_forced_and_then_nothing() -> None:
    guide = ReasoningGuide(tags=BYTES, is_open=True, budget=5)
    for token_id in ids("abcde"):
        assert guide.allowed() is None
        guide.accept(token_id)
    for token_id in ids(CLOSE):
        assert only_choice(guide) == token_id
        guide.accept(token_id)
    assert guide.allowed() is None
    assert refused_at(guide, "and so on, with no limit any more") is None


def test_a_budget_of_nothing_closes_at_once() -> None:
    guide = ReasoningGuide(tags=BYTES, is_open=True, budget=0)
    assert refused_at(guide.fork(), CLOSE) is None
    assert refused_at(guide, "a") == 0


def test_a_close_tag_that_has_begun_is_completed_and_not_written_twice() -> None:
    guide = ReasoningGuide(tags=BYTES, is_open=True, budget=6)
    assert refused_at(guide, "ab</thx") == 6
    assert refused_at(guide, "ink>") is None
    assert guide.allowed() is None


def test_reasoning_that_ends_by_itself_is_not_cut() -> None:
    guide = ReasoningGuide(tags=BYTES, is_open=True, budget=20)
    assert refused_at(guide, "short</think>" + "x" * 50) is None


def test_only_reasoning_that_was_begun_is_counted() -> None:
    guide = ReasoningGuide(tags=BYTES, is_open=False, budget=3)
    assert refused_at(guide.fork(), "no reasoning at all, so there is nothing to limit") is None
    assert refused_at(guide.fork(), "<thin air> is no tag") is None
    assert refused_at(guide.fork(), "later <think>is not the beginning") is None
    assert refused_at(guide.fork(), "\n <think>abcd") == 12
    assert refused_at(guide, "\n <think>abc</think>free again") is None


def test_an_answer_begins_only_after_the_reasoning() -> None:
    guide = ReasoningGuide(tags=BYTES, is_open=True, then=ANSWER.fork())
    assert refused_at(guide.fork(), "any thing 42</think>17", END) is None
    assert refused_at(guide.fork(), "any</think>\n\n17", END) is None
    assert refused_at(guide.fork(), "any</think>\n\n\n") == 13
    assert refused_at(guide.fork(), "any</think>x") == 11
    assert refused_at(guide.fork(), "any</think>1\n") == 12
    assert refused_at(guide, "any", END) == 3


def test_a_model_may_begin_to_think_before_an_answer_in_a_grammar() -> None:
    guide = ReasoningGuide(tags=BYTES, is_open=False, budget=2, then=ANSWER.fork())
    assert refused_at(guide.fork(), "17", END) is None
    assert refused_at(guide.fork(), "<think>ab</think>17", END) is None
    assert refused_at(guide.fork(), "<x") == 1  # once begun, the open tag has to be written to its end
    assert refused_at(guide.fork(), "<think>abc") == 9
    assert refused_at(guide, "other") == 0


def test_white_space_and_a_begun_tag_are_no_answer_where_any_text_may_follow() -> None:
    free = CallGuide(byte_tokenizer(), LLAMA, ANSWER.fork())
    guide = ReasoningGuide(tags=BYTES, is_open=False, budget=2, then=free)
    assert refused_at(guide.fork(), "\n <thin ice, and no end of it") is None
    assert refused_at(guide.fork(), "\n<think>abc") == 10
    assert refused_at(guide.fork(), "\n<think>ab</think>\n") is None
    begun = guide.fork()
    assert refused_at(begun, "<think") is None
    begun.accept(ids(">")[0])
    twin = begun.fork()
    assert refused_at(twin, "ab</think>\nfree") is None
    assert refused_at(begun, "ab</think>{") == 10  # still an object at the very start, and no call begins so


def test_a_fork_goes_its_own_way() -> None:
    guide = ReasoningGuide(tags=BYTES, is_open=True, budget=3, then=ANSWER.fork())
    guide.accept(ids("a")[0])
    twin = guide.fork()
    assert refused_at(twin, "bc</think>17", END) is None
    assert refused_at(guide, "b</think>\n42", END) is None


def odd_tokenizer() -> Tokenizer:
    """Words that close the reasoning and go on."""
    backend = byte_tokenizer().backend
    backend.add_tokens(["</think>{", "</think>\n", "think>1"])
    backend.add_special_tokens([AddedToken("<end>", special=True)])
    return Tokenizer(backend, SpecialIds(eos=(END,)))


def test_a_token_may_not_hide_the_beginning_of_an_answer_behind_the_close_tag() -> None:
    tokenizer = odd_tokenizer()
    tags = tags_of(tokenizer)
    closes_and_goes_on, closes, ends_and_goes_on = (
        tokenizer.backend.token_to_id(word) for word in ("</think>{", "</think>\n", "think>1")
    )
    guide = ReasoningGuide(tags=tags, is_open=True, then=ANSWER.fork())
    assert refused_at(guide.fork(), closes_and_goes_on) == 0
    assert refused_at(guide.fork(), closes, "17", END) is None
    assert refused_at(guide.fork(), ends_and_goes_on) is None  # nothing to close yet
    assert refused_at(guide.fork(), "</", ends_and_goes_on) == 2
    free = ReasoningGuide(tags=tags, is_open=True, budget=9)
    assert refused_at(free, closes_and_goes_on, "without a grammar there is nothing to hide from") is None


def test_tags_that_the_vocabulary_cannot_write_are_refused() -> None:
    class Lossy(Tokenizer):
        def encode(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
            return super().encode(text.lower())

    with pytest.raises(Unsupported, match="cannot write '<THINK>'"):
        ReasoningTags(Lossy(byte_tokenizer().backend, SpecialIds(eos=(END,))), "<THINK>", "</THINK>", {END})


def test_a_budgeted_text_is_the_same_alone_and_among_others() -> None:
    model = tiny_model()
    asked = [
        Request(
            prompt_ids=tuple(ids(f"Number {number}")), sampling=SamplingParams(seed=number, max_tokens=40),
            guide=ReasoningGuide(tags=BYTES, is_open=True, budget=number, then=ANSWER.fork()),
        )
        for number in range(24)
    ]  # fmt: skip
    together = tiny_engine(model).generate(asked)
    for number in range(0, 24, 5):
        found = together[number][0]
        (alone,) = tiny_engine(model).generate([asked[number]])
        assert (alone[0].token_ids, alone[0].logprobs) == (found.token_ids, found.logprobs)
        assert list(found.token_ids[number : number + 8]) == ids(CLOSE)
        assert found.text.rpartition(CLOSE)[2].strip().isdigit()


@pytest.fixture(scope="module")
def penny() -> Opened:
    folder = Path(str(resources.files("groschen"))) / "penny"
    return open_engine(str(folder), config=EngineConfig(cache_bytes=100_000_000))


@pytest.mark.parametrize("budget", [0, 7, 40])
def test_penny_thinks_for_its_budget_and_answers_in_json(penny: Opened, budget: int) -> None:
    """Its tags are one token each, and it opens them itself."""
    engine, tokenizer = penny.engine, penny.text.tokenizer
    tags = ReasoningTags(tokenizer, OPEN, CLOSE, engine.end_ids)
    assert len(tags.open_ids) == len(tags.close_ids(0)) == 1
    properties = {"sum": {"type": "string", "maxLength": 12}, "found": {"type": "boolean"}}
    schema = {"type": "object", "properties": properties, "required": ["sum"], "additionalProperties": False}
    answer = Grammars(tokenizer, engine.end_ids).guide(JsonSchema(schema))
    asked = [{"role": "user", "content": "Use 3, 5 and 7 to make 22."}]
    prompt_ids = tuple(penny.text.chat_template().encode(tokenizer, asked))
    request = Request(
        prompt_ids=prompt_ids, num_completions=12, sampling=SamplingParams(seed=2, max_tokens=300),
        guide=ReasoningGuide(tags=tags, is_open=False, budget=budget, then=answer),
    )  # fmt: skip
    thought = 0
    for completion in engine.generate([request])[0]:
        found = list(completion.token_ids)
        if tags.open_ids[0] in found:
            thought += 1
            end = found.index(tags.close_ids(0)[0])  # the first: penny may write another into the JSON's text
            assert end - found.index(tags.open_ids[0]) - 1 <= budget
            found = found[end + 1 :]
        written = tokenizer.decode(found, skip_special=False).removesuffix("<|end|>")
        assert isinstance(json.loads(written)["sum"], str)
    assert thought > 0
