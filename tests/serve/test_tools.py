"""Tools over HTTP with a model that would never call one of its own accord: forced calls are valid."""

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from groschen.engine.open import open_engine
from groschen.serve.calling import CallGuide, beginnings, can_follow
from groschen.serve.forms import form as forms
from groschen.serve.forms.forced import tool_choice_grammar
from groschen.serve.grammar import Grammar, Grammars
from groschen.text.tokenizer import SpecialIds, Tokenizer
from serve.serving import PUZZLE, Reply, Server

WEATHER = {
    "type": "object",
    "properties": {
        "town": {"enum": ["Ulm", "Bern"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["town", "days"],
    "additionalProperties": False,
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}


def tool(name: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema, **more}}


TOOLS = [tool("weather", WEATHER), tool("clock", NOTHING)]
SCHEMAS = {"weather": WEATHER, "clock": NOTHING}


def ask(server: Server, **fields: Any) -> Reply:
    return server.chat(**{"model": "tooled", "seed": 1, "tools": TOOLS, "max_tokens": 300, **fields})


def check_calls(calls: list[dict[str, Any]]) -> None:
    for call in calls:
        assert call["type"] == "function" and call["id"].startswith("call_")
        jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMAS[call["function"]["name"]])
    assert len({call["id"] for call in calls}) == len(calls)


def test_a_call_that_is_required_is_made_and_valid(tooled: Server) -> None:
    reply = ask(tooled, tool_choice="required", parallel_tool_calls=False, thinking_budget=9, n=8).json()
    for choice in reply["choices"]:
        assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
        assert len(choice["message"]["tool_calls"]) == 1
        check_calls(choice["message"]["tool_calls"])


def test_a_tool_that_is_named_is_the_one_that_is_called(tooled: Server) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    reply = ask(tooled, tool_choice=named, parallel_tool_calls=False, thinking_budget=9, n=4).json()
    for choice in reply["choices"]:
        assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["weather"]
        check_calls(choice["message"]["tool_calls"])


def test_a_streamed_call_is_the_whole_one_in_pieces(tooled: Server) -> None:
    fields = {"tool_choice": "required", "parallel_tool_calls": False, "thinking_budget": 9}
    whole = ask(tooled, **fields).json()["choices"][0]["message"]["tool_calls"][0]
    deltas = [
        call
        for chunk in ask(tooled, stream=True, **fields).events()
        for call in chunk["choices"][0]["delta"].get("tool_calls", [])
    ]
    assert {delta["index"] for delta in deltas} == {0}
    assert deltas[0]["type"] == "function" and deltas[0]["function"]["name"] == whole["function"]["name"]
    assert all("name" not in delta["function"] and "id" not in delta for delta in deltas[1:])
    assert "".join(delta["function"]["arguments"] for delta in deltas) == whole["function"]["arguments"]


def test_tools_that_may_not_be_called_are_not_shown_to_the_model(tooled: Server) -> None:
    counts = [
        ask(tooled, **fields).json()["usage"]["prompt_tokens"]
        for fields in ({"tool_choice": "none"}, {"tools": []}, {"tool_choice": "auto"})
    ]
    assert counts[0] == counts[1] < counts[2]


def test_an_answer_in_a_format_may_be_a_call_instead(tooled: Server) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer"}}}
    for choice in ask(tooled, response_format=asked, n=8).json()["choices"]:
        message = choice["message"]
        if choice["finish_reason"] == "stop":
            assert isinstance(json.loads(message["content"]), int)
        elif choice["finish_reason"] == "tool_calls":
            check_calls(message["tool_calls"])


def test_calls_and_their_results_are_read_back(tooled: Server) -> None:
    function = {"name": "weather", "arguments": '{"town": "Ulm"}'}
    call = {"id": "call_1", "type": "function", "function": function}
    history = [
        *PUZZLE, {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]  # fmt: skip
    assert ask(tooled, messages=history, max_tokens=3).status == 200
    function["arguments"] = "{town"
    reply = ask(tooled, messages=history)
    assert reply.error["param"] == "messages[1].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required", "response_format": {"type": "json_object"}}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tools": [tool("auto", NOTHING)]}, "tools"),
        ({"tools": [tool("clock", NOTHING), tool("clock", WEATHER)]}, "tools"),
        ({"tools": [tool("not a name", NOTHING)]}, "tools[0].function.name"),
        ({"guided_regex": "a+"}, "guided_regex"),
    ],
)
def test_tools_that_cannot_be_meant_so_are_refused(
    tooled: Server, fields: dict[str, Any], param: str
) -> None:
    reply = ask(tooled, **fields)
    assert reply.status == 400 and reply.error["param"] == param, reply.error


def test_thinking_can_be_switched_off(tooled: Server) -> None:
    for fields in ({"reasoning_effort": "none"}, {"chat_template_kwargs": {"enable_thinking": False}}):
        off = ask(tooled, tools=[], **fields).json()
        on = ask(tooled, tools=[], reasoning_effort="high").json()
        assert off["usage"]["prompt_tokens"] > on["usage"]["prompt_tokens"]


