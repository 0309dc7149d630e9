"""Which form a model has, and how the notations of calls are read."""

import itertools
import json
import re
from pathlib import Path

import pytest

from groschen.records import FinishReason
from groschen.serve.events import Content, Finished, ToolArguments, ToolBegin, ToolEnd
from groschen.serve.forms import form as forms
from groschen.serve.forms.cursor import Malformed
from groschen.serve.forms.detect import (
    form_of,
    form_of_template,
    id_for_template,
    prompt_opens_reasoning,
)
from groschen.serve.forms.json_text import JsonObject
from groschen.serve.forms.literals import Unfinished, gemma_arguments, python_calls
from groschen.serve.forms.tagged import typed
from groschen.serve.parser import Parser
from groschen.text.chat import ChatTemplate
from groschen.text.load import load_text
from text.get_references import folder

PENNY = Path(forms.__file__).parents[2] / "penny"

# Part of a reference's file name, its form, its open tag, and whether tools reach the model.
REFERENCES = [
    ("trl-qwen2_5.", "hermes", "<think>", True),
    ("trl-qwen2_5_vl.", "none", "<think>", False),
    ("trl-qwen3.", "hermes", "<think>", True),
    ("trl-qwen3_instruct_2507.", "hermes", "<think>", True),
    ("Hermes-3-Llama-3.1-8B", "hermes", "<think>", True),
    ("granite-4.0", "hermes", "<think>", True),
    ("Qwen3-Coder", "qwen-coder", "<think>", True),
    ("Qwen3.5-4B", "qwen-coder", "<think>", True),
    ("Nemotron-3-Nano", "qwen-coder", "<think>", True),
    ("trl-llama3.", "none", "<think>", False),
    ("trl-llama3_1.", "llama", "<think>", True),
    ("trl-llama3_2.", "llama", "<think>", True),
    ("functionary-medium-v3.1", "llama", "<think>", True),
    ("trl-deepseekv3.", "deepseek", "<think>", False),
    ("trl-deepseek_r1_distill.", "deepseek", "<think>", False),
    ("llama-cpp-deepseek-r1", "deepseek", "<think>", True),
    ("DeepSeek-V3.1", "deepseek-v3.1", "<think>", False),
    ("DeepSeek-V3.2", "none", "<think>", False),
    ("Mistral-Nemo", "mistral", "<think>", True),
    ("Mistral-Small-3.2", "mistral-v11", "<think>", True),
    ("Ministral-3-14B-Reasoning", "mistral-v11", "[THINK]", True),
    ("trl-gemma.", "none", "", False),
    ("trl-gemma3.", "none", "", False),
    ("trl-gemma4.", "gemma-4", "<|channel>thought\n", True),
    ("LFM2-8B", "listed", "<think>", True),
    ("trl-phi3_5.", "none", "<think>", False),
    ("GLM-4.6", "none", "<think>", False),
    ("Seed-OSS", "none", "<seed:think>", False),
    ("trl-gptoss.", "none", "<think>", False),
]


@pytest.fixture(scope="module")
def reference_templates() -> list[Path]:
    found = sorted((folder() / "templates").glob("*.jinja"))
    if not found:
        pytest.skip("no reference templates: run python tests/text/get_references.py --vocabularies")
    return found


@pytest.mark.parametrize(("part", "name", "tag", "has_tools"), REFERENCES, ids=[row[0] for row in REFERENCES])
def test_templates_of_real_models_show_their_form(
    reference_templates: list[Path], part: str, name: str, tag: str, has_tools: bool
) -> None:
    found = [path for path in reference_templates if part in path.name]
    if not found and not part.startswith("trl-"):
        pytest.skip("only with python tests/text/get_references.py --vocabularies")
    for path in found:
        form = form_of_template(path.read_text(encoding="utf-8"))
        assert (form.name, form.reasoning_open, form.can_call_tools) == (name, tag, has_tools), path.name


TEMPLATES = {
    "none": "{% for message in messages %}tools and <tool_call> {{ message.tools }}{% endfor %}",
    "hermes": '{% if tools %}<tool_call>\n{"name": <function-name>}\n</tool_call>{% endif %}',
    "qwen-coder": "{% if tools %}<tool_call>\n<function=f>\n<parameter=p>\n{% endif %}",
    "llama": "{% if tools %}{{ '<|python_tag|>' }}{% endif %}",
    "deepseek": "{{ tools }}<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json",
    "deepseek-v3.1": "{{ tools }}{{ '<｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>' }}",
    "mistral": "{{ tools }}{{ '[TOOL_CALLS][' }}",
    "mistral-v11": "{{ tools }}{{ '[TOOL_CALLS]' + name + '[ARGS]' }}",
    "gemma": "{{ tools }}\n```tool_code\n",
    "function-gemma": "{{ tools }}<start_function_call>call:{{ name }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_s_markers_decide(name: str) -> None:
    form = form_of_template(TEMPLATES[name])
    assert form.name == name
    assert form.can_call_tools == (name != "none")


def test_the_word_tools_in_a_text_shows_no_tools() -> None:
    source = '{{ \'tools\' }} tools {{ message.tools }} <tool_call>\n{"name": "f"}'
    form = form_of_template(source)
    assert form.name == "hermes" and not form.shows_tools and not form.can_call_tools


def test_penny_thinks_and_has_no_tools() -> None:
    form = form_of(load_text(PENNY))
    assert (form.name, form.reasoning_open, form.can_call_tools) == ("none", "<think>", False)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("<｜Assistant｜><think>", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("<|im_start|>assistant\n", False),
        ("<think>", True),
        ("", False),
    ],
)
def test_a_prompt_opens_reasoning_only_with_the_tag_at_its_end(prompt: str, expected: bool) -> None:
    assert prompt_opens_reasoning(prompt, forms.HERMES) is expected


