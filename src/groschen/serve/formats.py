"""The fields that say what form an answer must have: OpenAI's `response_format` and vLLM's names for more.

Leaves out how a form is enforced (`grammar.py`).
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from groschen.serve import faults
from groschen.serve.fields import SCHEMA_NAME, Strict
from groschen.serve.grammar import Grammar, JsonObject, JsonSchema, Regex
from groschen.serve.guides import FormatAsk
from groschen.serve.sampling_fields import SamplingFields

Schema = dict[str, Any]


class TextFormat(Strict, tag_field="type", tag="text"):
    """Any text."""


class JsonObjectFormat(Strict, tag_field="type", tag="json_object"):
    """Any JSON object."""


class NamedSchema(Strict):
    """A JSON schema with OpenAI's fields around it. It is always enforced, whatever `strict` says."""

    name: Annotated[str, Meta(pattern=SCHEMA_NAME)]
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


def format_of(response_format: ResponseFormat | None, fields: GuidedFields) -> FormatAsk | None:
    """The one form that is asked for. Raises ApiFault for several, or for one that says nothing."""
    found: list[FormatAsk] = []
    match response_format:
        case JsonObjectFormat():
            found.append(FormatAsk(JsonObject(), "response_format"))
        case JsonSchemaFormat(json_schema=named):
            found.append(_named(named, "response_format.json_schema.schema"))
    found += _guided(
        "guided_", fields.guided_json, fields.guided_regex, fields.guided_choice, fields.guided_grammar
    )
    if (outputs := fields.structured_outputs) is not None:
        inner = _guided("structured_outputs.", outputs.json, outputs.regex, outputs.choice, outputs.grammar)
        if outputs.json_object:
            inner.append(FormatAsk(JsonObject(), "structured_outputs.json_object"))
        if not inner:
            raise faults.invalid(
                "'structured_outputs' asks for nothing; give it one form", "structured_outputs"
            )
        found += inner
    if len(found) > 1:
        names = " and ".join(f"'{each.param}'" for each in found)
        raise faults.invalid(f"{names} each ask for a form; send one of them", found[1].param)
    return found[0] if found else None


def _named(named: NamedSchema, param: str) -> FormatAsk:
    if named.schema is None:
        raise faults.invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    return FormatAsk(JsonSchema(named.schema), param)


def _guided(
    prefix: str,
    json: Schema | str | None,
    regex: str | None,
    choice: Sequence[str] | None,
    grammar: str | None,
) -> list[FormatAsk]:
    found: list[FormatAsk] = []
    if json is not None:
        found.append(FormatAsk(JsonSchema(_schema(json, f"{prefix}json")), f"{prefix}json"))
    if regex is not None:
        found.append(FormatAsk(Regex(regex), f"{prefix}regex"))
    if choice is not None:
        if not choice:
            raise faults.invalid(f"'{prefix}choice' is empty; give at least one text", f"{prefix}choice")
        found.append(FormatAsk(Regex("|".join(map(re.escape, choice))), f"{prefix}choice"))
    if grammar is not None:
        found.append(FormatAsk(Grammar(grammar), f"{prefix}grammar"))
    return found


def _schema(given: Schema | str, param: str) -> Schema:
    if not isinstance(given, str):
        return given
    try:
        return msgspec.json.decode(given, type=Schema)
    except (msgspec.DecodeError, RecursionError) as error:
        raise faults.invalid(f"'{param}' is not the JSON of a schema: {error}", param) from error
