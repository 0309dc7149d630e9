"""How each family's block of calls is read, from what follows the marker that opened it.

Each function is a reading: it reports calls as it finds them, and raises Malformed at the first character
that does not fit. Leaves out which marker opens a block, and how calls would be written (`form.py`).
"""

from collections.abc import Callable

from groschen.serve.forms.calls import Calls
from groschen.serve.forms.cursor import Cursor, Malformed, Reading, T
from groschen.serve.forms.literals import Call, Unfinished, gemma_arguments, python_calls
from groschen.serve.forms.objects import read_calls
from groschen.serve.forms.tagged import FUNCTION, read_tagged

Reader = Callable[[Calls, str], Reading[None]]

TOOL_CALL, TOOL_CALL_END = "<tool_call>", "</tool_call>"
PYTHON_TAG, END_OF_MESSAGE = "<|python_tag|>", "<|eom_id|>"
CALLS, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, CALL_END, SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
TOOL_CALLS, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
JSON_FENCE = "```json"
FENCE, TOOL_CODE, TOOL_CALL_FENCE = "```", "```tool_code", "```tool_call"
FUNCTION_CALL, FUNCTION_CALL_END, ESCAPE = "<start_function_call>", "<end_function_call>", "<escape>"
GEMMA_CALL, GEMMA_CALL_END, GEMMA_QUOTE = "<|tool_call>", "<tool_call|>", '<|"|>'
LIST_CALLS, LIST_CALLS_END = "<|tool_call_start|>", "<|tool_call_end|>"

_MOST_MARKERS = 100  # closing markers inside the strings of one call: the text is read again after each


def read_tool_call(calls: Calls, opener: str) -> Reading[None]:
    """`{"name": "f", "arguments": {...}}` up to `</tool_call>` (Hermes, Qwen), or
    `<function=f><parameter=key>value</parameter></function>` (Qwen3-Coder), whose wrapper may be missing.
    """
    cursor = calls.cursor
    if opener == TOOL_CALL:
        yield from cursor.skip()
        if (yield from cursor.peek()) != "<":
            yield from read_calls(calls, TOOL_CALL_END)
            yield from cursor.closing(TOOL_CALL_END)
            return
    yield from read_tagged(calls, opener, TOOL_CALL_END)


def read_bare(calls: Calls, opener: str) -> Reading[None]:
    """`{"name": "f", "arguments": {...}}` without a marker, alone or in a fence: what small models write
    instead of the form that their template shows.
    """
    yield from read_calls(calls, "")
    if opener == JSON_FENCE:
        yield from calls.cursor.closing(FENCE)


def read_llama(calls: Calls, opener: str) -> Reading[None]:
    """`{"name": "f", "parameters": {...}}`, more of them after `;`, or `<function=f>{...}</function>`."""
    if opener == FUNCTION:
        yield from read_tagged(calls, opener, "")
    else:
        yield from read_calls(calls, END_OF_MESSAGE)


def read_deepseek(calls: Calls, opener: str) -> Reading[None]:
    """`function<sep>f` and fenced JSON (V3, R1), or `f<sep>{...}` (V3.1), each between call markers."""
    cursor = calls.cursor
    if opener == CALLS:
        yield from cursor.skip()
        yield from cursor.literal(CALL)
    marker = CALL
    while marker == CALL:
        yield from _read_deepseek_call(calls)
        marker = yield from cursor.marker_after_space((CALL, CALLS_END))
    cursor.drop()


def _read_deepseek_call(calls: Calls) -> Reading[None]:
    cursor = calls.cursor
    name = yield from cursor.name()
    yield from cursor.literal(SEPARATOR)
    yield from cursor.skip()
    is_fenced = (yield from cursor.peek()) not in '{"<'
    if is_fenced:  # what stood before the separator was the type, which is always "function"
        name = yield from cursor.name()
        yield from cursor.skip()
        yield from cursor.literal("```json")
        yield from cursor.skip()
    yield from calls.streamed(name, CALL_END)
    if is_fenced:
        yield from cursor.closing(FENCE)
    yield from cursor.closing(CALL_END)


def read_mistral(calls: Calls, _: str) -> Reading[None]:
    """`[{"name": "f", "arguments": {...}}]`, or since v11 `f[ARGS]{...}`."""
    cursor = calls.cursor
    yield from cursor.skip()
    if (yield from cursor.peek()) in "[{":
        yield from read_calls(calls, TOOL_CALLS)
        return
    name = yield from cursor.name()
    if (yield from cursor.match((ARGS, CALL_ID))) == CALL_ID:
        yield from cursor.name()
        yield from cursor.literal(ARGS)
    yield from cursor.skip()
    yield from calls.streamed(name, TOOL_CALLS)


def read_function_gemma(calls: Calls, _: str) -> Reading[None]:
    """`call:f{key:<escape>text<escape>}` up to `<end_function_call>`: FunctionGemma."""
    yield from _read_gemma(calls, FUNCTION_CALL_END, ESCAPE)


def read_gemma_4(calls: Calls, _: str) -> Reading[None]:
    """`call:f{key:<|"|>text<|"|>}` up to `<tool_call|>`: Gemma 4."""
    yield from _read_gemma(calls, GEMMA_CALL_END, GEMMA_QUOTE)


def _read_gemma(calls: Calls, close: str, mark: str) -> Reading[None]:
    cursor = calls.cursor
    yield from cursor.literal("call:")
    name = yield from cursor.name()
    calls.check(name)
    arguments = yield from _read_body(cursor, close, lambda text: gemma_arguments(text, mark))
    calls.whole(name, arguments)


def read_gemma(calls: Calls, _: str) -> Reading[None]:
    """`f(key="text")` in a fence: Gemma 1 to 3."""
    yield from _read_python(calls, FENCE)


def read_listed(calls: Calls, _: str) -> Reading[None]:
    """`[f(key="text")]` up to the end marker: LFM2."""
    yield from _read_python(calls, LIST_CALLS_END)


def _read_python(calls: Calls, close: str) -> Reading[None]:
    found = yield from _read_body(calls.cursor, close, lambda text: _known(calls, python_calls(text)))
    for name, arguments in found:
        calls.whole(name, arguments)


def _known(calls: Calls, found: list[Call]) -> list[Call]:
    """The calls under the names of the tools; models of Google put `default_api.` before them."""
    named = [
        call if calls.knows(call.name) else call._replace(name=call.name.removeprefix("default_api."))
        for call in found
    ]
    for call in named:
        calls.check(call.name)
    return named


def _read_body(cursor: Cursor, close: str, parse: Callable[[str], T]) -> Reading[T]:
    """What the text up to a closing marker means; a marker inside a string does not close."""
    body = ""
    for _ in range(_MOST_MARKERS):
        body += yield from cursor.until(close)
        try:
            return parse(body)
        except Unfinished:
            body += close
    raise Malformed