def test_a_form_without_reasoning_never_begins_in_it() -> None:
    assert not prompt_opens_reasoning("", forms.GEMMA)
    assert not prompt_opens_reasoning("<think>", forms.GEMMA)


def test_ids_get_the_length_that_a_template_demands() -> None:
    long = "call_" + "a" * 24
    assert id_for_template(long, forms.HERMES) == long
    short = id_for_template(long, forms.MISTRAL)
    assert len(short) == 9 and short.isalnum() and short == id_for_template(long, forms.MISTRAL)
    assert id_for_template("abcdefgh1", forms.MISTRAL) == "abcdefgh1"
    assert id_for_template(long, forms.MISTRAL) != id_for_template(long + "b", forms.MISTRAL)


# -- JSON and other notations

WHOLE = [
    "{}",
    ' {"a": 1}'[1:],
    '{"a": [1, 2.5e-3, -0, "x\\u00e9\\n", true, false, null, {}, []]}',
    '{"a":{"b":[{}]}}',
]
BROKEN = [
    "[1]", "{,}", '{"a"}', '{"a" 1}', '{"a": 01}', '{"a": .5}', '{"a": 1.}', '{"a": 1e}', '{"a": +1}',
    '{"a": tru}', '{"a": "\n"}', '{"a": "\\x"}', '{"a": "\\u12g4"}', '{"a": [1,]}', '{"a": 1,}', '{"a": [}',
    "{'a': 1}", '{a: 1}', '{"a": NaN}', '{"a": - 1}', '{"a": "\t"}', '{"a": 1 2}',
]  # fmt: skip


@pytest.mark.parametrize("text", WHOLE)
def test_json_objects_are_whole_at_their_last_brace(text: str) -> None:
    json.loads(text)
    scanned = JsonObject()
    assert scanned.take(text + "} tail", 0) == len(text)
    assert scanned.is_whole and not scanned.is_broken


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_no_json_object_is_broken(text: str) -> None:
    scanned = JsonObject()
    assert scanned.take(text, 0) < len(text)
    assert scanned.is_broken and not scanned.is_whole


@pytest.mark.parametrize("text", ["f(a=", "f(a='x", "f(", "[f()", "f(a={", "f(a='''x\n", "f(a=[1,"])
def test_a_call_that_breaks_off_is_unfinished(text: str) -> None:
    with pytest.raises(Unfinished):
        python_calls(text)


@pytest.mark.parametrize(
    "text",
    [
        "f",
        "1",
        "f(1)",
        "f(a=b)",
        "f(a=1) + 1",
        "f(a=1, a=2)",
        "x = f()",
        "f(a='x\ny')",
        "f(a=1.2.3)",
        "f(a=007)",
        "f(a=.)",
        "f(a={1})",
    ],
)
def test_what_is_no_plain_call_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        python_calls(text)


def test_nothing_of_a_call_is_evaluated() -> None:
    with pytest.raises(Malformed):
        python_calls("f(a=__import__('os').getcwd())")
    with pytest.raises(Malformed):
        python_calls("print(" * 10_000)
    with pytest.raises(Malformed):
        python_calls("f(a=" + "[" * 10_000 + "]" * 10_000 + ")")


def test_gemma_s_strings_have_no_escapes() -> None:
    assert gemma_arguments('{a:<e>x\\n"}<e>,b:[1,<e><e>]}', "<e>") == '{"a": "x\\\\n\\"}", "b": [1, ""]}'


