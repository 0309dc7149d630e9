"""Answers in JSON: of a given shape, and with the reference's values in the fields that count.

Strict about JSON: a key twice in one object, NaN and Infinity are refused. The shape is a JSON Schema (draft
2020-12 unless it says another), checked by the package jsonschema in a worker, because a schema's patterns
are regular expressions. Leaves out fetching: a schema refers to its own parts only.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator, validator_for

from groschen.errors import BadRequest
from groschen.records import Problem, Verdict
from groschen.tasks.judging import InSlot
from groschen.tasks.patterns import WORKER
from groschen.tasks.slots import Slot, after_thinking, fill, last_fence
from groschen.tasks.workers import Broke, Refused, TookTooLong, workers_of

MAX_LENGTH = 200_000  # characters of an answer
MAX_DEPTH = 60  # values inside each other
_MAX_STARTS = 50  # brackets from which a value is looked for in running text
_LANGUAGES = frozenset(("json", ""))


@dataclass(frozen=True, kw_only=True)
class Json(InSlot):
    """The answer is JSON that fits the schema and agrees with the reference in the given fields.

    In the slot it may stand in a ``` block, of which the last counts. A field is a name or a path of names
    and positions, "lines.0.total". Numbers are compared by value, 1 and 1.0 alike.
    """

    slot: Slot = Slot.WHOLE
    schema: Mapping[str, object] | bool | None = None
    fields: tuple[str, ...] = ()
    whole: bool = False  # the answer equals the reference altogether
    seconds: float = 2.0  # for one check of the schema

    def __post_init__(self) -> None:
        """Raises BadRequest if the schema is none or refers to what must be fetched, or nothing is asked."""
        super().__post_init__()
        if self.schema is None and not self.fields and not self.whole:
            raise BadRequest(
                "a checker of JSON needs a schema, fields or whole = true: else anything would pass"
            )
        if self.schema is not None:
            _check_schema(self.schema)

    def __call__(self, problem: Problem, text: str) -> Verdict:
        """The verdict as of every kind; with an error if the worker broke."""
        try:
            return super().__call__(problem, text)
        except Broke as broken:
            return Verdict(reward=0.0, passed=False, error=f"the check of the schema broke: {broken}")

    def check(self, problem: Problem) -> None:
        """Raises BadRequest if the reference lacks a field that is compared."""
        for field in self.fields:
            if _at(problem.answer, _path(problem.answer, field)) == ():
                raise BadRequest(
                    f"problem {problem.key!r} has no field {field!r} in its reference {problem.answer!r}"
                )

    def refusal(self, problem: Problem, answer: str) -> str | None:
        """None if the answer is JSON that is right."""
        fenced = last_fence(answer, _LANGUAGES)
        try:
            value = read_json(answer if fenced is None else fenced)
        except ValueError as error:
            return str(error)
        return self._difference(problem, value)

    def lenient(self, problem: Problem, text: str, tried: str | None) -> bool:  # noqa: ARG002
        """Whether some JSON that stands anywhere is right: the last that can be read."""
        value = _last_value(after_thinking(text) or text)
        return value != () and self._difference(problem, value) is None

    def gold_answer(self, problem: Problem) -> str | None:
        """The reference as JSON, if something of it is compared."""
        return json.dumps(problem.answer, ensure_ascii=False) if self.fields or self.whole else None

    def wrong_answers(self, problem: Problem) -> tuple[str, ...]:
        """What is no JSON, a key twice, and the reference with each compared field changed."""
        answers = ["no JSON", '{"a": 1, "a": 2}']
        if self.whole and not self.fields:
            answers.append(json.dumps([problem.answer]))
        if isinstance(problem.answer, Mapping):
            changed = [
                {**problem.answer, field: ["another"]} for field in self.fields if field in problem.answer
            ]
            answers.extend(json.dumps(one, ensure_ascii=False) for one in changed)
        return tuple(answers)

    def wrong(self, problem: Problem) -> tuple[str, ...]:
        """As of every kind, and the right answer cut off before its end."""
        right = self.gold_answer(problem)
        cut = (fill(right[:-1], self.slot),) if right and right[-1] in "]}" else ()
        return (*super().wrong(problem), *cut)

    def _difference(self, problem: Problem, value: object) -> str | None:
        for field in self.fields:
            path = _path(problem.answer, field)
            if not _equal(_at(problem.answer, path), _at(value, path)):
                return f"another value in the field {field!r}"
        if self.whole and not _equal(problem.answer, value):
            return "not the reference"
        if self.schema is None:
            return None
        try:
            why = workers_of(WORKER).ask({"schema": self.schema, "value": value}, self.seconds)
        except (TookTooLong, Refused) as limit:
            return str(limit)
        return None if why is None else str(why)


def read_json(text: str) -> object:
    """The value of a JSON text. Raises ValueError if it is none, has a key twice, or is too long or deep."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"more than {MAX_LENGTH} characters")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if _is_deeper(value, MAX_DEPTH):
        raise ValueError(f"more than {MAX_DEPTH} values inside each other")
    return value


def _is_deeper(value: object, depth: int) -> bool:
    inside = [*value.values()] if isinstance(value, dict) else value
    return isinstance(inside, list) and (depth == 0 or any(_is_deeper(one, depth - 1) for one in inside))


def _last_value(text: str) -> object:
    """The last object or list in running text; () if there is none."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
    start = -1
    found: object = ()
    for _ in range(_MAX_STARTS):
        start = min((at for at in (text.find(sign, start + 1) for sign in "{[") if at >= 0), default=-1)
        if start < 0 or len(text) > MAX_LENGTH:
            break
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        start = end - 1
        found = () if _is_deeper(found, MAX_DEPTH) else found
    return found


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of these pairs. Raises ValueError if a key comes twice: readers disagree which counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice in one object")
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _path(reference: object, field: str) -> Sequence[str]:
    """The names and positions that lead to a field: it is one name where the reference has it as one."""
    return (field,) if isinstance(reference, Mapping) and field in reference else field.split(".")


def _at(value: object, path: Sequence[str]) -> object:
    """What stands at a path of names and positions; () if nothing does, which is no JSON value."""
    for name in path:
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return ()
    return value


def _equal(one: object, other: object) -> bool:
    """Equal as JSON: true is not 1, the order of keys does not count, the order of a list does."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


def _check_schema(schema: Mapping[str, object] | bool) -> None:
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(
            cast("dict[str, Any]", schema)
        )  # as jsonschema types it; true and false are schemas too
    except SchemaError as error:
        raise BadRequest(f"the schema is no JSON Schema: {error.json_path}: {error.message}") from error
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise BadRequest(f"the schema refers to {reference!r}; only its own parts (#/...) are looked up")


def _references(schema: object) -> list[str]:
    """Every text under a key "$ref" or "$dynamicRef", however deep."""
    if isinstance(schema, Mapping):
        here = [str(schema[key]) for key in ("$ref", "$dynamicRef") if isinstance(schema.get(key), str)]
        return here + [text for value in schema.values() for text in _references(value)]
    return [text for value in schema for text in _references(value)] if isinstance(schema, list) else []
