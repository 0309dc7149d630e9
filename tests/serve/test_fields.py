"""Bodies that are wrong, and what the client is told."""

import gzip
from typing import Annotated, Literal

import msgspec
import pytest

from groschen import machine
from groschen.serve import fields
from groschen.serve.faults import ApiFault
from groschen.serve.fields import CHANGES_NOTHING, Form, Other, Strict


class TextPart(Strict, tag="text", tag_field="type"):
    text: str


class ImagePart(Strict, tag="image_url", tag_field="type"):
    image_url: dict[str, str]


class Message(Strict):
    role: Literal["user", "assistant"]
    content: str | list[TextPart | ImagePart]


class Ask(Strict):
    messages: list[Message]
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 1.0
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] = 1
    logit_bias: dict[str, float] | None = None


FORM = Form(
    Ask,
    {
        "user": CHANGES_NOTHING,
        "store": Other("nothing is stored", (False,)),
        "service_tier": Other("there is one tier", ("auto", "default")),
        "audio": Other("this server has no voice"),
        "messages[].audio": Other("this server has no voice"),
        "messages[].name": CHANGES_NOTHING,
    },
)
ONE = '"messages": [{"role": "user", "content": "hi"}]'


def refused(body: str | bytes) -> ApiFault:
    with pytest.raises(ApiFault) as caught:
        fields.decode(body.encode() if isinstance(body, str) else body, FORM)
    assert caught.value.status == 400 and caught.value.error.type == "invalid_request_error"
    return caught.value


def test_a_right_body_becomes_the_record() -> None:
    ask = fields.decode(b'{%s, "temperature": 0, "n": 3}' % ONE.encode(), FORM)
    assert ask == Ask(messages=[Message(role="user", content="hi")], temperature=0.0, n=3)


def test_null_is_the_default() -> None:
    assert fields.decode(b'{%s, "n": null, "audio": null}' % ONE.encode(), FORM).n == 1


@pytest.mark.parametrize(
    "field",
    ['"user": "me"', '"user": {"a": [1]}', '"store": false', '"service_tier": "auto"', '"store": null'],
)
def test_a_field_that_changes_nothing_is_taken(field: str) -> None:
    assert fields.decode(f"{{{ONE}, {field}}}".encode(), FORM).n == 1


def test_harmless_fields_deep_inside_are_taken_one_by_one() -> None:
    message = '{"role": "user", "content": "a", "name": "x", "audio": null}'
    ask = fields.decode(f'{{"messages": [{message}, {message}], "user": "y"}}'.encode(), FORM)
    assert len(ask.messages) == 2


def test_harmless_fields_cost_no_more_than_they_are_long() -> None:
    message, begun = '{"role": "user", "content": "", "name": 0}', machine.seconds()
    ask = fields.decode(f'{{"messages": [{", ".join([message] * 20_000)}]}}'.encode(), FORM)
    assert len(ask.messages) == 20_000
    assert machine.seconds() - begun < 3, "by the square of their number they take a minute"


def test_a_field_that_only_another_kind_lacks_is_kept() -> None:
    class Parts(Strict):
        parts: list[TextPart | ImagePart]

    form = Form(Parts, {"parts[].text": CHANGES_NOTHING})
    image = {"type": "image_url", "image_url": {}, "text": "no"}
    found = fields.convert({"parts": [image, {"type": "text", "text": "yes"}]}, form)
    assert found.parts == [ImagePart(image_url={}), TextPart(text="yes")]


@pytest.mark.parametrize(
    ("field", "param", "word"),
    [
        ('"store": true', "store", "nothing is stored"),
        ('"store": 0', "store", "nothing is stored"),  # 0 == False in Python, not in JSON
        ('"service_tier": "priority"', "service_tier", "one tier"),
        ('"audio": {}', "audio", "no voice"),
    ],
)
def test_a_field_that_is_not_honoured_is_named_with_the_reason(field: str, param: str, word: str) -> None:
    fault = refused(f"{{{ONE}, {field}}}")
    assert fault.error.param == param and word in fault.error.message
    assert fault.error.code == "unsupported_parameter"


def test_an_unknown_field_is_named_with_its_nearest_match() -> None:
    error = refused(f'{{{ONE}, "temprature": 1}}').error
    assert error.message == (
        "Unrecognized request argument supplied: temprature; did you mean 'temperature'?"
    )
    assert (error.param, error.code) == ("temprature", "unknown_parameter")


