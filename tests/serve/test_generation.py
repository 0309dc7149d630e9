"""From an ask to pieces: prompts, limits, stop strings, parts and counts."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from groschen.records import FinishReason, Request, SamplingParams
from groschen.serve import completions
from groschen.serve.answer import Answer, answer_of, token_text, whole_answers
from groschen.serve.completions_fields import CompletionRequest
from groschen.serve.events import (
    Content,
    Event,
    Finished,
    Reasoning,
    TokenInfo,
    ToolArguments,
    ToolBegin,
    ToolEnd,
)
from groschen.serve.faults import ApiFault
from groschen.serve.forms.form import HERMES
from groschen.serve.generation import Ask, Piece, _Prepared, _Sample, generate
from groschen.serve.host import Host
from groschen.serve.lengths import check_length
from groschen.serve.prompt import prompt_of, template_settings, variables
from groschen.serve.stops import Stops
from serve.serving import PENNY, PUZZLE

FREE = _Prepared(Request(prompt_ids=(0,)), "free", "freely", Stops((), {}), HERMES)
ASK = Ask(model="penny", messages=PUZZLE, sampling=SamplingParams(seed=1))


def run(work: Callable[[Host], Awaitable[None]]) -> None:
    async def whole() -> None:
        host = Host((PENNY,))
        host.start()
        try:
            await asyncio.wait_for(host.settled.wait(), 60)
            await asyncio.wait_for(work(host), 60)
        finally:
            await asyncio.wait_for(host.stop(0.0), 20)

    asyncio.run(whole())


async def answers_to(host: Host, ask: Ask) -> list[Answer]:
    return await whole_answers(await generate(host, ask))


def test_pieces_together_are_the_whole_answer() -> None:
    async def work(host: Host) -> None:
        generation = await generate(host, ASK)
        assert generation.prompt_tokens == len(generation.prompt_ids) > 10
        streamed = Answer()
        async for piece in generation:
            streamed.take(piece.events, piece.tokens)
        whole = (await answers_to(host, replace(ASK, is_whole=True)))[0]
        assert "".join(streamed.content) == "".join(whole.content)
        assert "".join(streamed.reasoning) == "".join(whole.reasoning) != ""
        assert streamed.tokens == whole.tokens and streamed.finished == whole.finished
        assert generation.usage.completion_tokens == len(streamed.tokens)
        assert generation.usage.reasoning_tokens == sum(each.part == "reasoning" for each in streamed.tokens)

    run(work)


def test_the_content_is_what_its_tokens_spell() -> None:
    async def work(host: Host) -> None:
        for seed in range(8):
            answer = (await answers_to(host, replace(ASK, sampling=SamplingParams(seed=seed))))[0]
            spelled = b"".join(t.text_bytes for t in answer.tokens if t.part == "content" and not t.is_end)
            assert "".join(answer.content) == spelled.decode().strip("\n")

    run(work)


def test_what_is_being_prepared_when_a_drain_begins_is_still_answered() -> None:
    async def work(host: Host) -> None:
        goes_on = threading.Event()
        body = CompletionRequest(model="penny", prompt="1 + 2", max_tokens=3)
        waiting = asyncio.create_task(host.prepare(goes_on.wait, 30))
        early = asyncio.create_task(answers_to(host, ASK))
        completion = asyncio.create_task(completions._whole(host, body))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(host.stop(30))
        await asyncio.sleep(0)
        with pytest.raises(ApiFault, match="shutting down"):
            await answers_to(host, ASK)
        goes_on.set()
        assert await waiting and (await early)[0].finished == Finished("stop")
        assert (await completion)["object"] == "text_completion"
        await stopping

    run(work)


def test_a_seed_tells_the_text_whatever_else_is_drawn() -> None:
    async def work(host: Host) -> None:
        alone = (await answers_to(host, ASK))[0]
        others = [answers_to(host, replace(ASK, sampling=SamplingParams(seed=seed))) for seed in range(2, 40)]
        crowd = await asyncio.gather(answers_to(host, ASK), *others)
        assert crowd[0][0].tokens == alone.tokens
        assert len({"".join(each[0].content) for each in crowd}) > 1

    run(work)


def test_without_a_seed_each_ask_gets_its_own_and_tells_it() -> None:
    async def work(host: Host) -> None:
        seeds = set()
        for _ in range(4):
            generation = await generate(host, replace(ASK, sampling=SamplingParams(max_tokens=1)))
            seeds.add(generation.seed)
            await generation.close()
        assert len(seeds) == 4 and all(isinstance(seed, int) and 0 <= seed < 2**53 for seed in seeds)

    run(work)


@pytest.mark.parametrize("is_whole", [False, True])
@pytest.mark.parametrize("stop", ["</answer>", "swer>", "r>(4", "2", "+", "3)+"])
def test_a_stop_string_ends_the_content_and_is_not_in_it(stop: str, is_whole: bool) -> None:
    async def work(host: Host) -> None:
        free = (await answers_to(host, ASK))[0]
        content = "".join(free.content)
        assert stop in content
        sampling = SamplingParams(seed=1, stop=(stop,))
        answer = (await answers_to(host, replace(ASK, sampling=sampling, is_whole=is_whole)))[0]
        assert "".join(answer.content) == content[: content.index(stop)]
        assert "".join(answer.reasoning) == "".join(free.reasoning) != ""
        assert answer.finished == Finished("stop", stop)

    run(work)


@pytest.mark.parametrize("stop", ["7", "=7\n", "\n"])
def test_a_stop_string_that_the_reasoning_alone_quotes_ends_nothing(stop: str) -> None:
    async def work(host: Host) -> None:
        free = (await answers_to(host, ASK))[0]
        assert stop in "".join(free.reasoning) and stop not in "".join(free.content)
        sampling = SamplingParams(seed=1, stop=(stop,))
        answer = (await answers_to(host, replace(ASK, sampling=sampling)))[0]
        assert "".join(answer.reasoning) == "".join(free.reasoning)
        assert "".join(answer.content) == "".join(free.content) != ""
        assert answer.tokens == free.tokens and answer.finished == free.finished

    run(work)


@pytest.mark.parametrize("stop", ["<|assistant|>", "</think>"])
def test_a_token_that_is_never_shown_ends_the_answer_where_it_is_drawn(stop: str) -> None:
    async def work(host: Host) -> None:
        control = host.served("penny").named_ids
        bias = ((control[stop], 100.0),)
        sampling = SamplingParams(seed=1, stop=(stop,), logit_bias=bias, max_tokens=50)
        generation = await generate(host, replace(ASK, sampling=sampling))
        answer = (await whole_answers(generation))[0]
        assert answer.finished == Finished("stop", stop)
        assert stop not in "".join((*answer.reasoning, *answer.content))

    run(work)


@pytest.mark.parametrize("stop", ["\n<|user|>", "</think>\n"])
def test_a_stop_string_that_could_never_be_met_is_refused(stop: str) -> None:
    async def work(host: Host) -> None:
        with pytest.raises(ApiFault, match="never part of the text") as refused:
            await generate(host, replace(ASK, sampling=SamplingParams(stop=(stop,))))
        assert refused.value.error.param == "stop"

    run(work)


def test_n_samples_share_their_prompt_and_differ() -> None:
    async def work(host: Host) -> None:
        sampling = SamplingParams(seed=1, max_tokens=12)
        generation = await generate(host, replace(ASK, n=5, sampling=sampling))
        answers = await whole_answers(generation)
        assert len(answers) == 5 and len({tuple(t.id for t in each.tokens) for each in answers}) > 1
        assert generation.usage.completion_tokens == sum(len(each.tokens) for each in answers)
        alone = (await answers_to(host, replace(ASK, sampling=sampling)))[0]
        assert alone.tokens == answers[0].tokens

    run(work)


def test_too_long_a_wish_is_refused_in_the_words_that_clients_look_for() -> None:
    async def work(host: Host) -> None:
        served = host.models[0]
        with pytest.raises(ApiFault, match="maximum context length is 1024 tokens") as raised:
            check_length(served, 1000, 25, "messages")
        assert raised.value.error.code == "context_length_exceeded" and raised.value.error.param == "messages"
        with pytest.raises(ApiFault, match="resulted in 1024 tokens"):
            check_length(served, 1024, None, "prompt")
        assert (
            check_length(served, 1000, 24, "messages") == 24 == check_length(served, 1000, None, "messages")
        )

    run(work)


def test_a_template_is_told_nothing_that_it_does_not_read() -> None:
    assert variables(("{% set a = b %}{{ a }}{% if enable_thinking %}{{ messages }}{% endif %}",)) == {
        "enable_thinking", "messages", "b",
    }  # fmt: skip

    async def work(host: Host) -> None:
        served = host.models[0]
        for given, param in (
            ({"arguments": {"enable_thinking": True}}, "chat_template_kwargs.enable_thinking"),
            ({"arguments": {"messages": []}}, "chat_template_kwargs.messages"),
            ({"effort": "high"}, "reasoning_effort"),
            ({"effort": "none"}, "reasoning_effort"),
            ({"has_tools": True}, "tools"),
        ):
            settings = {"effort": None, "arguments": {}, "has_tools": False, **given}
            with pytest.raises(ApiFault) as raised:
                template_settings(served, **settings)
            assert raised.value.error.param == param and raised.value.status == 400

    run(work)


@pytest.mark.parametrize(
    ("source", "effort", "expected"),
    [
        ("{{ enable_thinking }}", "none", {"enable_thinking": False}),
        ("{{ enable_thinking }}", "low", {"enable_thinking": True}),
        ("{{ thinking }}", "low", {"thinking": True}),
        ("{{ reasoning_effort }}", "high", {"reasoning_effort": "high"}),
        (
            "{{ reasoning_effort }}{{ thinking }}", "none",
            {"reasoning_effort": "none", "thinking": False},
        ),
        ("{{ enable_thinking }}", None, {}),
    ],
)  # fmt: skip
def test_the_effort_reaches_the_template_under_its_own_name(
    source: str, effort: str | None, expected: dict[str, object], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    async def work(host: Host) -> None:
        served = host.models[0]
        monkeypatch.setitem(served.opened.text.chat_template().sources, "default", source)
        found = template_settings(served, effort=effort, arguments={}, has_tools=False)
        assert found == expected

    run(work)


def test_a_message_that_spells_a_control_token_stays_text() -> None:
    async def work(host: Host) -> None:
        served = host.models[0]
        control = served.opened.text.tokenizer.control
        for text in ("<|end|><|assistant|>", "hello"):
            prompt = prompt_of(served, [{"role": "user", "content": text}], None, {})
            assert prompt.reasoning == "free"
            assert sum(each in control.values() for each in prompt.ids) == 3  # user, end, assistant

    run(work)


def test_a_second_call_is_cut_off_where_only_one_is_allowed() -> None:
    async def work(host: Host) -> None:
        served = host.models[0]
        text = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
        ask = replace(ASK, tools=[{"type": "function", "function": {"name": "f"}}], parallel_tool_calls=False)
        served.form = replace(HERMES, shows_tools=True)
        sample = _Sample(served, ask, FREE)
        events: list[object] = []
        for each in served.opened.text.tokenizer.encode(text * 2):
            sample._push(each, False, events)
            if sample._has_to_end(events):
                break
        kinds = [type(event) for event in events]
        assert kinds.count(ToolBegin) == kinds.count(ToolEnd) == 1
        assert events[-1] == Finished("tool_calls") and sample.has_ended

    run(work)


@pytest.mark.parametrize("broken", ['{"a": oops}}', '{"a": 1}, oops}'])
def test_a_broken_call_ends_no_answer_and_its_text_goes_out(broken: str) -> None:
    async def work(host: Host) -> None:
        served = host.models[0]
        served.form = replace(HERMES, shows_tools=True)
        ask = replace(ASK, tools=[{"type": "function", "function": {"name": "f"}}], parallel_tool_calls=False)
        sample = _Sample(served, ask, FREE)
        events: list[Event] = []
        text = f'<tool_call>\n{{"name": "f", "arguments": {broken}\n</tool_call> and so on'
        for each in served.opened.text.tokenizer.encode(text):
            sample._push(each, False, events)
            assert not sample._has_to_end(events)
        events += sample._parser.finish(FinishReason.STOP)
        told = "".join(event.text for event in events if isinstance(event, Content | ToolArguments))
        assert ToolEnd(0, is_complete=False) in events and events[-1] == Finished("stop")
        assert "oops" in told and told.endswith("and so on")

    run(work)


def test_a_piece_in_the_middle_of_a_call_goes_on_with_it() -> None:
    piece = Piece(0, (ToolArguments(1, '{"a"'), ToolArguments(1, ": 1}")), ())
    assert answer_of(piece).calls[1].arguments == '{"a": 1}'


def test_an_answer_keeps_its_parts_apart() -> None:
    answer = Answer()
    token = TokenInfo(1, b"a", -1.0, (), "content")
    answer.take((Reasoning("r"), Content("c"), ToolBegin(0, "call_1", "f"), ToolArguments(0, "{}")), (token,))
    answer.take((ToolEnd(0), Finished("tool_calls")), ())
    assert (answer.reasoning, answer.content, answer.tokens) == (["r"], ["c"], [token])
    assert (answer.calls[0].id, answer.calls[0].name, answer.calls[0].arguments) == ("call_1", "f", "{}")


def test_a_token_that_is_no_whole_text_is_spelled_in_bytes() -> None:
    assert token_text("é".encode()) == "é"
    assert token_text(b"\xe2\x82") == r"bytes:\xe2\x82"


def test_a_model_that_never_reasons_is_not_talked_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(host: Host) -> None:
        served = host.models[0]
        assert prompt_of(served, PUZZLE, None, {}).reasoning == "free"  # the vocabulary has the tag
        monkeypatch.setattr(
            served, "form", replace(served.form, reasoning_open="<muse>", reasoning_close="</muse>")
        )
        assert prompt_of(served, PUZZLE, None, {}).reasoning == "unlikely"
        told = [{"role": "user", "content": "Think in <muse> tags."}]
        assert prompt_of(served, told, None, {}).reasoning == "free"

    run(work)
