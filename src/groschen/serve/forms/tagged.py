"""Calls written with tags: `<function=NAME>` and then JSON (Llama) or `<parameter=KEY>` tags (Qwen3-Coder).

What stands in a parameter tag has no type, so the tool's schema says which it is. Leaves out escapes: these
families have none, and a value ends at the first `</parameter>`.
"""

import json
from collections.abc import Mapping

from groschen.serve.forms.calls import Calls
from groschen.serve.forms.cursor import Malformed, Reading
from groschen.serve.forms.json_text import kind_of

FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"
_WORDS = {"True": "true", "False": "false", "None": "null"}  # as templates write them with Python's str
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def read_tagged(calls: Calls, opener: str, wrapper: str) -> Reading[None]:
    """One call, from what follows `opener`: the wrapper's begin tag or `<function=`.

    wrapper: the tag that closes around the call; it may be missing.
    """
    cursor = calls.cursor
    if opener != FUNCTION:
        yield from cursor.skip()
        yield from cursor.literal(FUNCTION)
    name = yield from cursor.name()
    calls.check(name)
    yield from cursor.literal(">")
    yield from cursor.skip()
    if (yield from cursor.peek()) == "{":
        yield from calls.streamed(name, FUNCTION_END)
        yield from cursor.closing(FUNCTION_END)
    else:
        yield from _read_parameters(calls, name)
    if wrapper:
        yield from cursor.closing(wrapper)


def _read_parameters(calls: Calls, name: str) -> Reading[None]:
    cursor = calls.cursor
    arguments: dict[str, str] = {}
    while True:
        yield from cursor.skip()
        tag = yield from cursor.match((PARAMETER, FUNCTION_END))
        if tag == FUNCTION_END:
            break
        key = (yield from cursor.name()) if tag else ""
        if not key or key in arguments:
            raise Malformed
        yield from cursor.literal(">")
        text = (yield from cursor.until(PARAMETER_END)).removeprefix("\n").removesuffix("\n")
        arguments[key] = typed(text, _kinds_of(calls.schema(name), key))
    members = ", ".join(f"{json.dumps(key)}: {value}" for key, value in arguments.items())
    calls.whole(name, f"{{{members}}}")


def typed(text: str, kinds: frozenset[str]) -> str:
    """The JSON that a parameter's text stands for, where its schema takes values of these types.

    Text that is none of them is a string: what the model wrote is not lost, and the caller can refuse it.
    """
    value = _WORDS.get(text.strip(), text.strip())
    kind = kind_of(value) if kinds and kinds != {"string"} else None
    fits = kind in kinds or (kind == "integer" and "number" in kinds)
    return value if fits and kind != "string" else json.dumps(text, ensure_ascii=False)


def _kinds_of(schema: Mapping[str, object], key: str) -> frozenset[str]:
    properties = schema.get("properties")
    return kinds_of(properties.get(key), schema) if isinstance(properties, Mapping) else frozenset()


def kinds_of(schema: object, root: Mapping[str, object], depth: int = 0) -> frozenset[str]:
    """The JSON types that a schema takes; empty if it does not say. root: what its references point into."""
    if not isinstance(schema, Mapping) or depth > 8:
        return frozenset()
    reference, declared = schema.get("$ref"), schema.get("type")
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(reference, str):
        return kinds_of(_resolved(reference, root), root, depth + 1)
    if isinstance(declared, str):
        return frozenset({declared})
    if isinstance(declared, list):
        return frozenset(kind for kind in declared if isinstance(kind, str))
    if isinstance(listed, list):
        return frozenset("null" if value is None else _KINDS[type(value)] for value in listed)
    choices = schema.get("anyOf", schema.get("oneOf"))
    if not isinstance(choices, list):
        return frozenset()
    kinds = [kinds_of(choice, root, depth + 1) for choice in choices]
    return frozenset().union(*kinds) if all(kinds) else frozenset()


def _resolved(reference: str, root: Mapping[str, object]) -> object:
    """What `#/$defs/Name` points to; None if it is not there."""
    found: object = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
