"""The engine's log probabilities are the trainer's, bit for bit, and a seeded text is the same in any
company.
"""

import random

import pytest
import torch
from tests.tiny import FAMILIES, VOCABULARY, tiny_engine, tiny_model

from groschen.engine.engine import Engine
from groschen.model.kvcache import Rows
from groschen.model.score import score
from groschen.model.transformer import Transformer
from groschen.records import Completion, Request, SamplingParams


def prompt(length: int, seed: int) -> tuple[int, ...]:
    generator = random.Random(seed)
    return tuple(generator.randrange(VOCABULARY) for _ in range(length))


def trainer_logprobs(
    model: Transformer, completions: list[Completion], temperature: float = 1.0
) -> list[list[float]]:
    """One forward over all completions laid end to end, as a training batch is, with gradients on."""
    ids = [[*c.prompt_ids, *c.token_ids] for c in completions]
    rows = Rows.of_sequences([len(row) for row in ids], torch.device("cpu"))
    flat = torch.tensor([token for row in ids for token in row])
    model.requires_grad_(True)
    hidden = model(flat, rows, model.new_cache(int(rows.tables.max()) + 1))
    logprobs, _ = score(model, hidden[:-1], flat[1:], temperature)
    assert logprobs.requires_grad
    model.requires_grad_(False)
    found, start = [], 0
    for row, completion in zip(ids, completions, strict=True):
        first = start + len(completion.prompt_ids) - 1
        found.append(logprobs.detach()[first : start + len(row) - 1].tolist())
        start += len(row)
    return found


def gap_max(model: Transformer, completions: list[Completion], temperature: float = 1.0) -> float:
    """max |engine - trainer| over every token."""
    trained = trainer_logprobs(model, completions, temperature)
    pairs = [
        (a, b)
        for c, row in zip(completions, trained, strict=True)
        for a, b in zip(c.logprobs, row, strict=True)
    ]
    assert pairs
    return max(abs(a - b) for a, b in pairs)


def requests(
    count: int, *, samples: int = 1, max_tokens: int = 24, temperature: float = 1.0
) -> list[Request]:
    sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=7)
    return [
        Request(prompt_ids=prompt(3 + 11 * i % 70, i), sampling=sampling, num_completions=samples)
        for i in range(count)
    ]


def flat(results: list[list[Completion]]) -> list[Completion]:
    return [completion for group in results for completion in group]


@pytest.mark.parametrize("family", FAMILIES)
def test_engine_and_trainer_logprobs_are_the_same_bits_in_every_family(family: str) -> None:
    model = tiny_model(family)
    completions = flat(tiny_engine(model, chunk_tokens=37).generate(requests(12, samples=2)))
    assert sum(len(c.token_ids) for c in completions) > 200
    assert gap_max(model, completions) == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("num_requests", [1, 2, 3, 7, 33, 64])
def test_the_gap_is_zero_for_every_batch_size(dtype: torch.dtype, num_requests: int) -> None:
    model = tiny_model(dtype=dtype)
    assert (
        gap_max(model, flat(tiny_engine(model).generate(requests(num_requests, temperature=0.7))), 0.7) == 0.0
    )


@pytest.mark.parametrize("chunk_tokens", [1, 5, 16, 37, 512])
def test_the_gap_is_zero_for_every_chunk_of_prefill(chunk_tokens: int) -> None:
    model = tiny_model()
    assert gap_max(model, flat(tiny_engine(model, chunk_tokens=chunk_tokens).generate(requests(6)))) == 0.0


@pytest.mark.parametrize("threads", [1, 2])
def test_the_threads_do_not_change_a_bit(threads: int) -> None:
    model = tiny_model("qwen3")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = tiny_engine(model).generate(requests(9, samples=3))
    try:
        torch.set_num_threads(threads)
        assert tiny_engine(model).generate(requests(9, samples=3)) == alone
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_a_seeded_request_gives_the_same_text_alone_and_among_63_others(family: str) -> None:
    model = tiny_model(family)
    asked = requests(64)
    together = tiny_engine(model, max_rows=64).generate(asked)
    for index in range(0, 64, 7):
        (alone,) = tiny_engine(model).generate([asked[index]])
        assert alone[0].token_ids == together[index][0].token_ids
        assert alone[0].logprobs == together[index][0].logprobs


def test_preemption_does_not_change_a_bit() -> None:
    model = tiny_model()
    asked = requests(10, samples=2, max_tokens=60)
    roomy = tiny_engine(model)
    tight = tiny_engine(model, cache_bytes=40 * 16 * bytes_per_token(model))
    expected, found = roomy.generate(asked), tight.generate(asked)
    assert roomy.scheduler.num_preemptions == 0
    assert tight.scheduler.num_preemptions > 3
    assert [[(c.token_ids, c.logprobs) for c in g] for g in found] == [
        [(c.token_ids, c.logprobs) for c in g] for g in expected
    ]
    assert gap_max(model, flat(found)) == 0.0


