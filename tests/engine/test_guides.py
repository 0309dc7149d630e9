"""What a guide forbids is never drawn, what is told is of the masked distribution, and company changes
nothing.
"""

import math
from dataclasses import dataclass, field, replace

import pytest
import torch
from tests.engine.test_engine_exactness import bytes_per_token, prompt
from tests.tiny import FAMILIES, VOCABULARY, byte_tokenizer, tiny_engine, tiny_model

from groschen.engine.engine import Engine
from groschen.errors import BadRequest, GroschenError
from groschen.model.kvcache import Rows
from groschen.model.transformer import Transformer
from groschen.records import Completion, Request, SamplingParams

END = 256
*LETTERS, SPACE = byte_tokenizer().encode("abcdefghijklmnopqrstuvwxyz ")


def mask(*token_ids: int) -> bytes:
    bits = bytearray(VOCABULARY // 8)
    for token_id in token_ids:
        bits[token_id // 8] |= 1 << token_id % 8
    return bytes(bits)


@dataclass
class Words:
    """Three letters, no two alike side by side, a space, and so on; the end after `length` tokens."""

    length: int = 24
    taken: list[int] = field(default_factory=list)

    def choices(self) -> list[int]:
        if len(self.taken) >= self.length:
            return [END]
        if len(self.taken) % 4 == 3:
            return [SPACE]
        return [letter for letter in LETTERS if letter not in self.taken[-1:]]

    def allowed(self) -> bytes | None:
        return mask(*self.choices())

    def accept(self, token_id: int) -> None:
        assert token_id in self.choices()
        self.taken.append(token_id)

    def fork(self) -> "Words":
        return Words(self.length, list(self.taken))


class Broken(Words):
    """Goes wrong after six tokens: allows nothing, or cannot say."""

    says = True

    def allowed(self) -> bytes | None:
        if len(self.taken) < 6:
            return super().allowed()
        if self.says:
            raise BadRequest("the grammar got lost")
        return mask()

    def fork(self) -> "Broken":
        copy = Broken(self.length)
        copy.says = self.says
        return copy


def ask(seed: int = 1, *, guide: Words | None = None, samples: int = 1, **sampling: object) -> Request:
    params = SamplingParams(**{"seed": seed, "max_tokens": 40, **sampling})  # type: ignore[arg-type]
    ids = prompt(9 + 7 * seed % 60, seed)
    return Request(prompt_ids=ids, sampling=params, num_completions=samples, guide=guide or Words())


def check(completion: Completion) -> None:
    words = Words()
    for token_id in completion.token_ids[:-1]:
        words.accept(token_id)
    assert completion.token_ids[-1] == END
    assert len(completion.text) == 24


def bits(completion: Completion) -> tuple[object, ...]:
    return completion.token_ids, completion.logprobs, completion.text, completion.alternatives


@pytest.mark.parametrize(
    "sampling",
    [{}, {"temperature": 0.0}, {"top_k": 40, "top_p": 0.9}, {"min_p": 0.05, "temperature": 2.0},
     {"repetition_penalty": 1.3, "frequency_penalty": 0.5, "logit_bias": ((7, 100.0),)},
     {"top_logprobs": 20}],
)  # fmt: skip
@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_only_what_the_guide_allows_is_drawn(family: str, sampling: dict[str, object]) -> None:
    engine = tiny_engine(tiny_model(family))
    for completion in engine.generate([ask(seed, samples=3, **sampling) for seed in range(4)]):
        for each in completion:
            check(each)


def masked_logprobs(model: Transformer, completion: Completion, temperature: float) -> list[float]:
    """The oracle: one forward over the whole text, and log_softmax over the allowed tokens alone."""
    ids = torch.tensor([*completion.prompt_ids, *completion.token_ids])
    rows = Rows.of_sequences([len(ids)], torch.device("cpu"))
    with torch.inference_mode():
        logits = model.logits(model(ids, rows, model.new_cache(int(rows.tables.max()) + 1))).double()
    words, found = Words(), []
    for place, token_id in enumerate(completion.token_ids, len(completion.prompt_ids) - 1):
        allowed = sorted(set(words.choices()))
        logprobs = (logits[place, allowed] / temperature).log_softmax(-1)
        found.append(float(logprobs[allowed.index(token_id)]))
        if token_id != END:
            words.accept(token_id)
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_logprobs_are_of_the_masked_distribution(temperature: float) -> None:
    model = tiny_model()
    engine = tiny_engine(model)
    group = engine.generate([ask(3, samples=4, temperature=temperature, top_logprobs=5)])[0]
    for completion in group:
        assert completion.logprobs == pytest.approx(masked_logprobs(model, completion, temperature), abs=1e-5)
        words = Words()
        for token_id, each in zip(completion.token_ids, completion.alternatives, strict=True):
            choices = set(words.choices())
            assert set(each.token_ids) <= choices
            assert len(each.token_ids) == min(5, len(choices))
            assert sum(map(math.exp, each.logprobs)) < 1 + 1e-6
            if token_id != END:
                words.accept(token_id)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_guided_text_is_the_same_alone_and_among_63_others(family: str) -> None:
    """Half of the others are guided too, half are not; some have cuts."""
    model = tiny_model(family)
    asked = [ask(seed, top_k=30 * (seed % 3 == 0)) for seed in range(64)]
    asked = [replace(each, guide=None) if seed % 2 else each for seed, each in enumerate(asked)]
    together = tiny_engine(model).generate(asked)
    for seed in range(0, 64, 9):
        (alone,) = tiny_engine(model).generate([asked[seed]])
        assert bits(alone[0]) == bits(together[seed][0])
        if asked[seed].guide is not None:
            check(alone[0])


def test_preemption_and_the_prefix_cache_do_not_change_a_guided_text() -> None:
    model = tiny_model()
    asked = [ask(seed, samples=2, guide=Words(100), max_tokens=120) for seed in range(10)]
    roomy = tiny_engine(model)
    tight = tiny_engine(model, cache_bytes=40 * 16 * bytes_per_token(model))
    expected = roomy.generate(asked)
    again, found = roomy.generate(asked), tight.generate(asked)
    assert tight.scheduler.num_preemptions > 3
    assert any(c.cached_tokens for group in again for c in group)
    for first, second, third in zip(expected, again, found, strict=True):
        assert [bits(c) for c in first] == [bits(c) for c in second] == [bits(c) for c in third]


def test_speculation_does_not_change_a_guided_text() -> None:
    model = tiny_model()
    asked = [ask(5, guide=Words(90), max_tokens=100, **setting) for setting in ({}, {"temperature": 0.2})]
    plain, guessing = tiny_engine(model), tiny_engine(model, speculate=6)
    for request in asked:
        assert bits(guessing.generate([request])[0][0]) == bits(plain.generate([request])[0][0])
    assert guessing.num_accepted > 0


@pytest.mark.parametrize("says", [True, False])
def test_a_guide_that_cannot_go_on_ends_its_request_and_no_other(says: bool) -> None:
    engine = tiny_engine()
    guide = Broken()
    guide.says = says
    good = engine.add(ask(1))
    bad = engine.add(ask(2, guide=guide, samples=3))
    errors, completions = [], []
    while not engine.is_idle:
        for progress in engine.step():
            if progress.error is not None:
                assert progress.request == bad
                errors.append(str(progress.error))
            if progress.completion is not None:
                completions.append(progress.request)
    assert completions == [good]
    assert len(errors) == 1
    assert ("the grammar got lost" if says else "allows no token") in errors[0]
    assert engine.pool.num_free == engine.pool.num_blocks


def test_the_error_of_a_guide_reaches_who_waits_for_the_request() -> None:
    engine = tiny_engine()
    with pytest.raises(GroschenError, match="got lost"):
        engine.generate([ask(1), ask(2, guide=Broken())])
    with pytest.raises(GroschenError, match="got lost"):
        list(engine.stream(ask(2, guide=Broken())))
    assert engine.is_idle
    check(engine.generate([ask(1)])[0][0])


def test_a_mask_shorter_than_the_vocabulary_forbids_the_rest() -> None:
    """An embedding may have more rows than the tokenizer has words."""
    engine = tiny_engine(tiny_model(vocab_size=400))
    completion = engine.generate([ask(1, logit_bias=((390, 100.0),))])[0][0]
    check(completion)


def test_each_sample_goes_with_its_own_guide() -> None:
    guide = Words()
    group = tiny_engine().generate([ask(4, guide=guide, samples=4)])[0]
    assert len({c.token_ids for c in group}) == 4
    assert guide.taken == []


def test_a_guide_that_allows_everything_changes_no_bit(engine: Engine) -> None:
    class Free(Words):
        def allowed(self) -> bytes | None:
            return None

        def accept(self, token_id: int) -> None:
            self.taken.append(token_id)

        def fork(self) -> "Free":
            return Free()

    free = engine.generate([ask(1, guide=Free(), temperature=0.8)])[0][0]
    without = engine.generate([replace(ask(1, temperature=0.8), guide=None)])[0][0]
    assert bits(free) == bits(without)


@pytest.fixture
def engine() -> Engine:
    return tiny_engine()
