"""Calls written as JSON objects with a name and arguments: `{"name": "f", "arguments": {...}}`.

Members may come in either order, and the arguments may be a JSON string that holds the object. A tool that
needs no arguments may be called without them: left out, null or an empty string. Leaves out the markers
around the objects, which differ by family.
"""

from groschen.serve.forms.calls import Calls
from groschen.serve.forms.cursor import SPACE, Cursor, Malformed, Reading
from groschen.serve.forms.json_text import JsonObject, read_object, read_string

_ARGUMENTS = ("arguments", "parameters")
_PASSED_OVER = ("id", "type")  # strings that some families add; the ids that clients see are ours
_KEYS = ("name", *_ARGUMENTS, *_PASSED_OVER)
_LONGEST_KEY = 256  # characters: longer strings are neither keys nor names


def read_calls(calls: Calls, close: str) -> Reading[None]:
    """One call or several, in a list or side by side, with `,` or `;` or space between them.

    close: what ends the block in this form; broken arguments are given out up to there.
    """
    cursor = calls.cursor
    yield from cursor.skip()
    is_list = yield from cursor.match("[")
    while True:
        yield from cursor.skip()
        yield from _read_call(calls, close)
        yield from cursor.skip()
        if not (yield from cursor.match(",;")) and (yield from cursor.peek()) != "{":
            break
    if is_list:
        yield from cursor.literal("]")
        cursor.drop()
    cursor.rewind()


def _read_call(calls: Calls, close: str) -> Reading[None]:
    cursor = calls.cursor
    name = arguments = None
    has_arguments = False
    yield from cursor.literal("{")
    while True:
        key = yield from _read_key(cursor)
        if key == "name" and name is None:
            name = yield from read_string(cursor, _LONGEST_KEY)
            calls.check(name)
        elif key in _ARGUMENTS and not has_arguments:
            has_arguments = True
            if name is not None and (yield from cursor.peek()) == "{":
                calls.begin(name)
                if not (yield from calls.stream(close)):
                    calls.end(is_complete=False)
                    return
            else:
                arguments = yield from _read_arguments(cursor)
        elif key in _PASSED_OVER:
            yield from read_string(cursor, _LONGEST_KEY)
        else:  # a second time
            raise Malformed
        if name is not None and arguments is not None:
            arguments = arguments or calls.no_arguments(name)
            calls.begin(name)
            calls.add(arguments)
            calls.has_arguments, arguments = True, None
        yield from cursor.skip()
        if not (yield from cursor.match(",")):
            break
    if name is not None and not has_arguments:
        yield from cursor.literal("}")
        calls.whole(name, calls.no_arguments(name))
        return
    if not calls.is_open:
        raise Malformed
    if not (yield from cursor.stands(close)):  # a brace that is missing before the marker is forgiven
        yield from cursor.literal("}")
    calls.end()


def _read_key(cursor: Cursor) -> Reading[str]:
    """The key of a member, up to where its value begins."""
    yield from cursor.skip()
    key = yield from read_string(cursor, _LONGEST_KEY)
    if key not in _KEYS:
        raise Malformed
    yield from cursor.skip()
    yield from cursor.literal(":")
    yield from cursor.skip()
    return key


def _read_arguments(cursor: Cursor) -> Reading[str]:
    """Arguments that can't go out yet, as JSON text; "" where they say nothing."""
    if (yield from cursor.peek()) == "{":
        return (yield from read_object(cursor))
    if (yield from cursor.match(("null",))):
        return ""
    text = (yield from read_string(cursor)).strip(SPACE)
    if text in ("", "null"):
        return ""
    scanned = JsonObject()
    if scanned.take(text, 0) != len(text) or not scanned.is_whole:
        raise Malformed
    return text