# -- strict tools that may be called
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [forms.HERMES, forms.LLAMA], ids=lambda form: form.name)
def test_a_call_is_free_to_begin_and_then_bound(form: forms.Form) -> None:
    opened = open_engine("penny")
    tokenizer = opened.text.tokenizer
    control = tokenizer.control
    shown = replace(form, shows_tools=True)
    lark = tool_choice_grammar(shown, {"weather": WEATHER}, "required", parallel=False, control=control)
    calls = Grammars(tokenizer, opened.engine.end_ids).guide(Grammar(lark))
    guide = CallGuide(tokenizer, form, calls)
    written = form.written
    assert written is not None
    before = "" if form.is_bare else "I look it up. "
    call = f'{written.before}weather{written.middle}{{"town": "Ulm", "days": 3}}{written.after}'
    twin, free = guide.fork(), guide.allowed()
    was_bound = False
    for token_id in tokenizer.encode(before + call):
        mask = guide.allowed()
        was_bound |= mask is not None
        assert mask is None or mask[token_id // 8] >> token_id % 8 & 1, tokenizer.token_bytes(token_id)
        guide.accept(token_id)
    assert was_bound and twin.allowed() == free
    end = min(opened.engine.end_ids)
    last = guide.allowed()
    assert last is not None and last[end // 8] >> end % 8 & 1


def joining(*pairs: str) -> Tokenizer:
    """A vocabulary of bytes, of these pairs of them, and of an end token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*letters, *pairs])}
    backend = Backend(models.BPE(vocabulary, [(pair[0], pair[1]) for pair in pairs]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    return Tokenizer(backend, SpecialIds(eos=(len(vocabulary),)))


DEEPSEEK_CALL = forms.DEEPSEEK.openers[1]
LINE = "\u010a"  # a line break, as byte-level vocabularies spell it


@pytest.mark.parametrize(
    ("form", "begun", "then"), [(forms.LLAMA, '{"', "n"), (forms.HERMES, "<tool_call>\n", '{"')]
)
def test_a_call_is_bound_though_a_token_goes_on_behind_its_marker(
    form: forms.Form, begun: str, then: str
) -> None:
    tokenizer = joining('{"', "{" + LINE, ">" + LINE)
    lark = tool_choice_grammar(replace(form, shows_tools=True), SCHEMAS, "required", parallel=False)
    calls = Grammars(tokenizer, tokenizer.eos_ids).guide(Grammar(lark))
    guide = CallGuide(tokenizer, form, calls)

    def allows(text: str) -> bool:
        mask, (token_id,) = guide.allowed(), tokenizer.encode(text)
        return mask is None or bool(mask[token_id // 8] >> token_id % 8 & 1)

    assert allows("x") and allows("{\n") == (not form.is_bare)  # no call begins so
    for token_id in tokenizer.encode(begun):
        guide.accept(token_id)
    assert allows(then) and not allows("x")


def test_text_without_a_call_is_never_bound() -> None:
    opened = open_engine("penny")
    guide = CallGuide(opened.text.tokenizer, forms.HERMES, _Never())
    for token_id in opened.text.tokenizer.encode("<tool_ call> { <tool_call is no marker"):
        assert guide.allowed() is None
        guide.accept(token_id)


def test_which_forms_can_be_followed() -> None:
    assert beginnings(forms.HERMES) == {"<tool_call>": "<tool_call>"} and can_follow(forms.HERMES)
    assert beginnings(forms.LLAMA) == {} and can_follow(forms.LLAMA)
    assert not can_follow(forms.NONE)


@pytest.mark.parametrize(
    ("form", "text", "is_held"),
    [
        (forms.LLAMA, "see <function=", False),
        (forms.LLAMA, " <|python_tag|>", False),
        (forms.QWEN_CODER, "see <function=", True),
        (forms.DEEPSEEK, f"see {DEEPSEEK_CALL}", True),
        (forms.GEMMA, "see ```tool_call", False),
        (forms.GEMMA, "see ```tool_code", True),
    ],
)
def test_no_marker_that_is_read_begins_a_call_that_is_not_held(
    form: forms.Form, text: str, is_held: bool
) -> None:
    tokenizer = joining("=x", "l>", "e" + LINE)
    schemas = {"clock": NOTHING}
    lark = tool_choice_grammar(replace(form, shows_tools=True), schemas, "required", parallel=False)
    guide = CallGuide(tokenizer, form, Grammars(tokenizer, tokenizer.eos_ids).guide(Grammar(lark)))

    def allows(token_id: int) -> bool:
        mask = guide.allowed()
        return mask is None or bool(mask[token_id // 8] >> token_id % 8 & 1)

    *before, last = tokenizer.encode(text)
    for token_id in before:
        assert allows(token_id)
        guide.accept(token_id)
    assert allows(last) == is_held
    assert not (text[-1] == "=" and allows(tokenizer.encode("=x")[0])), "a call of x goes on behind it"
    if is_held:
        guide.accept(last)
        assert not allows(tokenizer.encode("?")[0])


class _Never:
    """A guide that must not be asked."""

    def allowed(self) -> bytes:
        raise AssertionError

    def accept(self, token_id: int) -> None:
        raise AssertionError

    def fork(self) -> "_Never":
        return self
