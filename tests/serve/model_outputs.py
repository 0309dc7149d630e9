"""What models write, and what it is: the cases of the parser's tests, all made here."""

from dataclasses import dataclass

from groschen.records import FinishReason
from groschen.serve.forms import form as forms
from groschen.serve.forms.form import Form

STOP, LENGTH, ABORTED = FinishReason.STOP, FinishReason.LENGTH, FinishReason.ABORTED

FUNCTIONS: dict[str, dict[str, object]] = {
    "weather": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    "time": {"type": "object", "properties": {}},
    "send": {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]},
    "write": {
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "lines": {"type": "array", "items": {"type": "string"}},
            "mode": {"type": ["integer", "null"]},
            "flag": {"type": "boolean"},
            "ratio": {"anyOf": [{"type": "number"}, {"type": "string"}]},
            "inner": {"$ref": "#/$defs/Inner"},
        },
        "$defs": {"Inner": {"type": "object", "properties": {"x": {"type": "integer"}}}},
    },
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A text and its parts, each put together from its events."""

    form: Form
    text: str
    reasoning: str = ""
    content: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    end: str = "stop"
    reason: FinishReason = STOP
    in_reasoning: bool = False
    has_tools: bool = True
    knows: bool = True  # the parser is told which tools there are


def hermes(text: str, *calls: tuple[str, str], end: str | None = None, **more: object) -> Case:
    return _case(forms.HERMES, text, calls, end, more)


def _case(form: Form, text: str, calls: tuple[tuple[str, str], ...], end: str | None, more: object) -> Case:
    assert isinstance(more, dict)
    return Case(form=form, text=text, calls=calls, end=end or ("tool_calls" if calls else "stop"), **more)


def coder(text: str, *calls: tuple[str, str], end: str | None = None, **more: object) -> Case:
    return _case(forms.QWEN_CODER, text, calls, end, more)


def llama(text: str, *calls: tuple[str, str], end: str | None = None, **more: object) -> Case:
    return _case(forms.LLAMA, text, calls, end, more)


def deepseek(text: str, *calls: tuple[str, str], end: str | None = None, **more: object) -> Case:
    return _case(forms.DEEPSEEK, text, calls, end, more)


def mistral(text: str, *calls: tuple[str, str], end: str | None = None, **more: object) -> Case:
    return _case(forms.MISTRAL, text, calls, end, more)


def gemma(text: str, *calls: tuple[str, str], end: str | None = None, **more: object) -> Case:
    return _case(forms.GEMMA, text, calls, end, more)


def function_gemma(text: str, *calls: tuple[str, str], end: str | None = None, **more: object) -> Case:
    return _case(forms.FUNCTION_GEMMA, text, calls, end, more)


def gemma_4(text: str, *calls: tuple[str, str], end: str | None = None, **more: object) -> Case:
    return _case(forms.GEMMA_4, text, calls, end, more)


WEATHER = ("weather", '{"city": "Köln"}')
TIME = ("time", "{}")
ONE = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
TWO = ONE + '\n<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'
UNKNOWN = '<tool_call>\n{"name": "nope", "arguments": {}}\n</tool_call>'
CALLS, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, SEP, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
V3 = f'{CALL}function{SEP}weather\n```json\n{{"city": "Köln"}}\n```{CALL_END}'
V3_TIME = f"{CALL}function{SEP}time\n```json\n{{}}\n```{CALL_END}"
V3_1 = f'{CALL}weather{SEP}{{"city": "Köln"}}{CALL_END}'
CITY = "<parameter=city>\nKöln\n</parameter>\n"
CODER = f"<tool_call>\n<function=weather>\n{CITY}</function>\n</tool_call>"

REASONING = {
    "plain text": hermes("Hello.", content="Hello."),
    "nothing": hermes(""),
    "only space": hermes(" \n", content=" \n"),
    "thought and answer": hermes("<think>\nWell.\n</think>\n\n42", reasoning="Well.", content="42"),
    "thought without newlines": hermes("<think>a</think>b", reasoning="a", content="b"),
    "inner newlines stay": hermes(
        "<think>\n\na\n\n\nb\n\n</think>\nc\n", reasoning="a\n\n\nb", content="c\n"
    ),
    "spaces stay": hermes("<think> a </think> b ", reasoning=" a ", content=" b "),
    "empty thought": hermes("<think>\n\n</think>\n\n42", content="42"),
    "no newline in an empty thought": hermes("<think></think>42", content="42"),
    "the prompt opened it": hermes(
        "\nWell.\n</think>\n\n42", reasoning="Well.", content="42", in_reasoning=True
    ),
    "the model repeats the tag": hermes("<think>\na</think>b", reasoning="a", content="b", in_reasoning=True),
    "closed at once": hermes("</think>42", content="42", in_reasoning=True),
    "a close tag first, unasked": hermes("</think>\n\n42", content="42"),
    "a close tag without an open one": hermes("a</think>b", content="a</think>b"),
    "never closed": hermes("<think>\na\n", reasoning="a\n"),
    "never closed, from the prompt": hermes("a\n\nb", reasoning="a\n\nb", in_reasoning=True),
    "cut inside the thought": hermes(
        "a <thi", reasoning="a <thi", in_reasoning=True, reason=LENGTH, end="length"
    ),
    "cut inside the close tag": hermes(
        "<think>a\n</thin", reasoning="a\n</thin", reason=LENGTH, end="length"
    ),
    "an open tag inside the thought": hermes("<think>a<think>b</think>c", reasoning="a<think>b", content="c"),
    "space before the thought": hermes("\n <think>a</think>b", reasoning="a", content="b"),
    "tags in a fence after content": hermes(
        "Write:\n```\n<think>a</think>\n```", content="Write:\n```\n<think>a</think>\n```"
    ),
    "a second thought before any content": hermes(
        "<think>a</think>\n<think>b</think>c", reasoning="ab", content="c"
    ),
    "tags after content": hermes("a <think>b</think>", content="a <think>b</think>"),
    "a tag that is none": hermes("<thinking>a", content="<thinking>a"),
    "half a tag at the end": hermes("<thi", content="<thi"),
    "a call inside the thought": hermes(f"<think>{ONE}</think>ok", reasoning=ONE, content="ok"),
    "a call inside a thought without end": hermes(ONE, reasoning=ONE, in_reasoning=True),
    "thought, then a call": hermes(f"<think>\na\n</think>\n\n{ONE}", WEATHER, reasoning="a"),
    "thought, then a call at once": hermes(f"<think>a</think>{ONE}", WEATHER, reasoning="a"),
    "an empty thought, then a call": hermes(f"<think>\n\n</think>\n\n{ONE}", WEATHER),
    "a thought after a call": hermes(f"{ONE}\n<think>a</think>\n{ONE}", WEATHER, WEATHER, reasoning="a"),
    "aborted": hermes("ab", content="ab", reason=ABORTED, end="abort"),
    "mistral thinks in brackets": mistral("<think>a</think>b", reasoning="a", content="b"),
    "gemma does not think": gemma("<think>a</think>b", content="<think>a</think>b"),
    "gemma 4 has a channel": gemma_4("<|channel>thought\na\n<channel|>b", reasoning="a", content="b"),
    "brackets and angles": hermes("1 < 2 <<tool_call <", content="1 < 2 <<tool_call <"),
}

HERMES = {
    "one call": hermes(ONE, WEATHER),
    "two calls": hermes(TWO, WEATHER, TIME),
    "text, then a call": hermes(f"Let me look.\n{ONE}", WEATHER, content="Let me look.\n"),
    "space, then a call": hermes(f"\n\n{ONE}\n", WEATHER),
    "a call, then text": hermes(f"{ONE}\nDone.", WEATHER, content="\nDone."),
    "on one line": hermes('<tool_call>{"name":"time","arguments":{}}</tool_call>', TIME),
    "arguments first": hermes(
        '<tool_call>{"arguments": {"city": "Köln"}, "name": "weather"}</tool_call>', WEATHER
    ),
    "arguments as a string": hermes(
        '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Köln\\"}"}</tool_call>', WEATHER
    ),
    "a string of arguments first": hermes(
        '<tool_call>{"arguments": "{\\"city\\": \\"Köln\\"}", "name": "weather"}</tool_call>', WEATHER
    ),
    "a string that is no object": hermes(
        text := '<tool_call>{"name": "weather", "arguments": "[1]"}</tool_call>', content=text
    ),
    "the word parameters": hermes('<tool_call>{"name": "time", "parameters": {}}</tool_call>', TIME),
    "with an id and a type": hermes(
        '<tool_call>{"id": "1", "type": "function", "name": "time", "arguments": {}}</tool_call>', TIME
    ),
    "odd white space stays": hermes(
        '<tool_call>{"name": "weather", "arguments": {\n "days" :\t1.50e2 }}</tool_call>',
        ("weather", '{\n "days" :\t1.50e2 }'),
    ),
    "escapes stay": hermes(
        '<tool_call>{"name": "weather", "arguments": '
        '{"city": "K\\u00f6ln \\"\\\\ }</tool_call>"}}</tool_call>',
        ("weather", '{"city": "K\\u00f6ln \\"\\\\ }</tool_call>"}'),
    ),
    "deep arguments": hermes(
        '<tool_call>{"name": "weather", "arguments": '
        '{"a": [[], {}, [null, true, -0.5E+3, {"b": ""}]]}}</tool_call>',
        ("weather", '{"a": [[], {}, [null, true, -0.5E+3, {"b": ""}]]}'),
    ),
    "no close tag at the end": hermes(ONE.removesuffix("\n</tool_call>"), WEATHER),
    "half a close tag at the end": hermes(ONE.removesuffix("l_call>"), WEATHER, reason=LENGTH, end="length"),
    "the outer brace is missing": hermes(ONE.replace("}}", "}"), WEATHER),
    "two objects in one block": hermes(
        '<tool_call>{"name": "time", "arguments": {}}\n{"name": "time", "arguments": {}}</tool_call>',
        TIME,
        TIME,
    ),
    "a list in one block": hermes(
        '<tool_call>[{"name": "time", "arguments": {}}, {"name": "time", "arguments": {}}]</tool_call>',
        TIME,
        TIME,
    ),
    "an unknown name": hermes(UNKNOWN, content=UNKNOWN),
    "an unknown name where all are taken": hermes(UNKNOWN, ("nope", "{}"), knows=False),
    "a name that is none": hermes(
        text := '<tool_call>{"name": "a b", "arguments": {}}</tool_call>', content=text, knows=False
    ),
    "unknown, then known": hermes(f"{UNKNOWN}\n{ONE}", WEATHER, content=f"{UNKNOWN}\n"),
    "known, then unknown": hermes(f"{ONE}\n{UNKNOWN}", WEATHER, content=f"\n{UNKNOWN}"),
    "the tag in prose": hermes(f"Use <tool_call> so: {ONE}", WEATHER, content="Use <tool_call> so: "),
    "the tag twice": hermes(f"<tool_call> {ONE}", WEATHER, content="<tool_call> "),
    "another family's call": hermes(CODER, WEATHER),
    "no object": hermes("<tool_call>\nweather\n</tool_call>", content="<tool_call>\nweather\n</tool_call>"),
    "no arguments": hermes('<tool_call>{"name": "time"}</tool_call>', ("time", "{}")),
    "arguments are null": hermes(
        '<tool_call>{"name": "time", "arguments": null}</tool_call>', ("time", "{}")
    ),
    "arguments are an empty string": hermes(
        '<tool_call>{"name": "time", "arguments": ""}</tool_call>', ("time", "{}")
    ),
    "empty arguments before the name": hermes(
        '<tool_call>{"arguments": "", "name": "time"}</tool_call>', ("time", "{}")
    ),
    "no arguments where some are needed": hermes(
        text := '<tool_call>{"name": "send"}</tool_call>', content=text
    ),
    "empty arguments where some are needed": hermes(
        text := '<tool_call>{"name": "send", "arguments": ""}</tool_call>', content=text
    ),
    "a call without its marker": hermes(
        '{"name": "weather", "arguments": {"city": "Ulm"}}', ("weather", '{"city": "Ulm"}')
    ),
    "a call in a fence instead of its marker": hermes(
        '```json\n{\n  "name": "weather",\n  "arguments": {"city": "Ulm"}\n}\n```',
        ("weather", '{"city": "Ulm"}'),
    ),
    "two calls without markers": hermes(
        '{"name": "time", "arguments": {}}\n{"name": "weather", "arguments": {"city": "Ulm"}}',
        ("time", "{}"),
        ("weather", '{"city": "Ulm"}'),
    ),
    "an object that names no tool": hermes(text := '{"name": "Ulm", "arguments": {}}', content=text),
    "a fence that holds no call": hermes(text := '```json\n{"city": "Ulm"}\n```', content=text),
    "a fence of another language": hermes(text := "```python\nprint(1)\n```", content=text),
    "an object behind a sentence": hermes(text := 'So: {"name": "time", "arguments": {}}', content=text),
    "a key that does not belong": hermes(
        text := '<tool_call>{"name": "time", "comment": "x", "arguments": {}}</tool_call>', content=text
    ),
    "cut before the name is whole": hermes(
        text := '<tool_call>\n{"name": "weat', content=text, reason=LENGTH, end="length"
    ),
    "cut after the tag": hermes("a<tool_call>", content="a<tool_call>", reason=LENGTH, end="length"),
    "cut before the arguments": hermes(
        text := '<tool_call>{"name": "weather", "arguments": ', content=text, reason=LENGTH, end="length"
    ),
    "cut inside the arguments": hermes(
        '<tool_call>{"name": "weather", "arguments": {"city": "Kö',
        ("weather", '{"city": "Kö'),
        reason=LENGTH,
        end="length",
    ),
    "stopped inside the arguments": hermes(
        '<tool_call>{"name": "weather", "arguments": {"city"', ("weather", '{"city"'), end="stop"
    ),
    "a whole call, then one cut": hermes(
        f'{ONE}<tool_call>{{"name": "time", "arguments": {{',
        WEATHER,
        ("time", "{"),
        reason=LENGTH,
        end="length",
    ),
    "broken arguments": hermes(
        '<tool_call>{"name": "weather", "arguments": {"city": Köln}}</tool_call>',
        ("weather", '{"city": Köln}}'),
        end="stop",
    ),
    "broken arguments, then a call": hermes(
        f'<tool_call>{{"name": "weather", "arguments": {{,}}}}</tool_call>\n{ONE}',
        ("weather", "{,}}"),
        WEATHER,
    ),
    "a raw newline in a string is broken": hermes(
        '<tool_call>{"name": "weather", "arguments": {"city": "a\nb"}}</tool_call>',
        ("weather", '{"city": "a\nb"}}'),
        end="stop",
    ),
    "NaN is broken": hermes(
        '<tool_call>{"name": "weather", "arguments": {"days": NaN}}</tool_call>',
        ("weather", '{"days": NaN}}'),
        end="stop",
    ),
    "a brace too many": hermes(ONE.replace("}}", "}}}"), WEATHER, content="}\n</tool_call>"),
    "text where the brace belongs": hermes(
        '<tool_call>{"name": "time", "arguments": {} oops', TIME, content=" oops", end="stop"
    ),
    "no tools were given": hermes(ONE, content=ONE, has_tools=False),
    "no tools, but a thought": hermes(f"<think>a</think>{ONE}", reasoning="a", content=ONE, has_tools=False),
    "aborted in a call": hermes(
        '<tool_call>{"name": "time", "arguments": {', ("time", "{"), reason=ABORTED, end="abort"
    ),
    "a form without tools": Case(form=forms.NONE, text=ONE, content=ONE),
}
