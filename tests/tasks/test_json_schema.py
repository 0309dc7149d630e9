import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groschen.errors import BadRequest
from groschen.tasks.json_schema import Json, read_json
from groschen.tasks.slots import Slot
from verifier_samples import assert_keeps_its_own_key, problem

SCHEMA = {
    "type": "object",
    "properties": {"total": {"type": "number", "minimum": 0}, "currency": {"enum": ["EUR", "USD"]}},
    "required": ["total"],
    "additionalProperties": False,
}
BILL = {"total": 12.5, "currency": "EUR", "lines": [{"item": "tea", "price": 12.5}]}


def passed(verifier: Json, answer: object, text: str) -> bool:
    verdict = verifier(problem(answer), text)
    assert verdict.error is None
    return verdict.passed


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('{"total": 1}', True),
        ('Here:\n```json\n{"total": 1}\n```\nDone.', True),
        ('```\n{"total": 1}\n```', True),
        ('```json\n{"total": -1}\n```\nno:\n```json\n{"total": 1}\n```', True),
        ('```json\n{"total": 1}\n```\nno:\n```json\n{"total": -1}\n```', False),
        ('<think>{"total": 1}</think> {"total": 2}', True),
        ('{"total": "1"}', False),
        ('{"total": true}', False),
        ('{"total": 1, "x": 2}', False),
        ("{}", False),
        ('{"total": 1', False),
        ('The total is {"total": 1}', False),
        ('{"total": 1} {"total": 1}', False),
        ('{"total": 5, "total": 1}', False),
        ('{"total": NaN}', False),
        ('{"total": Infinity}', False),
        ("{'total': 1}", False),
        ("", False),
    ],
)
def test_json_must_fit_the_schema(text: str, right: bool) -> None:
    assert passed(Json(schema=SCHEMA), None, text) == right


def test_json_anywhere_in_the_text_is_lenient_only() -> None:
    verdict = Json(schema=SCHEMA, slot=Slot.ANSWER)(problem(None), 'first {"a": 1}, so {"total": 1} it is')
    assert not verdict.passed and verdict.parts["lenient"] is True


def test_only_the_fields_that_count_are_compared() -> None:
    verifier = Json(fields=("total", "lines.0.item"))
    assert passed(verifier, BILL, json.dumps({**BILL, "currency": "USD"}))
    assert passed(verifier, BILL, '{"total": 12.50, "lines": [{"item": "tea"}]}')
    verdict = verifier(problem(BILL), '{"total": 12.5, "lines": []}')
    assert verdict.parts["why"] == "another value in the field 'lines.0.item'"
    assert not passed(verifier, BILL, '{"lines": [{"item": "tea"}]}')


def test_a_field_stands_in_the_answer_where_it_stands_in_the_reference() -> None:
    nested = Json(fields=("lines.0.item",))
    assert not passed(nested, BILL, '{"lines.0.item": "tea"}')
    flat = Json(fields=("net.total",))
    assert passed(flat, {"net.total": 5}, '{"net.total": 5}')
    assert not passed(flat, {"net.total": 5}, '{"net": {"total": 5}}')


def test_the_whole_reference_is_compared_as_json() -> None:
    verifier = Json(whole=True)
    assert passed(verifier, {"a": 1, "b": [1, 2]}, '{"b": [1.0, 2], "a": 1}')
    assert not passed(verifier, {"a": 1}, '{"a": true}')
    assert not passed(verifier, {"a": [1, 2]}, '{"a": [2, 1]}')
    assert not passed(verifier, {"a": 1}, '{"a": 1, "b": null}')
    assert passed(verifier, None, "null") and not passed(verifier, None, "")


def test_a_reference_without_a_compared_field_is_refused() -> None:
    with pytest.raises(BadRequest, match="no field 'tax'"):
        Json(fields=("tax",)).check(problem(BILL))


def test_a_checker_that_would_pass_anything_is_refused() -> None:
    with pytest.raises(BadRequest, match="anything would pass"):
        Json()


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "objekt"}, "no JSON Schema"),
        ({"properties": {"a": {"$ref": "https://example.org/a.json"}}}, "only its own parts"),
        ({"$ref": "file:///etc/passwd"}, "only its own parts"),
    ],
)
def test_a_schema_that_is_none_or_lies_elsewhere_is_refused(schema: dict[str, object], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        Json(schema=schema)


def test_a_schema_may_refer_to_its_own_parts() -> None:
    verifier = Json(schema={"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}})
    assert passed(verifier, None, '{"a": 1}') and not passed(verifier, None, '{"a": "1"}')


def test_a_pattern_of_the_schema_without_end_fails_the_answer() -> None:
    verifier = Json(schema={"type": "string", "pattern": "^(a+)+$"}, seconds=0.3)
    verdict = verifier(problem(None), json.dumps("a" * 60 + "!"))
    assert verdict.error is None and verdict.parts["why"] == "it takes longer than 0.3 s"


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 200 + "]" * 200, "1" * 5000, '{"a":' * 99 + "1" + "}" * 99]
)
def test_json_that_is_too_deep_or_too_long_fails_and_is_no_error(text: str) -> None:
    assert not passed(Json(whole=True, schema=True), {"a": 1}, text)


@given(st.text(max_size=50))
def test_any_text_is_json_or_refused_with_a_reason(text: str) -> None:
    try:
        value = read_json(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"JSON|twice|deep|inside"):
            read_json(text)
    else:
        assert read_json(json.dumps(value)) == value


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(VALUES)
def test_a_value_is_equal_to_itself_and_not_to_itself_in_a_list(value: object) -> None:
    verifier = Json(whole=True)
    assert passed(verifier, value, json.dumps(value))
    assert not passed(verifier, value, json.dumps([value]))


@pytest.mark.parametrize("slot", [Slot.WHOLE, Slot.ANSWER])
@pytest.mark.parametrize(
    "verifier",
    [{"whole": True}, {"fields": ("total", "currency")}, {"whole": True, "schema": {"type": "object"}}],
)
def test_json_keeps_its_own_key(slot: Slot, verifier: dict[str, object]) -> None:
    assert_keeps_its_own_key(Json(slot=slot, **verifier), problem(BILL))  # type: ignore[arg-type]