@pytest.mark.parametrize(
    ("text", "kinds", "expected"),
    [
        ("7", {"integer"}, "7"),
        (" 7\n", {"integer"}, "7"),
        ("7", {"string"}, '"7"'),
        ("7", set(), '"7"'),
        ("7", {"number"}, "7"),
        ("7.5", {"integer"}, '"7.5"'),
        ("1e999", {"number"}, "1e999"),
        ("True", {"boolean"}, "true"),
        ("None", {"null", "string"}, "null"),
        ("x", {"null", "string"}, '"x"'),
        ('"x"', {"object", "string"}, '"\\"x\\""'),
        ("[1]", {"array"}, "[1]"),
        ("1, 2", {"integer", "array"}, '"1, 2"'),
        ('1, "b": 2', {"integer", "object"}, '"1, \\"b\\": 2"'),
        ("NaN", {"number"}, '"NaN"'),
        ("", {"integer"}, '""'),
    ],
)
def test_a_parameter_s_text_has_the_type_of_its_schema(text: str, kinds: set[str], expected: str) -> None:
    assert typed(text, frozenset(kinds)) == expected


# -- what real templates write, their form reads back

ENDS = re.compile(
    r"(?:<\|end_of_text\|>|<\|im_end\|>|<\|eot_id\|>|<\|eom_id\|>|<｜end▁of▁sentence｜>|</s>|<\|tool_response>)\s*$"
)
ARGUMENTS = {"city": 'Köln "am"\nRhein \\ {x}', "days": 3}
FUNCTIONS = {
    "weather": {
        "type": "object",
        "description": "The weather.",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    }
}


def written_by(source: str, arguments: object) -> str:
    """What a template writes for an assistant's call, from where the generation prompt ends."""
    template = ChatTemplate(source, special_tokens={"bos_token": "<s>", "eos_token": "</s>"})
    tools = [
        {"type": "function", "function": {"name": name, "description": "x", "parameters": parameters}}
        for name, parameters in FUNCTIONS.items()
    ]
    question = {"role": "user", "content": "Weather?"}
    call = {"type": "function", "id": "abcdefgh1", "function": {"name": "weather", "arguments": arguments}}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    prompt = template.render([question], tools=tools).removesuffix("<think>\n")
    whole = template.render([question, answer], tools=tools, add_generation_prompt=False)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(prompt, whole, strict=False))
    return ENDS.sub("", whole[len(list(same)) :])


@pytest.mark.parametrize(
    "part",
    [
        "trl-qwen2_5.", "trl-qwen3.", "trl-qwen3_instruct_2507.", "Hermes-3-Llama-3.1-8B", "granite-4.0",
        "Qwen3-Coder", "Qwen3.5-4B", "Nemotron-3-Nano", "trl-llama3_1.", "trl-llama3_2.",
        "functionary-medium-v3.1",
        "trl-deepseekv3.", "DeepSeek-V3.1", "Mistral-Nemo", "Mistral-Small-3.2", "Devstral-Small",
        "Ministral-3-14B-Reasoning", "trl-gemma4.", "trl-gemma4_v5.",
    ],
)  # fmt: skip
def test_a_call_that_a_real_template_writes_is_read_back(reference_templates: list[Path], part: str) -> None:
    found = [path for path in reference_templates if part in path.name]
    if not found and not part.startswith("trl-"):
        pytest.skip("only with python tests/text/get_references.py --vocabularies")
    (path,) = found
    source = path.read_text(encoding="utf-8")
    # One template of these joins the arguments to its text, so they have to be text.
    text = written_by(source, json.dumps(ARGUMENTS) if "deepseekv3" in part else ARGUMENTS)
    form = form_of_template(source)
    machine = Parser(form, in_reasoning=False, has_tools=True, call_id=lambda: "call_x", functions=FUNCTIONS)
    events = [event for character in text for event in machine.push(character)]
    events += machine.finish(FinishReason.STOP)
    assert [event.name for event in events if isinstance(event, ToolBegin)] == ["weather"], text
    arguments = "".join(event.text for event in events if isinstance(event, ToolArguments))
    assert json.loads(arguments) == ARGUMENTS
    assert not [event for event in events if isinstance(event, Content) and event.text.strip()], text
    assert events[-1] == Finished("tool_calls")


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (forms.DEEPSEEK, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>clock\n"
         "```json\n%s\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
        (forms.MISTRAL_V11, "[TOOL_CALLS]clock[ARGS]%s"),
        (forms.MISTRAL, '[TOOL_CALLS][{"name": "clock", "arguments": %s}]'),
        (forms.LLAMA, '{"name": "clock", "parameters": %s}'),
    ],
    ids=["deepseek", "mistral v11", "mistral", "llama"],
)  # fmt: skip
@pytest.mark.parametrize("nothing", ["null", '""', "{}"])
def test_a_call_of_a_tool_without_parameters_may_leave_its_arguments_empty(
    form: forms.Form, text: str, nothing: str
) -> None:
    machine = Parser(
        form, in_reasoning=False, has_tools=True, call_id=lambda: "call_1", functions={"clock": {}}
    )
    events = [*machine.push(text % nothing), *machine.finish(FinishReason.STOP)]
    assert events == [
        ToolBegin(0, "call_1", "clock"), ToolArguments(0, "{}"), ToolEnd(0), Finished("tool_calls"),
    ]  # fmt: skip
