"""Completions over HTTP: every form of a prompt, echo, and the numbers that lm-eval adds up."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import processors

from groschen.engine.open import open_engine
from groschen.records import Completion, FinishReason, Request, SamplingParams
from groschen.serve import completions
from groschen.serve.completions import Listing
from groschen.serve.events import TokenInfo
from groschen.serve.generation import Ask, Generation, generate
from groschen.serve.host import Host
from serve.serving import Server
from text.samples import ours, sentencepiece_like

TEXT = "Make 24 from 2, 3 and 4."


def scored(ids: list[int], top: int) -> Completion:
    """What the engine itself says of a prompt."""
    sampling = SamplingParams(max_tokens=1, temperature=0.0, seed=0, prompt_logprobs=True, top_logprobs=top)
    return open_engine("penny").engine.generate([Request(prompt_ids=tuple(ids), sampling=sampling)])[0][0]


def ids_of(server: Server, text: str) -> list[int]:
    return server.host.models[0].opened.text.tokenizer.encode(text, add_special=True)


def test_a_text_and_its_ids_are_the_same_prompt(server: Server) -> None:
    ids = ids_of(server, TEXT)
    forms: list[Any] = [TEXT, [TEXT], ids, [ids]]
    replies = [server.complete(prompt=form, seed=3, max_tokens=20).json() for form in forms]
    assert len({reply["choices"][0]["text"] for reply in replies}) == 1
    assert {reply["usage"]["prompt_tokens"] for reply in replies} == {len(ids)}


def test_several_prompts_are_answered_in_their_order_with_their_samples(server: Server) -> None:
    alone = [server.complete(prompt=text, n=2, seed=3, max_tokens=8).json() for text in (TEXT, "4+3=", "7")]
    reply = server.complete(prompt=[TEXT, "4+3=", "7"], n=2, seed=3, max_tokens=8).json()
    assert [choice["index"] for choice in reply["choices"]] == list(range(6))
    expected = [choice["text"] for each in alone for choice in each["choices"]]
    assert [choice["text"] for choice in reply["choices"]] == expected
    assert reply["usage"]["completion_tokens"] == sum(each["usage"]["completion_tokens"] for each in alone)


def test_sixteen_tokens_are_drawn_unless_the_client_says_otherwise(server: Server) -> None:
    reply = server.complete(prompt=TEXT, ignore_eos=True).json()
    assert reply["usage"]["completion_tokens"] == 16 and reply["choices"][0]["finish_reason"] == "length"


def test_an_echo_carries_the_engines_own_logprobs_to_the_last_bit(server: Server) -> None:
    ids = ids_of(server, TEXT + "\n4+3=7")
    expected = scored(ids, 1)
    fields = {"prompt": [ids], "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 1234}
    logprobs = server.complete(**fields).json()["choices"][0]["logprobs"]
    assert logprobs["token_logprobs"] == [None, *expected.prompt_logprobs, *expected.logprobs]
    best = [each.logprobs[0] for each in (*expected.prompt_alternatives, *expected.alternatives)]
    assert [max(top.values()) for top in logprobs["top_logprobs"][1:]] == best
    assert logprobs["top_logprobs"][0] is None
    assert {len(each) for each in logprobs.values()} == {len(ids) + 1}


@pytest.mark.parametrize("max_tokens", [0, 4])
def test_an_echo_repeats_the_prompt_and_its_tokens_lie_where_the_offsets_say(
    server: Server, max_tokens: int
) -> None:
    reply = server.complete(prompt="4*2=8 ✓\n", echo=True, logprobs=2, max_tokens=max_tokens, seed=1).json()
    choice = reply["choices"][0]
    assert choice["text"].startswith("4*2=8 ✓\n")
    lists = choice["logprobs"]
    assert reply["usage"]["completion_tokens"] == max_tokens
    for token, offset in zip(lists["tokens"], lists["text_offset"], strict=True):
        if not token.startswith("bytes:") and token != "<|end|>":
            assert choice["text"][offset : offset + len(token)] == token
    if max_tokens == 0:
        assert choice["text"] == "4*2=8 ✓\n" and choice["finish_reason"] == "length"


def test_without_echo_only_drawn_tokens_are_listed(server: Server) -> None:
    choice = server.complete(prompt=TEXT, logprobs=0, max_tokens=5, seed=1).json()["choices"][0]
    lists = choice["logprobs"]
    assert len(lists["tokens"]) == 5 and "".join(lists["tokens"]) == choice["text"]
    assert [list(top.values()) for top in lists["top_logprobs"]] == [
        [each] for each in lists["token_logprobs"]
    ]


def test_a_stream_says_the_same_as_a_whole_answer(server: Server) -> None:
    fields: dict[str, Any] = {"prompt": [TEXT, "4+3="], "n": 2, "seed": 5, "max_tokens": 30, "logprobs": 1}
    whole = server.complete(**fields).json()["choices"]
    for choice in whole:
        choice["logprobs"] = choice["logprobs"]["token_logprobs"]
    texts, numbers, ends = [""] * 4, [[] for _ in range(4)], [""] * 4
    events = server.complete(**fields, stream=True, stream_options={"include_usage": True}).events()
    for event in events[:-1]:
        choice = event["choices"][0]
        texts[choice["index"]] += choice["text"]
        numbers[choice["index"]] += choice["logprobs"]["token_logprobs"]
        ends[choice["index"]] += choice["finish_reason"] or ""
    assert texts == [choice["text"] for choice in whole]
    assert numbers == [choice["logprobs"] for choice in whole]
    assert ends == [choice["finish_reason"] for choice in whole]
    assert events[-1]["choices"] == [] and events[-1]["usage"]["prompt_tokens"] > 0


def test_a_streamed_echo_begins_with_the_prompt(server: Server) -> None:
    events = server.complete(prompt=TEXT, echo=True, stream=True, max_tokens=3, seed=1).events()
    assert "".join(event["choices"][0]["text"] for event in events).startswith(TEXT)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", [1]]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [1, 100_000]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["a"] * 1025}, "prompt"),
        ({"prompt": "a " * 2000}, "prompt"),
        ({"suffix": "b"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5000}, "prompt"),
        ({"logprobs": 21}, "logprobs"),
        ({"echo": True, "logprobs": 1, "stream": True}, "stream"),
        ({"echo": True, "logprobs": 1, "n": 2}, "n"),
        ({"prompt": ["a"] * 1024, "n": 2}, "n"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(server: Server, fields: dict[str, Any], param: str) -> None:
    reply = server.complete(**{"prompt": "a", **fields})
    assert reply.status == 400 and reply.error["param"] == param, reply.error


def test_one_bad_prompt_among_many_leaves_nothing_behind(server: Server) -> None:
    reply = server.complete(prompt=[[1, 2]] * 30 + [[5] * 1024], max_tokens=200)
    assert reply.status == 400 and reply.error["code"] == "context_length_exceeded"
    assert server.is_empty()


@pytest.mark.parametrize("fields", [{"suffix": ""}, {"suffix": None}, {"best_of": 1}, {"user": "a"}])
def test_what_changes_nothing_is_taken(server: Server, fields: dict[str, Any]) -> None:
    assert server.complete(prompt="a", max_tokens=1, **fields).status == 200


def test_all_prompts_are_asked_again_if_the_weights_changed_between_two(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter(["old", "new", "new", "new"])

    async def by_other_weights(host: Host, ask: Ask) -> Generation:
        generation = await generate(host, ask)
        generation.fingerprint = next(told)
        return generation

    monkeypatch.setattr(completions, "generate", by_other_weights)
    reply = server.complete(prompt=["4+3=", "7"], max_tokens=1).json()
    assert reply["system_fingerprint"] == "new" and list(told) == []
    assert server.is_empty()


def test_the_choices_are_put_together_beside_the_event_loop(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[int]] = {"new_id": set(), "token_text": set()}

    def noting(name: str) -> Callable[..., str]:
        work: Callable[..., str] = getattr(completions, name)

        def noted(given: Any) -> str:
            threads[name].add(threading.get_ident())
            return work(given)

        return noted

    for name in threads:
        monkeypatch.setattr(completions, name, noting(name))
    server.complete(prompt=TEXT, echo=True, logprobs=1, max_tokens=0)
    assert threads["token_text"] and not threads["token_text"] & threads["new_id"]


def test_each_prompt_without_a_seed_tells_the_one_that_repeats_it(server: Server) -> None:
    reply = server.complete(prompt=[TEXT, TEXT], n=2, max_tokens=8).json()
    groups = reply["choices"][:2], reply["choices"][2:]
    for group in groups:
        alone = server.complete(prompt=TEXT, n=2, max_tokens=8, seed=group[0]["seed"]).json()
        assert [choice["text"] for choice in alone["choices"]] == [choice["text"] for choice in group]
        assert {alone["seed"]} == {choice["seed"] for choice in group}
    assert groups[0][0]["seed"] != groups[1][0]["seed"] and reply["seed"] is None
    events = server.complete(prompt=[TEXT, "7"], max_tokens=3, stream=True).events()
    assert len({event["choices"][0]["seed"] for event in events}) == 2


def test_only_a_token_that_the_client_named_is_told_as_the_reason(server: Server) -> None:
    named, end = ids_of(server, "7")[-1], min(server.host.models[0].opened.engine.end_ids)
    for drawn, reason in ((named, named), (end, None)):
        fields = {"prompt": TEXT, "stop_token_ids": [named], "logit_bias": {str(drawn): 100}}
        (choice,) = server.complete(**fields).json()["choices"]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", reason)


def test_a_token_that_is_not_shown_is_not_the_reason_for_the_end(server: Server) -> None:
    end = min(server.host.models[0].opened.engine.end_ids)
    fields = {"prompt": TEXT, "echo": True, "max_tokens": 0, "logit_bias": {str(end): 100}}
    whole = server.complete(**fields).json()["choices"][0]
    last = server.complete(**fields, stream=True).events()[-1]["choices"][0]
    assert whole["finish_reason"] == last["finish_reason"] == "length"


def test_offsets_leave_out_what_the_text_does_not_show() -> None:
    backend = sentencepiece_like("prepend")
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = ours(backend, "</s>")
    ids = tokenizer.encode("the fox", add_special=True)
    drawn = [2, *tokenizer.encode("jumps over")]  # an end token that was to be ignored comes first
    shown = "the fox jumps over"
    prompt = Completion(
        token_ids=(), logprobs=(), text="", finish_reason=FinishReason.STOP, policy_version=0, seed=0,
        sample=0, prompt_ids=tuple(ids), cached_tokens=0, prompt_logprobs=(-1.0,) * (len(ids) - 1),
    )  # fmt: skip
    listing = Listing(tokenizer, continues=True)
    listing.add_prompt(prompt, "the fox")
    listing.add([TokenInfo(each, tokenizer.token_bytes(each), -1.0, (), "content") for each in drawn])
    lists: Any = listing.json()
    placed = list(zip([*ids, *drawn], lists["tokens"], lists["text_offset"], strict=True))
    for token_id, token, offset in placed:
        assert token_id in (1, 2) or shown[offset:].startswith((token, token.removeprefix(" ")))
    assert placed[-1][2] + len(placed[-1][1]) == len(shown)