def test_an_unknown_field_inside_is_named_by_its_path() -> None:
    body = '{"messages": [{"role": "user", "content": [{"type": "text", "txt": "a"}]}]}'
    error = refused(body).error
    assert error.param == "messages[0].content[0].txt" and "did you mean 'text'?" in error.message
    error = refused('{"messages": [{"role": "user", "content": "a", "audio": {"id": "1"}}]}').error
    assert error.param == "messages[0].audio" and "no voice" in error.message


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ("{}", "messages", "missing_required_parameter"),
        ('{"messages": [{"role": "user"}]}', "messages[0].content", "missing_required_parameter"),
        (f'{{{ONE}, "n": 0}}', "n", "integer_below_min_value"),
        (f'{{{ONE}, "n": 129}}', "n", "integer_above_max_value"),
        (f'{{{ONE}, "n": 1.5}}', "n", "invalid_type"),
        (f'{{{ONE}, "n": true}}', "n", "invalid_type"),
        (f'{{{ONE}, "temperature": 2.5}}', "temperature", "decimal_above_max_value"),
        (f'{{{ONE}, "temperature": "1"}}', "temperature", "invalid_type"),
        ('{"messages": [{"role": "king", "content": "a"}]}', "messages[0].role", "invalid_value"),
        ('{"messages": "hi"}', "messages", "invalid_type"),
        (f'{{{ONE}, "temperature": 1e999}}', "temperature", "invalid_value"),
        (f'{{{ONE}, "n": {"9" * 5000}}}', "n", "invalid_value"),
        (f'{{{ONE}, "logit_bias": {{"5": "a"}}}}', "logit_bias", "invalid_type"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(body: str, param: str, code: str) -> None:
    error = refused(body).error
    assert (error.param, error.code) == (param, code)
    assert param in error.message and len(error.message) < 300


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"messages": [}', "line 1, column 15"),
        (b'{"messages":\n [],\n "n": 01}', "line 3, column"),
        (b'{"n": NaN}', "NaN"),
        (b'{"n": -Infinity}', "Infinity"),
        (b'{"n": 1} x', "trailing characters"),
        (b'{"n": "\xff"}', "UTF-8"),
        (b'{"n": "\\ud800"}', "broken text"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (b"[]", "expected object"),
        (b'"hi"', "expected object"),
    ],
)
def test_a_body_that_is_no_object_is_told_where_it_breaks(body: bytes, word: str) -> None:
    assert word in refused(body).error.message


def test_no_error_repeats_a_long_value() -> None:
    assert len(refused(f'{{{ONE}, "n": "{"x" * 100_000}"}}').error.message) < 300


def test_a_name_that_imitates_the_decoders_message_is_refused_like_any_other() -> None:
    for name in ("x` - at `$.n", "x - at `$", "`", "a\nb", "[...]"):
        assert refused(f'{{{ONE}, "{name}": 1}}'.replace("\n", "\\n")).status == 400
    assert len(refused(f'{{{ONE}, "{"y" * 50_000}": 1}}').error.message) < 500


def test_a_word_that_is_none_of_the_choices_is_told_the_choices() -> None:
    error = refused('{"messages": [{"role": "king", "content": "a"}]}').error
    assert error.message == "Invalid 'messages[0].role': expected one of 'assistant', 'user'; found \"king\"."
    error = refused('{"messages": [{"role": "user", "content": [{"type": "video", "text": "a"}]}]}').error
    assert "expected one of 'text', 'image_url'" in error.message or "'image_url', 'text'" in error.message


def test_a_part_of_a_body_is_named_by_its_place_in_the_body() -> None:
    form = Form(Message, {"status": CHANGES_NOTHING, "phase": Other("it has one phase")})
    value = {"role": "user", "content": "a", "status": "completed"}
    assert fields.convert(value, form, ("input", 3)).content == "a"
    for bad, param in (({"phase": "x"}, "input[3].phase"), ({"role": "king"}, "input[3].role")):
        with pytest.raises(ApiFault) as caught:
            fields.convert({"role": "user", "content": "a", **bad}, form, ("input", 3))
        assert caught.value.error.param == param


@pytest.mark.parametrize(("number", "taken"), [("4.0", 4), ("1e1", 10), ("1", 1)])
def test_a_whole_number_may_be_written_with_a_point(number: str, taken: int) -> None:
    assert fields.decode(f'{{{ONE}, "n": {number}}}'.encode(), FORM).n == taken


@pytest.mark.parametrize("number", ["4.5", "1e300", "true", '"4"', "4.0000000000001"])
def test_what_is_no_whole_number_is_none(number: str) -> None:
    assert refused(f'{{{ONE}, "n": {number}}}').error.param == "n"


def test_a_number_that_may_have_a_fraction_stays_what_it_is() -> None:
    ask = fields.decode(f'{{{ONE}, "temperature": 1.0, "n": 2.0, "logit_bias": {{"5": 1.0}}}}'.encode(), FORM)
    assert ask.n == 2 and ask.logit_bias == {"5": 1.0} and isinstance(ask.logit_bias["5"], float)


def test_a_byte_order_mark_before_a_body_is_passed_over() -> None:
    assert fields.decode(b"\xef\xbb\xbf{%s}" % ONE.encode(), FORM).n == 1


def test_a_body_that_is_compressed_is_named() -> None:
    assert "compressed by gzip" in refused(gzip.compress(b"{%s}" % ONE.encode())).error.message
