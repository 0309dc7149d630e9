"""The grammar of calls that are forced: what `tool_choice` "required" or a named tool lets a model write.

llguidance's dialect of Lark, with `%json {schema}` for arguments. Every text of such a grammar is one that
the form's reader takes, as a call that its schema allows. Leaves out compiling it and the reasoning before
it (`grammar.py`, `guides.py`), and in notations other than JSON any `<` inside a text.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from groschen.errors import BadRequest, Unsupported
from groschen.serve.forms.calls import Functions
from groschen.serve.forms.form import Form, Notation, Written
from groschen.serve.forms.tagged import PARAMETER, PARAMETER_END, kinds_of

Schema = Mapping[str, object]
_ONE_WAY = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_SHARED = ("$defs", "definitions")  # what the schema of one parameter may point to
_REMARKS = {"type", "title", "description", "default", "examples", *_SHARED}  # of a text: they limit nothing
_COMPOSED = {"$ref", "allOf", "anyOf", "oneOf"}  # of other schemas, which may name more properties
_KEYS: dict[Notation, str] = {
    "parameters": r"[\w.:/-]+",
    "keywords": r"[^\W\d]\w*",
    "pairs": r"[^\W\d][\w.-]*",
}
_BETWEEN: dict[Notation, str] = {"parameters": "", "keywords": ", ", "pairs": ","}


def tool_choice_grammar(
    form: Form,
    functions: Functions,
    choice: str,
    *,
    parallel: bool,
    control: Mapping[str, int] | None = None,
) -> str:
    """A Lark grammar of valid calls and nothing else; its first rule is `start`.

    functions: the tools by name, with the JSON schema of their parameters. choice: "required", or the name of
    one. parallel: more than one call may follow. control: text to id of the tokens that the vocabulary sets
    apart (`Tokenizer.control`); where a marker is one, only that token will do. Raises BadRequest for a name
    or schema that can't be used, Unsupported for a form without calls and for what its notation can't force.
    """
    written = form.written
    if written is None or not form.can_call_tools:
        raise Unsupported(
            "this model's chat template knows no tools, so no call can be forced; leave out tool_choice"
        )
    if choice != "required" and choice not in functions:
        raise BadRequest(
            f"tool_choice names {choice!r}, which is not among the tools; give its definition too"
        )
    names = sorted(functions) if choice == "required" else [choice]
    if not names:
        raise BadRequest('tool_choice is "required" and there are no tools; give at least one')
    rules = _Rules(written, control or {})
    more = f"({rules.text(written.between)} call)*" if parallel else ""
    start = [rules.text(written.begin), "call", more, rules.text(written.end)]
    lines = [
        "start: " + " ".join(part for part in start if part),
        "call: " + " | ".join(f"call_{index}" for index in range(len(names))),
    ]
    for index, name in enumerate(names):
        lines += rules.call(index, name, _object_schema(name, functions[name]))
    return "\n".join(lines) + "\n"


class _Rules:
    """The rules of one grammar."""

    def __init__(self, written: Written, control: Mapping[str, int]) -> None:
        self._written = written
        self._control = control
        longest_first = sorted(control, key=len, reverse=True)
        self._apart = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if control else None

    def text(self, text: str) -> str:
        """Exactly this text, its control tokens by their ids; "" for none."""
        parts = self._apart.split(text) if self._apart else [text]
        ids = self._control
        return " ".join(f"<[{ids[part]}]>" if part in ids else _quoted(part) for part in parts if part)

    def call(self, index: int, name: str, schema: Schema) -> Iterator[str]:
        """The rules of one tool's call."""
        written = self._written
        before, after = self.text(f"{written.before}{name}{written.middle}"), self.text(written.after)
        yield f"call_{index}: {before} arguments_{index} {after}"
        if written.notation == "json":
            yield f"arguments_{index}: {_json(schema)}"
        else:
            yield from self._members(index, name, schema)

    def _members(self, index: int, name: str, schema: Schema) -> Iterator[str]:
        """Arguments one by one, in the schema's order: those that are required, and any of the others."""
        properties, required = schema.get("properties"), schema.get("required", [])
        if not isinstance(properties, Mapping):
            raise Unsupported(
                f"the parameters of the tool {name!r} are no list of properties, and this model's notation "
                "can be forced to nothing else; give them as properties"
            )
        if not isinstance(required, list) or not all(isinstance(each, str) for each in required):
            raise BadRequest(
                f"'required' of the tool {name!r} is no list of names; give one, or leave it out"
            )
        if missing := sorted(set(required) - set(properties)):
            raise BadRequest(f"the tool {name!r} requires {missing[0]!r}, which is not among its properties")
        shared = {key: schema[key] for key in _SHARED if key in schema}
        rules = []
        for place, (key, value) in enumerate(properties.items()):
            if not re.fullmatch(_KEYS[self._written.notation], key):
                raise Unsupported(
                    f"the parameter {key!r} of the tool {name!r} can't be written in this model's notation; "
                    "rename it to letters, digits and underscores"
                )
            rule = f"member_{index}_{place}"
            rules.append((rule, key in required))
            one = {**value, **shared} if isinstance(value, Mapping) else {}
            yield f"{rule}: {self._member(key, one)}"
        yield f"arguments_{index}: {_joined(rules, _BETWEEN[self._written.notation])}"

    def _member(self, key: str, schema: Schema) -> str:
        if self._written.notation == "parameters":
            return f"{self.text(f'{PARAMETER}{key}>')} {self._tagged(key, schema)}"
        begin = self.text(key + ("=" if self._written.notation == "keywords" else ":"))
        if (
            self._written.notation == "pairs"
            and schema.get("type") == "string"
            and not set(schema) - _REMARKS
        ):
            mark = self.text(self._written.mark)
            return f"{begin} {mark} /[^<]*/ {mark}"
        return f"{begin} {_json(schema)}"

    def _tagged(self, key: str, schema: Schema) -> str:
        """A value between parameter tags: a text as it is, anything else as JSON."""
        close = _quoted(f"\n{PARAMETER_END}\n")
        choices = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(choices, list):
            plain = [choice if isinstance(choice, str) else json.dumps(choice) for choice in choices]
            return rf'"\n" ({" | ".join(self.text(each) or _quoted(each) for each in plain)}) {close}'
        kinds = kinds_of(schema, schema)
        if kinds and "string" not in kinds:
            return rf'"\n" {_json(schema)} {close}'
        if "pattern" in schema:
            raise Unsupported(
                f"the parameter {key!r} has a pattern, which can't be forced in this model's notation; "
                "leave out the pattern"
            )
        # One terminal: a text of its own would swallow the newline that ends it.
        least, most = schema.get("minLength", 0), schema.get("maxLength", "")
        return rf'"\n" /[^<]{{{least},{most}}}\n<\/parameter>\n/'


