"""The machine that turns a model's text into events: what it finds, however the text is cut."""

import itertools
import json
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from groschen.serve.events import (
    Content,
    Event,
    Finished,
    Reasoning,
    Thinks,
    ToolArguments,
    ToolBegin,
    ToolEnd,
)
from groschen.serve.forms import form as forms
from groschen.serve.forms.form import Form
from groschen.serve.parser import Parser, merged
from serve.family_outputs import CASES, GROUPS
from serve.model_outputs import FUNCTIONS, LENGTH, ONE, STOP, TWO, Case


def parser(
    form: Form = forms.HERMES,
    *,
    in_reasoning: bool = False,
    has_tools: bool = True,
    knows: bool = True,
    thinks: Thinks = "freely",
) -> Parser:
    numbers = itertools.count()
    return Parser(
        form,
        in_reasoning=in_reasoning,
        has_tools=has_tools,
        call_id=lambda: f"call_{next(numbers):024}",
        functions=FUNCTIONS if knows else None,
        thinks=thinks,
    )


def events_of(case: Case, pieces: Iterable[str]) -> list[Event]:
    machine = parser(case.form, in_reasoning=case.in_reasoning, has_tools=case.has_tools, knows=case.knows)
    events = [event for piece in pieces for event in machine.push(piece)]
    return merged([*events, *machine.finish(case.reason)])


def text_of(events: list[Event], kind: type[Reasoning] | type[Content]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def calls_of(events: list[Event]) -> tuple[tuple[str, str], ...]:
    """Each call's name and arguments; asserts that its events come in order."""
    calls: list[tuple[str, str]] = []
    is_open = False
    for event in events:
        if isinstance(event, ToolBegin):
            assert not is_open and event.index == len(calls)
            assert event.id == f"call_{event.index:024}"
            calls.append((event.name, ""))
            is_open = True
        elif isinstance(event, ToolArguments):
            assert is_open and event.index == len(calls) - 1 and event.text
            calls[-1] = (calls[-1][0], calls[-1][1] + event.text)
        elif isinstance(event, ToolEnd):
            assert is_open and event.index == len(calls) - 1
            is_open = False
    assert not is_open
    return tuple(calls)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_text_has_these_parts(case: Case) -> None:
    events = events_of(case, [case.text])
    assert text_of(events, Reasoning) == case.reasoning
    assert text_of(events, Content) == case.content
    assert calls_of(events) == case.calls
    assert events[-1] == Finished(case.end)
    assert [event for event in events if isinstance(event, Finished)] == [events[-1]]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_single_characters_give_the_same_events(case: Case) -> None:
    assert events_of(case, case.text) == events_of(case, [case.text])


def test_no_case_has_a_call_that_is_complete_and_not_json() -> None:
    for case in CASES.values():
        if case.end == "tool_calls":
            assert any(
                isinstance(json.loads(arguments), dict) for _, arguments in case.calls if is_json(arguments)
            )


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def cut(text: str, places: Iterable[int]) -> list[str]:
    ends = sorted({min(place, len(text)) for place in places})
    return [text[begin:end] for begin, end in itertools.pairwise([0, *ends, len(text)])]


LONG = [case for case in CASES.values() if len(case.text) > 20]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(LONG), st.lists(st.integers(0, 250)))
def test_the_events_do_not_depend_on_the_cut(case: Case, places: list[int]) -> None:
    assert events_of(case, cut(case.text, places)) == events_of(case, [case.text])


