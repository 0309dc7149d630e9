"""Whether a JSON Schema can be checked with: asked when a task is read, so that no answer meets a broken one.

Draft 2020-12 unless the schema says another. Leaves out fetching (a schema refers to its own parts only) and
the checks themselves, which run in a worker, because a schema's patterns are regular expressions
(pattern_worker.py).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from groschen.errors import BadRequest
from groschen.tasks.formats import FORMATS

MAX_DEPTH = 60  # schemas inside each other: jsonschema takes some ten frames for each
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_VALUES = frozenset(
    ("enum", "const", "default", "examples", "required", "dependentRequired")
)  # no schemas in them
_BY_NAME = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
# Keywords whose schemas are asked about the same value: a reference that leads back through these has no end.
_SAME_VALUE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else")


def checked_schema(schema: object) -> Mapping[str, object] | bool:
    """The schema as it is. Raises BadRequest with what stands in the way of checking answers with it."""
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, Mapping):
        raise BadRequest(f"the schema is {schema!r:.200}; expected an object, true or false")
    if _depth(schema) > 2 * MAX_DEPTH:
        raise BadRequest(f"the schema has more than {MAX_DEPTH} schemas inside each other")
    draft = schema.get("$schema", "")
    if not isinstance(draft, str) or (draft and validator_for({"$schema": draft}, default=None) is None):
        raise BadRequest(
            f'the schema has the "$schema" {draft!r}; expected '
            '"https://json-schema.org/draft/2020-12/schema", an earlier draft, or none'
        )
    plain = cast("dict[str, Any]", schema)  # as jsonschema types it
    try:
        validator_for(plain, default=Draft202012Validator).check_schema(plain)
    except SchemaError as error:
        raise BadRequest(f"the schema is no JSON Schema: {error.json_path}: {error.message}") from error
    except RecursionError as error:
        raise BadRequest("the schema has too many schemas inside each other") from error
    done: set[str] = set()
    for part in _parts(schema):
        _check_part(part)
        _follow(part, schema, (), done)
    return schema


def _check_part(part: Mapping[str, object]) -> None:
    name = part.get("format")
    if isinstance(name, str) and name not in FORMATS:
        raise BadRequest(
            f"the schema has the format {name!r}, which is not checked here; known are "
            f"{', '.join(sorted(FORMATS))}; use a pattern, or remove it"
        )
    for key in ("pattern", "patternProperties"):
        patterns = part.get(key, {})
        for pattern in (patterns,) if isinstance(patterns, str) else cast("Mapping[str, object]", patterns):
            try:
                re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                raise BadRequest(
                    f"the schema has {pattern!r}, which is no regular expression: {error}"
                ) from error


def _follow(part: object, schema: Mapping[str, object], passed: tuple[str, ...], done: set[str]) -> None:
    """Look up what is asked about the same value as this part. Raises BadRequest where that has no end."""
    if not isinstance(part, Mapping):
        return
    for key in _REFERENCES:
        reference = part.get(key)
        if not isinstance(reference, str):
            continue
        if reference in passed:
            raise BadRequest(f"the schema refers to {reference!r} in a circle that no value can leave")
        if reference not in done:
            _follow(_looked_up(reference, schema), schema, (*passed, reference), done)
            done.add(reference)
    if not passed:
        return  # a circle has a reference in it, and each reference is where some part begins
    for key in _SAME_VALUE:
        inside = part.get(key, ())
        for one in inside if isinstance(inside, list) else (inside,):
            _follow(one, schema, passed, done)


def _looked_up(reference: str, schema: Mapping[str, object]) -> object:
    if not reference.startswith("#"):
        raise BadRequest(f"the schema refers to {reference!r}; only its own parts (#/...) are looked up")
    resource = Resource.from_contents(cast("Any", schema), default_specification=DRAFT202012)
    try:
        return Registry().resolver_with_root(resource).lookup(reference).contents
    except Unresolvable as error:
        raise BadRequest(f"the schema refers to {reference!r}, and has no such part") from error


def _parts(schema: object) -> Iterator[Mapping[str, object]]:
    """Every schema in a schema, itself first."""
    if isinstance(schema, list):
        for one in schema:
            yield from _parts(one)
    if not isinstance(schema, Mapping):
        return
    yield schema
    for key, value in schema.items():
        if key in _BY_NAME and isinstance(value, Mapping):
            for one in value.values():
                yield from _parts(one)
        elif key not in _VALUES:
            yield from _parts(value)


def _depth(value: object) -> int:
    """How many objects and lists stand inside each other, without recursion: it may be thousands."""
    level, depth = [value], 0
    while level := [
        one
        for item in level
        if isinstance(item, Mapping | list)
        for one in (item.values() if isinstance(item, Mapping) else item)
    ]:
        depth += 1
    return depth