def _joined(rules: Sequence[tuple[str, bool]], between: str) -> str:
    """Rules in a row, with `between` them: those that are needed, and any of the others."""
    if not between:
        return " ".join(rule if is_needed else f"{rule}?" for rule, is_needed in rules) or '""'
    ways = []  # one for each member that may be the first; those that follow bring their comma along
    for place, (first, is_needed) in enumerate(rules):
        others = rules[place + 1 :]
        tail = [f"({_quoted(between)} {rule})" + ("" if needed else "?") for rule, needed in others]
        ways.append(" ".join([first, *tail]))
        if is_needed:
            return " | ".join(ways)
    return " | ".join([*ways, '""'])


def _object_schema(name: str, schema: Schema) -> Schema:
    """The schema of a tool's parameters: an object of what it names, unless it allows more."""
    kind = schema.get("type", "object")
    if kind != "object":
        raise BadRequest(
            f"the parameters of the tool {name!r} are of type {kind!r}; they have to be an object"
        )
    if _COMPOSED & set(schema):
        return {**schema, "type": "object"}
    return {"additionalProperties": False, "properties": {}, **schema, "type": "object"}


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _json(schema: Schema) -> str:
    """One spelling of JSON only: free white space would let a model write it without end."""
    return f"%json {json.dumps({**schema, 'x-guidance': _ONE_WAY}, ensure_ascii=False)}"
