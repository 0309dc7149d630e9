"""What a caller of the engine sees: streams, stops, refusals, aborts, alternatives."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest
import torch
from tests.tiny import byte_tokenizer, tiny_engine, tiny_model

from groschen.engine.engine import Engine, EngineConfig
from groschen.errors import BadRequest, DoesNotFit, GroschenError
from groschen.model.kvcache import KeyValueCache
from groschen.records import FinishReason, Request, SamplingParams

PROMPT = tuple(b"The quick brown fox")
Result = TypeVar("Result")


def ask(engine: Engine, **sampling: object) -> Request:
    return Request(prompt_ids=PROMPT, sampling=SamplingParams(**{"seed": 1, "max_tokens": 40, **sampling}))  # type: ignore[arg-type]


def test_a_stream_adds_up_to_the_completion() -> None:
    engine = tiny_engine()
    pieces = list(engine.stream(ask(engine)))
    completion = pieces[-1].completion
    assert completion is not None
    assert all(piece.completion is None for piece in pieces[:-1])
    assert "".join(piece.text for piece in pieces) == completion.text
    assert [token for piece in pieces for token in piece.token_ids] == list(completion.token_ids)
    again = engine.generate([ask(engine)])[0][0]
    assert (again.token_ids, again.logprobs, again.text) == (
        completion.token_ids,
        completion.logprobs,
        completion.text,
    )


def test_leaving_a_stream_early_gives_everything_back() -> None:
    engine = tiny_engine()
    for number, _ in enumerate(engine.stream(ask(engine))):
        if number == 3:
            break
    assert engine.is_idle
    assert engine.pool.num_free == engine.pool.num_blocks


def test_a_stream_ends_where_its_request_is_aborted() -> None:
    engine, pieces = tiny_engine(), []
    for piece in engine.stream(ask(engine)):
        engine.abort(piece.request)
        pieces.append(piece)
    assert len(pieces) == 1


def test_nobody_takes_what_is_new_of_an_open_stream() -> None:
    engine = tiny_engine()
    expected = engine.generate([ask(engine)])[0][0]
    stream = engine.stream(ask(engine))
    pieces = [next(stream)]
    with pytest.raises(BadRequest, match="other requests are open"):
        next(engine.stream(ask(engine)))
    with pytest.raises(BadRequest, match="other requests are open"):
        engine.generate([ask(engine)])
    pieces += stream
    assert tuple(token for piece in pieces for token in piece.token_ids) == expected.token_ids


def test_a_refused_request_takes_the_others_of_its_call_along() -> None:
    engine = tiny_engine()
    with pytest.raises(BadRequest, match="the prompt is empty"):
        engine.generate([ask(engine), Request(prompt_ids=())])
    assert engine.is_idle


def test_a_stop_string_ends_the_text_before_itself() -> None:
    engine = tiny_engine()
    whole = engine.generate([ask(engine)])[0][0]
    stop = whole.text[6:8]
    stopped = engine.generate([ask(engine, stop=(stop,))])[0][0]
    assert stopped.finish_reason is FinishReason.STOP
    assert stopped.stop == stop
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert whole.token_ids[: len(stopped.token_ids)] == stopped.token_ids


def test_an_end_token_ends_the_completion_and_can_be_ignored() -> None:
    engine = tiny_engine()
    bias = ((256, 100.0),)
    ended = engine.generate([ask(engine, logit_bias=bias)])[0][0]
    ignored = engine.generate([ask(engine, logit_bias=bias, ignore_end=True)])[0][0]
    assert (ended.token_ids, ended.finish_reason, ended.text) == ((256,), FinishReason.STOP, "")
    assert (len(ignored.token_ids), ignored.finish_reason) == (40, FinishReason.LENGTH)


def test_a_stop_token_of_the_request_counts_too() -> None:
    engine = tiny_engine()
    whole = engine.generate([ask(engine)])[0][0]
    stopped = engine.generate([ask(engine, stop_token_ids=(whole.token_ids[5],))])[0][0]
    assert stopped.token_ids == whole.token_ids[: whole.token_ids.index(whole.token_ids[5]) + 1]
    assert stopped.finish_reason is FinishReason.STOP


def test_alternatives_hold_the_drawn_token_with_its_own_logprob() -> None:
    engine = tiny_engine()
    completion = engine.generate([ask(engine, top_logprobs=20, temperature=0.5)])[0][0]
    found = 0
    for token, logprob, each in zip(
        completion.token_ids, completion.logprobs, completion.alternatives, strict=True
    ):
        assert list(each.logprobs) == sorted(each.logprobs, reverse=True)
        if token in each.token_ids:
            found += 1
            assert each.logprobs[each.token_ids.index(token)] == logprob
    assert found > 20


def test_greedy_takes_the_most_probable_token() -> None:
    engine = tiny_engine()
    completion = engine.generate([ask(engine, temperature=0.0, top_logprobs=1)])[0][0]
    assert [each.token_ids[0] for each in completion.alternatives] == list(completion.token_ids)


def test_a_request_without_a_seed_tells_the_one_that_was_drawn() -> None:
    engine = tiny_engine()
    first = engine.generate([ask(engine, seed=None)])[0][0]
    second = engine.generate([ask(engine, seed=None)])[0][0]
    again = engine.generate([ask(engine, seed=first.seed)])[0][0]
    assert first.seed != second.seed
    assert again.token_ids == first.token_ids


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (Request(prompt_ids=()), "the prompt is empty"),
        (Request(prompt_ids=(1, 320)), "token id 320 is not in the vocabulary of 320"),
        (Request(prompt_ids=(1,), num_completions=0), "num_completions must be 1 or more"),
        (Request(prompt_ids=(1,), sampling=SamplingParams(temperature=-1.0)), "temperature"),
        (Request(prompt_ids=(1,), sampling=SamplingParams(top_p=float("nan"))), "top_p"),
    ],
)
def test_a_bad_request_names_what_is_wrong_and_queues_nothing(request_: Request, sentence: str) -> None:
    engine = tiny_engine()
    with pytest.raises(BadRequest, match=sentence):
        engine.add(request_)
    assert engine.is_idle


def test_a_prompt_longer_than_the_context_is_refused_and_not_cut() -> None:
    engine = tiny_engine()
    with pytest.raises(DoesNotFit, match="600 tokens do not fit the model's context of 512"):
        engine.add(Request(prompt_ids=(1,) * 590, sampling=SamplingParams(max_tokens=10)))
    with pytest.raises(DoesNotFit, match="context of 512"):
        engine.add(Request(prompt_ids=(1,) * 512))


def test_without_max_tokens_a_cache_smaller_than_the_context_is_the_limit() -> None:
    model = tiny_model(max_position_embeddings=2048)
    block = KeyValueCache.bytes_per_block(model.config, model.activation_dtype)
    engine = tiny_engine(model, cache_bytes=32 * block)
    endless = SamplingParams(seed=1, ignore_end=True)
    completion = engine.generate([Request(prompt_ids=(1,) * 500, sampling=endless)])[0][0]
    assert (len(completion.token_ids), completion.finish_reason) == (12, FinishReason.LENGTH)


def interrupted(call: Callable[..., Result], at: int) -> Callable[..., Result]:
    """Ctrl-C in the place of one call."""
    numbers = itertools.count()

    def called(*arguments: object) -> Result:
        if next(numbers) == at:
            raise KeyboardInterrupt
        return call(*arguments)

    return called


@pytest.mark.parametrize(("at", "cached"), [(0, 0), (1, 0), (2, 48)])
def test_after_an_interruption_only_what_was_written_is_found_again(
    monkeypatch: pytest.MonkeyPatch, at: int, cached: int
) -> None:
    """Steps 0 and 1 write the prompt, step 2 decodes."""
    engine = tiny_engine(chunk_tokens=40)
    request = replace(ask(engine), prompt_ids=PROMPT * 3)
    monkeypatch.setattr(engine.runner, "run", interrupted(engine.runner.run, at))
    with pytest.raises(KeyboardInterrupt):
        list(engine.stream(request))
    again, fresh = (each.generate([request])[0][0] for each in (engine, tiny_engine()))
    assert again.cached_tokens == cached
    assert (again.token_ids, again.logprobs) == (fresh.token_ids, fresh.logprobs)


@pytest.mark.parametrize("at", [0, 1, 4, 8])
def test_an_interruption_in_the_bookkeeping_gives_all_blocks_back(
    monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    engine = tiny_engine(max_rows=2)
    group = replace(ask(engine, ignore_end=True), num_completions=2)
    monkeypatch.setattr(engine.pool, "take", interrupted(engine.pool.take, at))
    with pytest.raises(KeyboardInterrupt):
        engine.generate([group, replace(group, prompt_ids=PROMPT[::-1])])
    assert engine.is_idle
    engine.pool.check()
    assert engine.pool.num_free == engine.pool.num_blocks
    again, fresh = (each.generate([group])[0] for each in (engine, tiny_engine()))
    assert [c.logprobs for c in again] == [c.logprobs for c in fresh]


def test_weights_may_not_change_while_requests_are_open() -> None:
    engine = tiny_engine()
    engine.add(ask(engine))
    with pytest.raises(BadRequest, match="finish or abort them first"):
        engine.weights_changed(1)


def test_a_value_that_is_not_a_number_is_a_sentence_and_the_engine_lives_on() -> None:
    model = tiny_model()
    engine = tiny_engine(model)
    weight = model.tensors()["model.layers.2.mlp.down_proj.weight"]
    kept = weight[0, 0].item()
    weight[0, 0] = float("nan")
    engine.weights_changed(1)
    with pytest.raises(GroschenError, match="not a number"):
        engine.generate([ask(engine)])
    weight[0, 0] = kept
    engine.weights_changed(2)
    assert len(engine.generate([ask(engine)])[0][0].token_ids) > 0


def test_a_cache_that_is_too_small_or_too_large_is_refused_with_numbers() -> None:
    model = tiny_model()
    with pytest.raises(DoesNotFit, match="MB"):
        Engine(model, byte_tokenizer(), EngineConfig(cache_bytes=1000))
    with pytest.raises(DoesNotFit, match="GB are free"):
        Engine(model, byte_tokenizer(), EngineConfig(cache_bytes=10**15))


def test_a_setting_below_one_is_refused_by_its_name() -> None:
    with pytest.raises(BadRequest, match="max_rows must be 1 or more, found 0"):
        tiny_engine(max_rows=0)
    with pytest.raises(BadRequest, match="chunk_tokens must be 1 or more, found -1"):
        tiny_engine(chunk_tokens=-1)


def test_an_engine_plans_its_cache_from_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    block = KeyValueCache.bytes_per_block(model.config, model.activation_dtype)
    monkeypatch.setattr("groschen.machine.free_memory_bytes", lambda device: 1000 * block)
    assert Engine(model, byte_tokenizer()).pool.num_blocks == 350


def test_requests_join_and_leave_while_others_run() -> None:
    """Continuous batching: the late one is done before the early one, with the tokens it has when alone."""
    engine = tiny_engine()
    early = engine.add(ask(engine, ignore_end=True, max_tokens=30))
    for _ in range(5):
        engine.step()
    late_request = Request(
        prompt_ids=PROMPT[:7], sampling=SamplingParams(seed=2, max_tokens=6, ignore_end=True)
    )
    late = engine.add(late_request)
    order, completions = [], {}
    while not engine.is_idle:
        for progress in engine.step():
            if progress.completion is not None:
                order.append(progress.request)
                completions[progress.request] = progress.completion
    assert order == [late, early]
    alone = tiny_engine().generate([late_request])[0][0]
    assert completions[late].logprobs == alone.logprobs


@torch.no_grad()
def test_tokens_beyond_the_vocabulary_have_no_text() -> None:
    """An embedding may have more rows than the tokenizer has words."""
    engine = tiny_engine(tiny_model(vocab_size=400))
    completion = engine.generate([ask(engine, logit_bias=((390, 100.0),), max_tokens=3)])[0][0]
    assert (completion.token_ids, completion.text) == ((390, 390, 390), "")


def test_an_engine_with_nothing_left_to_do_looks_whether_memory_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Freed memory is kept between steps; a server that waits should not be killed for it."""
    engine, looks = tiny_engine(), list[bool]()
    monkeypatch.setattr("groschen.heap.give_back_if_short", lambda: looks.append(engine.is_idle))
    engine.add(Request(prompt_ids=(1, 2, 3), sampling=SamplingParams(max_tokens=4, seed=1)))
    steps = 0
    while not engine.is_idle:
        engine.step()
        steps += 1
    assert steps > 1
    assert looks == [True]