def test_prompt_logprobs_survive_a_preemption() -> None:
    """The prompt gives up its blocks to its first sample, which ends before the prompt is computed again."""
    model = tiny_model(max_position_embeddings=64)
    sampling = SamplingParams(max_tokens=44, prompt_logprobs=True, top_logprobs=2, ignore_end=True, seed=1)
    request = Request(prompt_ids=prompt(20, 1), sampling=sampling, num_completions=2)
    tight, roomy = tiny_engine(model, max_rows=1), tiny_engine(model, max_rows=4)
    assert tight.generate([request]) == roomy.generate([request])
    assert tight.scheduler.num_preemptions > 0


def test_without_a_prefix_cache_nothing_is_looked_up_after_a_preemption_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model()
    tight = tiny_engine(model, has_prefix_cache=False, cache_bytes=40 * 16 * bytes_per_token(model))
    looked_up: list[bytes] = []
    monkeypatch.setattr(tight.pool, "find", looked_up.append)
    tight.generate(requests(10, samples=2, max_tokens=60))
    assert tight.scheduler.num_preemptions > 3
    assert looked_up == []


def bytes_per_token(model: Transformer) -> int:
    config = model.config
    return 2 * config.num_layers * config.num_kv_heads * config.head_width * model.activation_dtype.itemsize


def test_a_prefix_from_the_cache_does_not_change_a_bit() -> None:
    model = tiny_model("mistral")
    engine = tiny_engine(model)
    shared = prompt(90, 1)
    sampling = SamplingParams(max_tokens=20, seed=3)
    asked = [Request(prompt_ids=shared + prompt(5 + i, i), sampling=sampling) for i in range(4)]
    first = [engine.generate([request])[0][0] for request in asked]
    again = [engine.generate([request])[0][0] for request in asked]
    fresh = [tiny_engine(model).generate([request])[0][0] for request in asked]
    assert first[0].cached_tokens == 0 and all(c.cached_tokens >= 80 for c in (*first[1:], *again))
    assert all(c.cached_tokens == 0 for c in fresh)
    for a, b, c in zip(first, again, fresh, strict=True):
        assert a.token_ids == b.token_ids == c.token_ids
        assert a.logprobs == b.logprobs == c.logprobs


def test_a_weight_update_makes_every_older_prefix_unreachable() -> None:
    model = tiny_model()
    engine = tiny_engine(model)
    request = Request(prompt_ids=prompt(80, 5), sampling=SamplingParams(max_tokens=12, seed=1))
    before = engine.generate([request])[0][0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    engine.weights_changed(policy_version=1)
    after = engine.generate([request])[0][0]
    assert (before.policy_version, after.policy_version) == (0, 1)
    assert after.cached_tokens == 0
    assert after.logprobs != before.logprobs
    assert gap_max(model, [after]) == 0.0


def test_prompt_logprobs_are_those_of_the_trainer() -> None:
    model = tiny_model()
    engine = tiny_engine(model, chunk_tokens=20)
    request = Request(
        prompt_ids=prompt(70, 9), sampling=SamplingParams(max_tokens=1, prompt_logprobs=True, top_logprobs=3)
    )
    completion = engine.generate([request])[0][0]
    rows = Rows.of_sequences([70], torch.device("cpu"))
    with torch.no_grad():
        ids = torch.tensor(request.prompt_ids)
        logprobs, _ = score(model, model(ids, rows, model.new_cache(5))[:-1], ids[1:])
    assert list(completion.prompt_logprobs) == logprobs.tolist()
    assert len(completion.prompt_alternatives) == 69


def test_one_changed_bit_in_a_weight_is_seen() -> None:
    """The gap is no formality: the smallest change of one weight makes it differ from zero."""
    model = tiny_model()
    completions = flat(tiny_engine(model).generate(requests(8)))
    weight = model.tensors()["model.layers.1.mlp.down_proj.weight"]
    weight[3, 3] = torch.nextafter(weight[3, 3].float(), torch.tensor(9.0)).bfloat16() + 2**-9
    assert gap_max(model, completions) != 0.0


def test_completions_of_one_request_differ_and_are_repeatable() -> None:
    model = tiny_model()
    request = Request(
        prompt_ids=prompt(20, 2), sampling=SamplingParams(max_tokens=16, seed=11), num_completions=8
    )
    group = tiny_engine(model).generate([request])[0]
    assert len({c.token_ids for c in group}) == 8
    assert [c.sample for c in group] == list(range(8))
    assert tiny_engine(model).generate([request])[0] == group


def test_the_engine_is_empty_after_work(engine: Engine) -> None:
    engine.generate(requests(20, samples=3))
    assert engine.is_idle
    engine.pool.check()
    assert engine.pool.num_free == engine.pool.num_blocks


@pytest.fixture
def engine() -> Engine:
    return tiny_engine()
