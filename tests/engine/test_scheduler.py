"""Rows and blocks are handed out and come back, whatever the order of requests, and nobody waits for ever."""

import random
from collections import Counter
from collections.abc import Sequence as Items

import pytest

from groschen.engine.blocks import BlockPool, Digest, blocks_for, digests
from groschen.engine.scheduler import Plan, Scheduler
from groschen.engine.sequence import Prompt, Sequence, Status
from groschen.errors import DoesNotFit
from groschen.records import FinishReason, SamplingParams


def request(number: int, length: int, samples: int, max_tokens: int) -> Prompt:
    ids = tuple(range(number * 1000, number * 1000 + length))
    sequences = [
        Sequence(number, i, number, ids, SamplingParams(), 0, max_tokens, frozenset()) for i in range(samples)
    ]
    return Prompt(list(ids), sequences, number)


def take(scheduler: Scheduler, plan: Plan) -> list[Sequence]:
    """Play the model: every sample that draws gets a token. Returns those that finished."""
    scheduler.ran(plan)
    done = []
    for sequence in [*plan.decodes, *(branch.sequence for branch in plan.branches)]:
        sequence.append(len(sequence.token_ids), 0.0)
        if sequence.status is Status.FINISHED:
            scheduler.retire(sequence)
            done.append(sequence)
    return done


@pytest.mark.parametrize("seed", range(12))
def test_every_sample_finishes_with_its_tokens_and_all_blocks_come_back(seed: int) -> None:
    """Random requests into caches that are often too small for all of them at once."""
    generator = random.Random(seed)
    pool = BlockPool(generator.choice([12, 20, 60]))
    scheduler = Scheduler(
        pool, max_rows=generator.choice([2, 5, 16]), chunk_tokens=generator.choice([1, 7, 40, 200])
    )
    waiting = [
        request(n, generator.randrange(1, 70), generator.randrange(1, 6), generator.randrange(1, 60))
        for n in range(25)
    ]
    samples = [sequence for prompt in waiting for sequence in prompt.waiting]
    finished: list[Sequence] = []
    for _ in range(20_000):
        if waiting and generator.random() < 0.3:
            scheduler.add(waiting.pop())
        plan = scheduler.schedule()
        assert not plan.is_empty or scheduler.is_idle, "requests are open and none of them can go on"
        rows = [s.row for s in plan.decodes] + [b.sequence.row for b in plan.branches]
        assert len(set(rows)) == len(rows)
        for sequence in plan.decodes:
            assert len(sequence.blocks) == blocks_for(sequence.num_tokens)
        finished += take(scheduler, plan)
        pool.check()
        if not waiting and scheduler.is_idle:
            break
    assert sorted((s.request, s.sample) for s in finished) == sorted((s.request, s.sample) for s in samples)
    assert all(
        s.token_ids == list(range(s.max_tokens)) and s.finish_reason is FinishReason.LENGTH for s in samples
    )
    assert pool.num_free == pool.num_blocks


def test_no_two_running_samples_write_into_the_same_block() -> None:
    pool = BlockPool(200)
    scheduler = Scheduler(pool, max_rows=16, chunk_tokens=64)
    for number in range(4):
        scheduler.add(request(number, 21, 4, 40))
    while not scheduler.is_idle:
        plan = scheduler.schedule()
        written = [s.blocks[s.num_computed // 16] for s in plan.decodes]
        assert len(set(written)) == len(written)
        take(scheduler, plan)


def test_an_aborted_request_gives_everything_back_in_each_stage() -> None:
    for steps in range(12):
        pool = BlockPool(40)
        scheduler = Scheduler(pool, max_rows=2, chunk_tokens=16)
        for number in range(3):
            scheduler.add(request(number, 40, 3, 30))
        for _ in range(steps):
            take(scheduler, scheduler.schedule())
        gone = [scheduler.abort(number) for number in range(3)]
        assert sum(map(len, gone)) == 9
        assert scheduler.is_idle
        pool.check()
        assert pool.num_free == 40


def test_what_can_never_fit_is_refused_with_numbers() -> None:
    with pytest.raises(DoesNotFit, match="the cache holds 64"):
        Scheduler(BlockPool(4), max_rows=2, chunk_tokens=8).add(request(0, 40, 1, 25))


def test_a_full_pool_forgets_the_oldest_content_first() -> None:
    pool = BlockPool(3)
    keys = digests(range(48), b"salt")
    for key in keys:
        block = pool.take()
        assert block is not None
        pool.remember(block, key)
        pool.release(block)
    assert pool.take() is not None
    assert [pool.find(key) is None for key in keys] == [True, False, False]


def test_a_full_cache_forgets_the_end_of_a_text_before_its_front() -> None:
    pool = BlockPool(6)
    scheduler = Scheduler(pool, max_rows=1, chunk_tokens=64)
    scheduler.add(request(0, 50, 1, 1))
    take(scheduler, scheduler.schedule())
    assert scheduler.is_idle
    for _ in range(4):  # three blocks hold nothing, three hold full parts of the text
        assert pool.take() is not None
    assert [pool.find(key) is None for key in digests(range(50), b"")] == [False, False, True]


def test_a_prompt_that_finds_no_room_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: Counter[int] = Counter()

    def counted(token_ids: Items[int], salt: bytes) -> list[Digest]:
        hashed[token_ids[0]] += 1
        return digests(token_ids, salt)

    monkeypatch.setattr("groschen.engine.scheduler.digests", counted)
    scheduler = Scheduler(BlockPool(8), max_rows=2, chunk_tokens=200)
    for number in (1, 2):
        scheduler.add(request(number, 100, 1, 20))
    for _ in range(10):
        take(scheduler, scheduler.schedule())
    assert scheduler.num_running == 1
    assert hashed[2000] == 1


def test_digests_depend_on_everything_before_and_on_the_weights() -> None:
    first, second = digests(range(32), b"1")
    assert digests([9, *range(1, 32)], b"1")[1] != second
    assert digests(range(32), b"2")[0] != first
    assert digests(range(31), b"1") == [first]
