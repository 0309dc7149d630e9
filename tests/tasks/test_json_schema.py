import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groschen.errors import BadRequest
from groschen.tasks.json_schema import Json, read_json
from groschen.tasks.patterns import Pattern
from groschen.tasks.slots import Slot
from verifier_samples import assert_keeps_its_own_key, problem

SCHEMA = {
    "type": "object",
    "properties": {"total": {"type": "number", "minimum": 0}, "currency": {"enum": ["EUR", "USD"]}},
    "required": ["total"],
    "additionalProperties": False,
}
BILL = {"total": 12.5, "currency": "EUR", "lines": [{"item": "tea", "price": 12.5}]}


def nested_not(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


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
        ({"$ref": "#/$defs/none"}, "has no such part"),
        ({"properties": {"a": {"$ref": "#none"}}}, "has no such part"),
        ({"$ref": "#"}, "in a circle"),
        ({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}, "in a circle"),
        ({"$schema": 5}, "expected .*2020-12"),
        ({"$schema": "https://example.org/mine"}, "expected .*2020-12"),
        (nested_not(150), "inside each other"),
        (nested_not(100_000), "inside each other"),
        ({"properties": {"a": {"format": "currency"}}}, "'currency', which is not checked"),
        ({"pattern": "("}, "no (JSON Schema|regular expression)"),
        (5, "expected an object"),
    ],
)
def test_a_schema_that_can_not_be_checked_with_is_refused(schema: dict[str, object], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        Json(schema=schema)


def test_a_schema_may_refer_to_its_own_parts() -> None:
    verifier = Json(schema={"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}})
    assert passed(verifier, None, '{"a": 1}') and not passed(verifier, None, '{"a": "1"}')


def test_a_schema_may_be_recursive_and_nested() -> None:
    tree = {
        "$defs": {
            "tree": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "integer"}]}}
        },
        "$ref": "#/$defs/tree",
    }
    assert passed(Json(schema=tree), None, "[1, [2, [3]]]") and not passed(
        Json(schema=tree), None, '[1, ["2"]]'
    )
    assert passed(Json(schema=nested_not(40)), None, '"a"') and not passed(
        Json(schema=nested_not(41)), None, '"a"'
    )
    assert passed(Json(schema={"properties": {"format": {"type": "string"}}}), None, '{"format": "currency"}')


FORMATS = [
    (
        "date",
        ["2024-02-29", "1999-12-31"],
        ["not a date", "2023-02-29", "2024-1-1", "20240101", "2024-02-29T00:00:00Z"],
    ),
    (
        "time",
        ["10:30:00Z", "23:59:60Z", "10:30:00.5+02:00"],
        ["10:30", "25:00:00Z", "10:30:00", "10:30:00+99:00"],
    ),
    (
        "date-time",
        ["2024-02-29T10:30:00Z", "2024-02-29t10:30:00-01:00"],
        ["2024-02-29", "2024-02-30T10:30:00Z"],
    ),
    ("duration", ["P1D", "PT5M", "P2W", "P1Y2M3DT4H5M6S"], ["P", "PT", "1D", "P1D2W", "5 minutes"]),
    ("email", ["a.b+c@example.org"], ["a@b", "a b@example.org", "@example.org", "a@", "a"]),
    ("hostname", ["example.org", "a-b.c"], ["-a.org", "a..b", "a_b.org", ""]),
    ("ipv4", ["10.0.0.1"], ["10.0.0.256", "10.0.0", "010.0.0.1"]),
    ("ipv6", ["::1", "fe80::1"], ["fe80::1%eth0", ":::", "10.0.0.1"]),
    ("uri", ["https://example.org/a?b=c#d", "mailto:a@example.org"], ["example.org", "https://a b", "//a"]),
    ("uuid", ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000", "x"]),
    ("regex", ["a+"], ["("]),
    ("json-pointer", ["", "/a/~0b"], ["a", "/~2"]),
]


@pytest.mark.parametrize(("name", "right", "wrong"), FORMATS, ids=[name for name, *_ in FORMATS])
def test_a_format_of_the_schema_is_checked(name: str, right: list[str], wrong: list[str]) -> None:
    verifier = Json(schema={"type": "object", "properties": {"a": {"format": name}}})
    for text, fits in (*((text, True) for text in right), *((text, False) for text in wrong)):
        assert passed(verifier, None, json.dumps({"a": text})) == fits, text
    assert passed(verifier, None, '{"a": null}')  # a format says nothing about other types


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ({"a": "ü"}, '{"a": "u\u0308"}', True),
        ({"a": "u\u0308"}, '{"a": "ü"}', True),
        ({"ü": 1}, '{"u\u0308": 1}', True),
        ({"u\u0308": 1}, '{"\\u00fc": 1}', True),
        ({"a": "ü"}, '{"a": "u"}', False),
        ({"ü": 1}, '{"u": 1}', False),
        ({"ü": 1}, '{"ü": 2, "u\u0308": 1}', False),  # one key twice
        (["é"], '["e\u0301"]', True),
        ("é", '"e\u0301"', True),
        ("é", '"e"', False),
        ({"a": "½"}, '{"a": "1/2"}', False),
        ({"a": "ﬁ"}, '{"a": "fi"}', False),
    ],
)
def test_ways_to_write_one_letter_make_no_difference(reference: object, answer: str, right: bool) -> None:
    assert passed(Json(whole=True), reference, answer) == right


