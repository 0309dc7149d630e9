"""Answers in JSON: of a given shape, and with the reference's values in the fields that count.

Strict about JSON: a key twice in one object, NaN and Infinity are refused. Unicode's ways to write one letter
make no difference. The shape is a JSON Schema (schemas.py). A reference that is the JSON text of an object or
of a list stands for that value.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from groschen.errors import BadRequest
from groschen.records import Problem, Verdict
from groschen.tasks.judging import InSlot, check_seconds, composed
from groschen.tasks.patterns import WORKER
from groschen.tasks.schemas import checked_schema
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
        """Raises BadRequest for a schema without use, a time out of range, or if nothing is asked."""
        super().__post_init__()
        check_seconds(self.seconds)
        if self.schema is None and not self.fields and not self.whole:
            raise BadRequest(
                "a checker of JSON needs a schema, fields or whole = true: else anything would pass"
            )
        if self.schema is not None:
            object.__setattr__(self, "schema", normal(checked_schema(self.schema)))

    def __call__(self, problem: Problem, text: str) -> Verdict:
        """The verdict as of every kind; with an error if the worker broke."""
        try:
            return super().__call__(problem, text)
        except Broke as broken:
            return Verdict(reward=0.0, passed=False, error=f"the check of the schema broke: {broken}")

    def check(self, problem: Problem) -> None:
        """Raises BadRequest if the reference lacks a field that is compared."""
        reference = _reference(problem)
        for field in self.fields:
            if _at(reference, _path(reference, field)) == ():
                raise BadRequest(
                    f"problem {problem.key!r:.200} has no field {field!r:.200} in its reference "
                    f"{problem.answer!r:.200}"
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
        return json.dumps(_reference(problem), ensure_ascii=False) if self.fields or self.whole else None

    def wrong_answers(self, problem: Problem) -> tuple[str, ...]:
        """What is no JSON, a key twice, and the reference with each compared field changed."""
        answers, reference = ["no JSON", '{"a": 1, "a": 2}'], _reference(problem)
        if self.whole and not self.fields:
            answers.append(json.dumps([reference]))
        if isinstance(reference, Mapping):
            changed = [{**reference, field: ["another"]} for field in self.fields if field in reference]
            answers.extend(json.dumps(one, ensure_ascii=False) for one in changed)
        return tuple(answers)

    def wrong(self, problem: Problem) -> tuple[str, ...]:
        """As of every kind, and the right answer cut off before its end."""
        right = self.gold_answer(problem)
        cut = (fill(right[:-1], self.slot),) if right and right[-1] in "]}" else ()
        return (*super().wrong(problem), *cut)

    def _difference(self, problem: Problem, value: object) -> str | None:
        reference = _reference(problem)
        for field in self.fields:
            path = _path(reference, field)
            if not _equal(_at(reference, path), _at(value, path)):
                return f"another value in the field {field!r}"
        if self.whole and not _equal(reference, value):
            return "not the reference"
        if self.schema is None:
            return None
        job = {"schema": self.schema, "value": value}
        try:
            why = workers_of(WORKER).judge(job, {**job, "value": None}, self.seconds)
        except (TookTooLong, Refused) as limit:
            return str(limit)
        return None if why is None else str(why)


def read_json(text: str) -> object:
    """The value of a JSON text. Raises ValueError if it is none, has a key twice, or is too long or deep."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"more than {MAX_LENGTH} characters")
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if _is_deeper(value, MAX_DEPTH):
        raise ValueError(f"more than {MAX_DEPTH} values inside each other")
    return normal(value)


def normal(value: object) -> object:
    """A JSON value with all texts in Unicode's composed form (NFC). Keys too, unless two become one."""
    if isinstance(value, str):
        return composed(value)
    if isinstance(value, Mapping):
        plain = {composed(key): normal(item) for key, item in value.items()}
        return plain if len(plain) == len(value) else value
    return [normal(item) for item in value] if isinstance(value, list) else value


def _reference(problem: Problem) -> object:
    """The reference; decoded where it is the JSON text of an object or a list, or the text of that text."""
    value = problem.answer
    for _ in range(3):
        if not isinstance(value, str):
            break
        try:
            decoded = read_json(value)
        except ValueError:
            break
        if isinstance(decoded, str | Mapping | list):
            value = decoded
    return normal(problem.answer if isinstance(value, str) else value)


def _is_deeper(value: object, depth: int) -> bool:
    inside = [*value.values()] if isinstance(value, dict) else value
    return isinstance(inside, list) and (depth == 0 or any(_is_deeper(one, depth - 1) for one in inside))


def _last_value(text: str) -> object:
    """The last object or list in running text; () if there is none."""
    decoder = json.JSONDecoder(
        object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
    )
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
    return found if found == () else normal(found)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of these pairs. Raises ValueError if a key comes twice: readers disagree which counts."""
    found = dict(pairs)
    if len({composed(key) for key in found}) < len(pairs):
        raise ValueError("a key comes twice in one object")
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    """A number with a point or an exponent. Raises ValueError beyond 1.8e308, where all are one infinity."""
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{digits[:30]} is a number out of range")
    return value


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
