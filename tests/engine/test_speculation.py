"""Guessed tokens change the time and nothing else: same tokens, same log probabilities, same text."""

import random
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from tests.engine.test_engine_exactness import bytes_per_token, flat, prompt
from tests.tiny import FAMILIES, tiny_engine, tiny_model

from groschen.engine.blocks import BlockPool
from groschen.engine.engine import Engine, EngineConfig
from groschen.engine.open import open_engine
from groschen.engine.scheduler import Scheduler
from groschen.engine.sequence import Prompt, Sequence, Status
from groschen.engine.speculation import FEW_ROWS, Lookup
from groschen.errors import BadRequest
from groschen.records import Completion, Request, SamplingParams

PHRASE = prompt(9, 3)
REPETITIVE = PHRASE * 5  # a tiny greedy model falls into repetition by itself sooner or later, this helps it
NAMES = ("Ada", "Blaise", "Carl Friedrich", "Dorothy", "Emmy", "Florence")
SETTINGS = {
    "greedy": SamplingParams(temperature=0.0, seed=1),
    "sampled": SamplingParams(temperature=0.25, seed=5),
    "cut": SamplingParams(temperature=0.6, top_k=3, top_p=0.9, seed=6),
    "penalties": SamplingParams(
        temperature=0.0, seed=1, frequency_penalty=-1.0, repetition_penalty=1.05, logit_bias=((7, 2.0),)
    ),
    "alternatives": SamplingParams(temperature=0.0, seed=1, top_logprobs=3),
    "two words": SamplingParams(temperature=0.0, seed=1, logit_bias=((7, 100.0), (11, 100.0))),
}


def ask(setting: str, *, max_tokens: int = 60, samples: int = 1) -> Request:
    sampling = replace(SETTINGS[setting], max_tokens=max_tokens, ignore_end=True)
    return Request(prompt_ids=REPETITIVE, sampling=sampling, num_completions=samples)


def run(engine: Engine, asked: list[Request]) -> list[Completion]:
    """Cached tokens differ with what was asked before, so they are left out."""
    return [replace(completion, cached_tokens=0) for completion in flat(engine.generate(asked))]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_has_the_same_bits_with_and_without_speculation(family: str, setting: str) -> None:
    model = tiny_model(family)
    plain, guessing = tiny_engine(model), tiny_engine(model, speculate=7)
    asked = [ask(setting, samples=2)]
    assert run(guessing, asked) == run(plain, asked)
    assert 0 <= guessing.num_accepted <= guessing.num_drafted
    assert plain.num_drafted == 0
    guessing.pool.check()
    assert guessing.pool.num_free == guessing.pool.num_blocks


def test_a_repetitive_text_takes_fewer_steps() -> None:
    model = tiny_model()
    steps = []
    for speculate in (0, 8):
        engine = tiny_engine(model, speculate=speculate)
        steps.append(len(list(engine.stream(ask("two words", max_tokens=120)))))
    assert steps[0] == 120
    assert steps[1] < 80
    assert engine.num_accepted == 120 - steps[1]


def test_a_step_reports_all_its_tokens_with_their_logprobs_and_alternatives() -> None:
    engine = tiny_engine(speculate=8)
    pieces = list(engine.stream(ask("alternatives")))
    completion = pieces[-1].completion
    assert completion is not None
    assert max(len(piece.token_ids) for piece in pieces) > 3
    assert sum((piece.token_ids for piece in pieces), ()) == completion.token_ids
    assert sum((piece.logprobs for piece in pieces), ()) == completion.logprobs
    assert sum((piece.alternatives for piece in pieces), ()) == completion.alternatives
    assert "".join(piece.text for piece in pieces) == completion.text