def test_ways_to_write_one_letter_make_no_difference_to_a_schema() -> None:
    verifier = Json(schema={"enum": ["Mu\u0308nchen"]})
    assert passed(verifier, None, '"München"') and passed(verifier, None, '"Mu\u0308nchen"')


TEXT_OF_TEXT = json.dumps(json.dumps({"total": 5, "lines": ["tea"]}))


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        (json.loads(TEXT_OF_TEXT), '{"total": 5, "lines": ["tea"]}', True),
        (TEXT_OF_TEXT, '{"total": 5, "lines": ["tea"]}', True),
        (TEXT_OF_TEXT, '{"total": 6, "lines": ["tea"]}', False),
        (TEXT_OF_TEXT, TEXT_OF_TEXT, False),
        ("[1, 2]", "[1, 2]", True),
        ("[1, 2]", "[2, 1]", False),
        ("[1, 2]", '"[1, 2]"', False),
        ("5", '"5"', True),  # a text, no object or list: as it is
        ("5", "5", False),
        ("tea", '"tea"', True),
        ('"tea"', '"\\"tea\\""', True),
        ("{no JSON}", '"{no JSON}"', True),
        ('{"a": 1, "a": 2}', '{"a": 2}', False),
    ],
)
def test_a_reference_that_is_the_text_of_json_stands_for_its_value(
    reference: object, answer: str, right: bool
) -> None:
    assert passed(Json(whole=True), reference, answer) == right
    if right:
        assert_keeps_its_own_key(Json(whole=True), problem(reference))


def test_fields_are_looked_up_in_a_reference_that_is_the_text_of_json() -> None:
    verifier = Json(fields=("total", "lines.0"))
    assert passed(verifier, TEXT_OF_TEXT, '{"total": 5.0, "lines": ["tea"], "x": 1}')
    assert not passed(verifier, TEXT_OF_TEXT, '{"total": 5.0, "lines": ["milk"]}')


@pytest.mark.parametrize("answer", ["1e308", "123456789" * 40, "-1e300", "1e-320"])
@pytest.mark.parametrize("step", [0.01, 1e-300, 7, 0.1])
def test_a_number_that_can_not_be_divided_fails_and_is_no_error(answer: str, step: float) -> None:
    verdict = Json(schema={"multipleOf": step})(problem(None), answer)
    assert verdict.error is None


def test_a_number_beyond_the_range_of_floats_is_no_json() -> None:
    assert not passed(Json(whole=True), {"a": 1}, '{"a": 1e999}')
    assert not passed(Json(schema=True), None, "-1e400") and passed(Json(schema=True), None, "1e300")


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 1e300, float("nan"), float("inf")])
def test_a_time_out_of_range_is_refused(seconds: float) -> None:
    for made in (lambda: Json(whole=True, seconds=seconds), lambda: Pattern(seconds=seconds)):
        with pytest.raises(BadRequest, match="seconds is"):
            made()


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
    | st.text(max_size=5).filter(lambda text: not text.lstrip().startswith(("[", "{", '"'))),
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
