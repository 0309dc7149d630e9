"""The fields that say what form an answer must have: OpenAI's `response_format` and vLLM's names for more.

Leaves out how a form is enforced (`grammar.py`).
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from groschen.serve import faults
from groschen.serve.fields import Strict
from groschen.serve.guides import Format, Grammar, JsonObject, JsonSchema, Regex
from groschen.serve.sampling_fields import SamplingFields

Schema = dict[str, Any]


class TextFormat(Strict, tag_field="type", tag="text"):
    """Any text."""


class JsonObjectFormat(Strict, tag_field="type", tag="json_object"):
    """Any JSON object."""


class NamedSchema(Strict):
    """A JSON schema with OpenAI's fields around it. It is always enforced, whatever `strict` says."""

    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    schema: Schema | None = None
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(Strict, tag_field="type", tag="json_schema"):
    """JSON that a schema describes."""

    json_schema: NamedSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StructuredOutputs(Strict):
    """vLLM's one field for all forms; exactly one of them."""

    json: Schema | str | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class GuidedFields(SamplingFields, kw_only=True):
    """Forms beyond OpenAI's, under vLLM's names."""

    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None


def format_of(response_format: ResponseFormat | None, fields: GuidedFields) -> Format | None:
    """The one form that is asked for. Raises ApiFault for several, or for one that says nothing."""
    found: list[tuple[str, Format]] = []
    match response_format:
        case JsonObjectFormat():
            found.append(("response_format", JsonObject()))
        case JsonSchemaFormat(json_schema=named):
            found.append(
                ("response_format", format_of_schema(named.schema, "response_format.json_schema.schema"))
            )
    found += _guided(
        "guided_", fields.guided_json, fields.guided_regex, fields.guided_choice, fields.guided_grammar
    )
    if (outputs := fields.structured_outputs) is not None:
        inner = _guided("structured_outputs.", outputs.json, outputs.regex, outputs.choice, outputs.grammar)
        if outputs.json_object:
            inner.append(("structured_outputs.json_object", JsonObject()))
        if not inner:
            raise faults.invalid(
                "'structured_outputs' asks for nothing; give it one form", "structured_outputs"
            )
        found += inner
    if len(found) > 1:
        names = " and ".join(f"'{name}'" for name, _ in found)
        raise faults.invalid(f"{names} each ask for a form; send one of them", found[1][0])
    return found[0][1] if found else None


def format_of_schema(schema: Schema | None, param: str) -> Format:
    """The form that a JSON schema asks for; param: the field that holds it. Raises ApiFault if it lacks."""
    if schema is None:
        raise faults.invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    return JsonSchema(schema, param)


def _guided(
    prefix: str,
    json: Schema | str | None,
    regex: str | None,
    choice: Sequence[str] | None,
    grammar: str | None,
) -> list[tuple[str, Format]]:
    found: list[tuple[str, Format]] = []
    if json is not None:
        found.append((f"{prefix}json", JsonSchema(_schema(json, f"{prefix}json"), f"{prefix}json")))
    if regex is not None:
        found.append((f"{prefix}regex", Regex(regex, f"{prefix}regex")))
    if choice is not None:
        if not choice:
            raise faults.invalid(f"'{prefix}choice' is empty; give at least one text", f"{prefix}choice")
        found.append((f"{prefix}choice", Regex("|".join(map(re.escape, choice)), f"{prefix}choice")))
    if grammar is not None:
        found.append((f"{prefix}grammar", Grammar(grammar, f"{prefix}grammar")))
    return found


def _schema(given: Schema | str, param: str) -> Schema:
    if not isinstance(given, str):
        return given
    try:
        return msgspec.json.decode(given, type=Schema)
    except (msgspec.DecodeError, RecursionError) as error:
        raise faults.invalid(f"'{param}' is not the JSON of a schema: {error}", param) from error