def test_a_stop_in_the_middle_of_a_right_guess_ends_the_text_there() -> None:
    model = tiny_model()
    whole = run(tiny_engine(model), [ask("greedy", max_tokens=100)])[0]
    last = whole.token_ids[60]
    for sampling in (
        replace(SETTINGS["greedy"], max_tokens=100, stop_token_ids=(last,), ignore_end=True),
        replace(SETTINGS["greedy"], max_tokens=100, stop=(whole.text[40:44],), ignore_end=True),
        replace(SETTINGS["greedy"], max_tokens=61, ignore_end=True),
    ):
        asked = [Request(prompt_ids=REPETITIVE, sampling=sampling)]
        guessing = tiny_engine(model, speculate=8)
        assert run(guessing, asked) == run(tiny_engine(model), asked)
        assert guessing.pool.num_free == guessing.pool.num_blocks


def test_what_was_guessed_wrong_is_not_found_in_the_prefix_cache() -> None:
    """The blocks of a finished text are remembered; one with a rejected token in it would poison the next."""
    model = tiny_model()
    guessing = tiny_engine(model, speculate=8)
    asked = [ask("sampled", samples=3)]
    first = run(guessing, asked)
    longer = [
        Request(prompt_ids=c.prompt_ids + c.token_ids, sampling=SamplingParams(max_tokens=20, seed=1))
        for c in first
    ]
    (again,) = guessing.generate(longer[:1])
    assert again[0].cached_tokens > 64
    assert run(guessing, longer) == run(tiny_engine(model), longer)


def test_preemption_does_not_change_a_guessed_text() -> None:
    model = tiny_model()
    asked = [ask(setting, max_tokens=90, samples=2) for setting in ("greedy", "sampled", "cut")]
    asked += [replace(ask("greedy", max_tokens=90), prompt_ids=prompt(30, number)) for number in range(8)]
    tight = tiny_engine(
        model, speculate=12, has_prefix_cache=False, cache_bytes=32 * 16 * bytes_per_token(model)
    )
    assert run(tight, asked) == run(tiny_engine(model), asked)
    assert tight.scheduler.num_preemptions > 0
    assert tight.num_accepted > 20
    tight.pool.check()
    assert tight.pool.num_free == tight.pool.num_blocks


def test_many_rows_are_not_guessed() -> None:
    engine = tiny_engine(speculate=8)
    engine.generate([replace(ask("greedy"), num_completions=FEW_ROWS + 1)])
    assert engine.num_drafted == 0


@pytest.mark.parametrize("speculate", [-1, 33])
def test_a_guess_out_of_range_is_refused(speculate: int) -> None:
    with pytest.raises(BadRequest, match="speculate must be a whole number from 0 to 32"):
        tiny_engine(speculate=speculate)


def test_penny_says_the_same_with_speculation() -> None:
    folder = str(resources.files("groschen").joinpath("penny"))
    found = []
    for speculate in (0, 6):
        opened = open_engine(folder, config=EngineConfig(cache_bytes=100_000_000, speculate=speculate))
        asked = [{"role": "user", "content": "Use 3, 5, 7 and 9 to make 24."}]
        ids = tuple(opened.text.chat_template().encode(opened.text.tokenizer, asked))
        requests = [
            Request(prompt_ids=ids, sampling=SamplingParams(temperature=temperature, seed=8, max_tokens=200))
            for temperature in (0.0, 0.3, 1.0)
        ]
        found.append(run(opened.engine, requests))
    assert found[0] == found[1]
    assert opened.engine.num_accepted > 0


@pytest.mark.real
@pytest.mark.slow
def test_a_real_model_says_the_same_with_speculation_in_fewer_steps(real_gguf: Path) -> None:
    """It writes a table again with a change, at temperature 0 and by chance."""
    opened = open_engine(str(real_gguf), config=EngineConfig(cache_bytes=500_000_000, speculate=8))
    plain = Engine(opened.engine.model, opened.text.tokenizer, EngineConfig(cache_bytes=500_000_000))
    table = "\n".join(f"{number} | {name} | 2024-05-{number + 10}" for number, name in enumerate(NAMES))
    asked = [{"role": "user", "content": f"Write this table again, with the year 2025:\n{table}"}]
    ids = tuple(opened.text.chat_template().encode(opened.text.tokenizer, asked))
    for temperature in (0.0, 0.7):
        sampling = SamplingParams(temperature=temperature, seed=4, max_tokens=120)
        request = Request(prompt_ids=ids, sampling=sampling)
        pieces = list(opened.engine.stream(request))
        assert pieces[-1].completion is not None
        (expected,) = run(plain, [request])
        assert replace(pieces[-1].completion, cached_tokens=0) == expected
        assert len(pieces) < 0.8 * len(expected.token_ids)