PIECES = [
    "<think>", "</think>", "\n", " ", "a", "<", "<tool_call>", "</tool_call>", "{", "}", '"name"', ":", '"',
    '{"name": "time", "arguments": ', "time", "nope", "[", "]", ",", ";", "\\", "\\u00", "12", "-", ".", "e",
    "true", "<function=", ">", "<parameter=city>", "</parameter>", "</function>", "<|python_tag|>",
    "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "function", "```json\n", "```",
    "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "[TOOL_CALLS]", "[ARGS]", "```tool_code\n", "time()",
    "weather(city='", "')", "<start_function_call>", "call:", "time{", "<escape>", "<end_function_call>",
    '"arguments"', '"id": "x"', "ö", "日本",
]  # fmt: skip
FORMS = [
    forms.NONE, forms.HERMES, forms.QWEN_CODER, forms.LLAMA, forms.DEEPSEEK, forms.MISTRAL, forms.GEMMA,
    forms.FUNCTION_GEMMA, forms.GEMMA_4, forms.LISTED,
]  # fmt: skip
soups = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@settings(max_examples=1500, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    text=soups,
    places=st.lists(st.integers(0, 200)),
    in_reasoning=st.booleans(),
    has_tools=st.booleans(),
    knows=st.booleans(),
    reason=st.sampled_from([STOP, LENGTH]),
)
@example(forms.HERMES, ONE + "</thi", [5], False, True, True, LENGTH)
def test_a_soup_of_markers_never_fails_and_never_depends_on_the_cut(
    form: Form,
    text: str,
    places: list[int],
    in_reasoning: bool,
    has_tools: bool,
    knows: bool,
    reason: object,
) -> None:
    case = Case(
        form=form,
        text=text,
        in_reasoning=in_reasoning and form.has_reasoning,
        has_tools=has_tools,
        knows=knows,
        reason=STOP if reason is STOP else LENGTH,
    )
    whole = events_of(case, [text])
    assert events_of(case, cut(text, places)) == whole
    assert events_of(case, text) == whole
    calls = calls_of(whole)
    assert isinstance(whole[-1], Finished)
    if whole[-1].reason == "tool_calls":
        assert any(is_json(arguments) for _, arguments in calls)
    if not calls:
        shown = text_of(whole, Reasoning) + text_of(whole, Content)
        assert without_marks(shown, form) == without_marks(text, form)


def without_marks(text: str, form: Form) -> str:
    """The text without the tags and the space that the machine leaves out."""
    for tag in (form.reasoning_open, form.reasoning_close):
        text = text.replace(tag, "") if tag else text
    return "".join(text.split())


# -- what goes out, and when


def test_events_of_two_calls_come_in_order() -> None:
    text = f"<think>a</think>Well.{TWO}"
    events = events_of(Case(form=forms.HERMES, text=text), [text])
    assert events == [
        Reasoning("a"),
        Content("Well."),
        ToolBegin(0, f"call_{0:024}", "weather"),
        ToolArguments(0, '{"city": "Köln"}'),
        ToolEnd(0),
        ToolBegin(1, f"call_{1:024}", "time"),
        ToolArguments(1, "{}"),
        ToolEnd(1),
        Finished("tool_calls"),
    ]


def test_arguments_stream_piece_by_piece_after_the_name() -> None:
    machine = parser()
    assert machine.push('<tool_call>\n{"name": "weather", "argu') == []
    assert machine.push('ments": ') == []
    assert machine.push("{") == [ToolBegin(0, f"call_{0:024}", "weather"), ToolArguments(0, "{")]
    assert machine.push('"ci') == [ToolArguments(0, '"ci')]
    assert machine.push('ty": "Kö') == [ToolArguments(0, 'ty": "Kö')]
    assert machine.push('ln"}') == [ToolArguments(0, 'ln"}')]
    assert machine.push("}") == [ToolEnd(0)]
    assert machine.push("\n</tool_call>") == []
    assert machine.finish(STOP) == [Finished("tool_calls")]


def test_content_is_held_back_only_where_a_marker_may_begin() -> None:
    machine = parser()
    assert machine.push("Hello ") == [Content("Hello ")]
    assert machine.push("world <tool") == [Content("world ")]
    assert machine.push("s>") == [Content("<tools>")]
    assert machine.push("\n") == [Content("\n")]


def test_content_without_tools_is_never_held_back_once_it_has_begun() -> None:
    machine = parser(has_tools=False)
    assert machine.push("a<tool_call") == [Content("a<tool_call")]
    assert machine.push("</thin") == [Content("</thin")]


def test_reasoning_streams_and_holds_back_newlines_before_the_tag() -> None:
    machine = parser(in_reasoning=True)
    assert machine.push("\nI think") == [Reasoning("I think")]
    assert machine.push("\n\n") == []
    assert machine.push("so") == [Reasoning("\n\nso")]
    assert machine.push("\n</thi") == []
    assert machine.push("nk>\n") == []
    assert machine.push("\n") == []
    assert machine.push("Yes") == [Content("Yes")]


def test_a_call_of_no_tool_goes_out_as_soon_as_its_name_is_known() -> None:
    machine = parser()
    text = '<tool_call>\n{"name": "nope"'
    assert machine.push(text) == [Content(text)]
    assert machine.push(", ") == [Content(", ")]


def test_json_that_is_an_answer_goes_out_at_its_first_foreign_key() -> None:
    machine = parser(forms.LLAMA)
    assert machine.push('{"ci') == []
    assert machine.push('ty":') == [Content('{"city":')]
    assert machine.push(' "K') == [Content(' "K')]


def test_part_says_where_the_last_text_left_the_machine() -> None:
    machine = parser(in_reasoning=True)
    assert machine.part == "reasoning"
    parts = []
    for piece in [
        "a",
        "</think>",
        "b",
        "<tool_call>",
        '{"name": "time", "arguments": {}}',
        "</tool_call>",
        "c",
    ]:
        machine.push(piece)
        parts.append(machine.part)
    assert parts == ["reasoning", "content", "content", "tool", "tool", "content", "content"]


def test_the_stop_string_is_told_at_the_end() -> None:
    machine = parser()
    machine.push("a")
    assert machine.finish(STOP, "###") == [Finished("stop", "###")]


def test_a_call_in_another_notation_comes_whole() -> None:
    machine = parser(forms.QWEN_CODER)
    assert machine.push("<tool_call>\n<function=time>\n</functio") == []
    assert machine.push("n>") == [
        ToolBegin(0, f"call_{0:024}", "time"),
        ToolArguments(0, "{}"),
        ToolEnd(0),
    ]


@pytest.mark.parametrize(
    ("thinks", "expected"),
    [
        ("freely", [Reasoning("b"), Content("c")]),
        ("once", [Reasoning("b"), Content("c")]),
        ("never", [Content("<think>b</think>c")]),
    ],
)
def test_tags_are_text_of_an_answer_that_never_thinks(thinks: Thinks, expected: list[Event]) -> None:
    machine = parser(thinks=thinks)
    assert merged([*machine.push("<think>b</think>c"), *machine.finish(STOP)])[:-1] == expected


def test_tags_behind_the_one_reasoning_of_a_held_answer_are_its_text() -> None:
    machine = parser(in_reasoning=True, thinks="once")
    events = machine.push("a</think><think>b</think>")
    assert merged([*events, *machine.finish(STOP)])[:-1] == [Reasoning("a"), Content("<think>b</think>")]


def test_reasoning_cannot_begin_open_in_a_form_without_it() -> None:
    with pytest.raises(AssertionError, match="no reasoning"):
        parser(forms.GEMMA, in_reasoning=True)


def test_a_hundred_thousand_brackets_are_read_in_one_go() -> None:
    case = Case(form=forms.HERMES, text="")
    deep = "[" * 100_000
    events = events_of(case, [f'<tool_call>{{"name": "weather", "arguments": {{"a": {deep}'])
    assert calls_of(events) == (("weather", '{"a": ' + deep),)


def test_there_are_enough_cases() -> None:
    assert sum(map(len, GROUPS.values())) == len(CASES) >= 80
