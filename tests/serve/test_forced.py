"""Calls that are forced: whatever the grammar lets a model write is a call that its form reads and its schema
allows.
"""

import json
import random
from dataclasses import replace

import jsonschema
import llguidance
import pytest

from groschen.errors import BadRequest, Unsupported
from groschen.records import FinishReason
from groschen.serve.events import Finished, ToolArguments, ToolBegin
from groschen.serve.forms import form as forms
from groschen.serve.forms.calls import Functions
from groschen.serve.forms.forced import tool_choice_grammar
from groschen.serve.forms.form import Form
from groschen.serve.parser import Parser

FUNCTIONS: dict[str, dict[str, object]] = {
    "weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
            "unit": {"enum": ["celsius", "kelvin"]},
            "exact": {"type": "boolean"},
            "at": {"$ref": "#/$defs/Place"},
        },
        "required": ["city", "exact"],
        "additionalProperties": False,
        "$defs": {
            "Place": {
                "type": "object",
                "properties": {"x": {"type": "integer"}},
                "required": ["x"],
                "additionalProperties": False,
            }
        },
    },
    "time": {},
}
WRITING = [form for form in vars(forms).values() if isinstance(form, Form) and form.written is not None]


class Bytes:
    """A vocabulary of the 256 bytes, an end token and one token set apart."""

    tokens = [bytes([value]) for value in range(256)] + [b"\xff<end>", b"\xff<mark>"]
    eos_token_id = 256
    bos_token_id = None
    special_token_ids = [256, 257]  # noqa: RUF012  # llguidance reads a list

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def written_at_random(grammar: str, seed: int) -> str:
    """A text that the grammar allows; characters are likely to be those that end a string."""
    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))
    matcher = llguidance.LLMatcher(tokenizer, llguidance.grammar_from("lark", grammar))
    assert not matcher.is_error(), matcher.get_error()
    luck, found = random.Random(seed), b""
    for _ in range(3000):
        mask = matcher.compute_bitmask()
        allowed = [i for i in range(258) if mask[i // 8] >> (i % 8) & 1]
        assert allowed, (found, matcher.get_error())
        ending = [i for i in allowed if i in {*b'"<,}]\n', 256}]
        plain = [i for i in allowed if 32 <= i < 127]
        if len(allowed) > 4:
            allowed = ending if ending and luck.random() < 0.3 else plain or allowed
        token = luck.choice(allowed)
        if token == 256:
            return found.decode()
        found += b"<mark>" if token == 257 else bytes([token])
        assert matcher.consume_token(token), matcher.get_error()
    raise AssertionError(f"no end: {found!r}")


def read(form: Form, text: str, functions: Functions = FUNCTIONS) -> list[tuple[str, str]]:
    machine = Parser(form, in_reasoning=False, has_tools=True, call_id=lambda: "call_x", functions=functions)
    events = [*machine.push(text), *machine.finish(FinishReason.STOP)]
    assert events[-1] == Finished("tool_calls"), (text, events)
    names = {event.index: event.name for event in events if isinstance(event, ToolBegin)}
    pieces = [event for event in events if isinstance(event, ToolArguments)]
    return [(name, "".join(each.text for each in pieces if each.index == i)) for i, name in names.items()]


@pytest.mark.parametrize("form", WRITING, ids=[form.name for form in WRITING])
def test_whatever_a_forced_model_writes_is_a_valid_call(form: Form) -> None:
    shown = replace(form, shows_tools=True)
    numbers = set()
    for seed in range(12):
        parallel = seed % 2 == 0
        grammar = tool_choice_grammar(shown, FUNCTIONS, "required", parallel=parallel)
        calls = read(form, written_at_random(grammar, seed))
        assert len(calls) >= 1 and (parallel or len(calls) == 1)
        numbers.add(len(calls))
        for name, arguments in calls:
            jsonschema.validate(json.loads(arguments), {**FUNCTIONS[name], "type": "object"})
    assert max(numbers) > 1


PROPERTIES: dict[str, object] = {
    "maybe": {"type": ["string", "null"]},
    "choice": {"enum": ["x", 1, None]},
    "short": {"type": "string", "minLength": 2, "maxLength": 4},
    "fixed": {"const": "k"},
    "numbers": {"type": "array", "items": {"type": "number"}, "maxItems": 3},
    "either": {"anyOf": [{"type": "integer"}, {"type": "boolean"}]},
    "free": {},
}
RICH: dict[str, object] = {"type": "object", "properties": PROPERTIES, "required": ["short"]}
OWN_NOTATION = [form for form in WRITING if form.written and form.written.notation != "json"]


@pytest.mark.parametrize("form", OWN_NOTATION, ids=[form.name for form in OWN_NOTATION])
def test_forced_arguments_in_another_notation_have_the_types_of_the_schema(form: Form) -> None:
    shown = replace(form, shows_tools=True)
    all_needed = {**RICH, "required": list(PROPERTIES)}
    for seed in range(12):
        schema = RICH if seed % 2 else all_needed
        grammar = tool_choice_grammar(shown, {"note": schema}, "note", parallel=False)
        ((_, arguments),) = read(form, written_at_random(grammar, seed), {"note": schema})
        jsonschema.validate(json.loads(arguments), schema)


@pytest.mark.parametrize(
    ("form", "schema", "says"),
    [
        (forms.QWEN_CODER, {"properties": {"a": {"type": "string", "pattern": "x+"}}}, "pattern"),
        (forms.GEMMA, {"properties": {"a b": {}}}, "'a b'"),
        (forms.FUNCTION_GEMMA, {"anyOf": [{"properties": {}}]}, "list of properties"),
        (forms.GEMMA_4, {"properties": {}, "required": ["a"]}, "requires 'a'"),
        (forms.GEMMA_4, {"properties": {"a": {}}, "required": [["a"]]}, "no list of names"),
        (forms.QWEN_CODER, {"properties": {"a": {}}, "required": [1, "a"]}, "no list of names"),
        (forms.GEMMA, {"properties": {"a": {}, "b": {}}, "required": "ab"}, "no list of names"),
    ],
)
def test_what_a_notation_cannot_force_is_refused_by_name(
    form: Form, schema: dict[str, object], says: str
) -> None:
    with pytest.raises((Unsupported, BadRequest), match=says):
        tool_choice_grammar(replace(form, shows_tools=True), {"f": schema}, "f", parallel=False)


def test_a_named_tool_is_the_only_one_that_can_be_called() -> None:
    form = replace(forms.HERMES, shows_tools=True)
    for name in FUNCTIONS:
        grammar = tool_choice_grammar(form, FUNCTIONS, name, parallel=False)
        assert [called for called, _ in read(form, written_at_random(grammar, 5))] == [name]


def test_a_marker_that_is_a_token_is_forced_as_that_token() -> None:
    form = replace(
        forms.MISTRAL_V11, shows_tools=True, written=replace(forms.MISTRAL_V11.written, before="<mark>")
    )
    grammar = tool_choice_grammar(form, FUNCTIONS, "time", parallel=False, control={"<mark>": 257})
    assert "<[257]>" in grammar and '"<mark>' not in grammar
    assert written_at_random(grammar, 1) == "<mark>time[ARGS]{}"


def test_a_form_without_calls_refuses_to_force_one() -> None:
    for form in (forms.NONE, forms.HERMES):
        with pytest.raises(Unsupported, match="no tools"):
            tool_choice_grammar(form, FUNCTIONS, "required", parallel=True)


def test_a_tool_that_was_not_given_cannot_be_forced() -> None:
    form = replace(forms.HERMES, shows_tools=True)
    with pytest.raises(BadRequest, match="'nope'"):
        tool_choice_grammar(form, FUNCTIONS, "nope", parallel=True)
    with pytest.raises(BadRequest, match="array"):
        tool_choice_grammar(form, {"f": {"type": "array"}}, "f", parallel=True)