def naive(ids: list[int], count: int) -> list[int]:
    """The same by search: what followed the newest earlier place of the last 4, 3 or 2 tokens."""
    for length in (4, 3, 2):
        for start in range(len(ids) - 1, length - 1, -1):
            if ids[start - length : start] == ids[-length:]:
                found = ids[start:]
                return [found[i % len(found)] for i in range(count)]
    return []


@pytest.mark.parametrize("seed", range(6))
def test_a_guess_is_what_followed_the_newest_longest_match(seed: int) -> None:
    generator = random.Random(seed)
    lookup, ids = Lookup(6), []
    lookup.learn(6, 6)  # guesses are as long as they may be from the beginning
    for _ in range(300):
        ids.append(generator.randrange(5))
        lookup.extend(ids[lookup.num_tokens :])
        assert lookup.guess(6) == naive(ids, 6)


def test_guessing_rests_where_it_does_not_pay_and_tries_again_later() -> None:
    lookup = Lookup(12)
    lookup.extend([1, 2, 3] * 4)
    guesses = []
    for token in range(400):
        guess = lookup.guess(12)
        guesses.append(len(guess))
        if guess:
            lookup.learn(len(guess), 0)
        lookup.extend([token % 3 + 1])
    assert guesses[:3] == [3, 1, 1]
    assert 3 < sum(count > 0 for count in guesses) < 12


def test_guesses_grow_while_they_are_right_and_shrink_to_what_was() -> None:
    lookup = Lookup(12)
    lookup.extend([1, 2, 3] * 4)
    lengths = []
    for share in (1.0, 1.0, 1.0, 0.5, 1.0, 0.0, 1.0):
        guess = lookup.guess(40)
        lengths.append(len(guess))
        lookup.learn(len(guess), int(share * len(guess)))
    assert lengths == [3, 7, 12, 12, 6, 12, 1]


def play(scheduler: Scheduler, generator: random.Random) -> list[Sequence]:
    """Play the model: a text that repeats itself with some breaks. Returns those that finished."""
    plan = scheduler.schedule()
    assert not plan.is_empty or scheduler.is_idle
    scheduler.ran(plan)
    done = []
    for sequence in [*plan.decodes, *(branch.sequence for branch in plan.branches)]:
        assert len(sequence.blocks) * 16 >= sequence.num_tokens + len(sequence.draft)
        assert sequence.num_tokens + len(sequence.draft) < len(sequence.prompt_ids) + sequence.max_tokens
        draft, sequence.draft = sequence.draft, []
        for guessed in [*draft, None]:
            token_id = len(sequence.token_ids) % 5 if generator.random() < 0.9 else 7
            sequence.append(token_id, 0.0)
            if token_id != guessed or sequence.status is Status.FINISHED:
                break
        if sequence.status is Status.FINISHED:
            scheduler.retire(sequence)
            done.append(sequence)
    return done


@pytest.mark.parametrize("seed", range(8))
def test_guesses_stop_nobody_and_all_blocks_come_back(seed: int) -> None:
    """Random requests into caches that are often too small for all of them at once."""
    generator = random.Random(seed)
    pool = BlockPool(generator.choice([12, 16, 40]))
    scheduler = Scheduler(pool, max_rows=4, chunk_tokens=40, speculate=generator.choice([1, 6, 20, 32]))
    finished: list[Sequence] = []
    for number in range(20):
        ids, most = tuple(range(generator.randrange(1, 70))), generator.randrange(1, 90)
        samples = [
            Sequence(number, sample, number, ids, SamplingParams(), 0, most, frozenset())
            for sample in range(3)
        ]
        scheduler.add(Prompt(list(ids), samples, number))
    for _ in range(20_000):
        finished += play(scheduler, generator)
        pool.check()
        if scheduler.is_idle:
            break
    assert len(finished) == 60
    assert pool.num_free == pool.num_blocks
