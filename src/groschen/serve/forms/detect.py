"""Which form a model has: read off its chat template, which is what it was trained on.

Two questions: does the template show the tools of a request to the model, and which markers does it write
calls and reasoning with. Leaves out guessing from a model's name.
"""

import hashlib
import re
from dataclasses import replace

import jinja2

from groschen.serve.forms import form as forms
from groschen.serve.forms.form import Form
from groschen.text.bundle import Text

# The first pattern that a template holds decides. In a template a line break may be written as \n.
_PATTERNS: tuple[tuple[str, Form], ...] = (
    (r"<｜tool▁call▁begin｜>[^\n]*?```json|<｜tool▁call▁begin｜>function<｜tool▁sep｜>", forms.DEEPSEEK),
    (r"<｜tool▁call▁begin｜>", forms.DEEPSEEK_V3_1),
    (r"\[TOOL_CALLS\]\[|\[TOOL_CALLS\]\s*['\"]\s*\+?\s*\[", forms.MISTRAL),
    (r"\[TOOL_CALLS\]", forms.MISTRAL_V11),
    (r"<start_function_call>", forms.FUNCTION_GEMMA),
    (r"<\|tool_call>", forms.GEMMA_4),
    (r"```tool_c(?:ode|all)", forms.GEMMA),
    (r"(?s)<tool_call>(?:\\n|\s)*<function=.*<parameter=", forms.QWEN_CODER),
    # The marker and the object may be parts of two strings, with }}{{ between them.
    (r"<tool_call>(?:\\n|[\s\"'}]|\{\{-?)*\{\\?\"(?:name|arguments)\\?\"", forms.HERMES),
    (r"<\|tool_(?:call|list)_start\|>", forms.LISTED),
    (r"<\|python_tag\|>|\{\\?\"name\\?\": function name, \\?\"parameters\\?\"", forms.LLAMA),
)
_GEMMA_TURN = "<start_of_turn>"  # of a template without tools
_REASONING = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)


def form_of(text: Text) -> Form:
    """The form of a model; `none` without a chat template."""
    sources = text.template.sources if text.template is not None else {}
    return form_of_template(sources.get("tool_use", sources.get("default", "")))


def form_of_template(source: str) -> Form:
    """The form that a chat template's source shows.

    Where it knows no tools, its markers are still read, but `can_call_tools` is False. Tags of reasoning that
    a template does not name are `<think>`, which is what a model learns here; a Gemma has none.
    """
    form = next((form for pattern, form in _PATTERNS if re.search(pattern, source)), forms.NONE)
    tags = next((tags for tags in _REASONING if any(tag in source for tag in tags)), None)
    if tags is not None:
        form = replace(form, reasoning_open=tags[0], reasoning_close=tags[1])
    elif form is forms.NONE and _GEMMA_TURN in source:
        form = replace(form, reasoning_open="", reasoning_close="")
    return replace(form, shows_tools=_reads(source, "tools"))


def prompt_opens_reasoning(prompt: str, form: Form) -> bool:
    """Whether the rendered prompt leaves off inside the reasoning: an open tag is the last of it."""
    return form.reasoning_open != "" and prompt.rstrip(" \n").endswith(form.reasoning_open.rstrip("\n"))


def id_for_template(call_id: str, form: Form) -> str:
    """The id of a call as the model's template takes it: the same each time, of the length it asks for."""
    if form.id_length is None or (call_id.isalnum() and len(call_id) == form.id_length):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[: form.id_length]


def _reads(source: str, variable: str) -> bool:
    """Whether a template names a variable; text that happens to hold the word does not count."""
    tokens = jinja2.Environment(autoescape=True).lex(source)
    previous = ""
    for _, kind, value in tokens:
        if kind == "name" and value == variable and previous != ".":
            return True
        if kind != "whitespace":
            previous = value
    return False
