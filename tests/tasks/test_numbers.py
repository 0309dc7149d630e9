import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groschen.tasks.numbers import Locale, Quantity, last_number, readings


def values(text: str, locale: Locale) -> list[Fraction]:
    return [found.value for found in readings(text, locale)]


@pytest.mark.parametrize(
    ("text", "english", "german"),
    [
        ("42", 42, 42),
        ("1000", 1000, 1000),
        ("1,000", 1000, 1),
        ("1.000", 1, 1000),
        ("1,000.5", Fraction(2001, 2), None),
        ("1.000,5", None, Fraction(2001, 2)),
        ("1,000,000", 10**6, None),
        ("1.000.000", None, 10**6),
        ("3,5", None, Fraction(7, 2)),
        ("3.5", Fraction(7, 2), None),
        ("1234,567", None, Fraction(1234567, 1000)),
        ("0,500", None, Fraction(1, 2)),
        ("1,00", None, 1),
        ("1,0000", None, 1),
        (".5", Fraction(1, 2), None),
        (",5", None, Fraction(1, 2)),
        ("1 000 000", 10**6, 10**6),
        ("1\u202f000", 1000, 1000),
        ("1'000.5", Fraction(2001, 2), None),
        ("1\\,000", 1000, 1000),
        ("1{,}000", 1000, 1),
    ],
)
def test_each_locale_reads_its_own_notation(
    text: str, english: Fraction | int | None, german: Fraction | int | None
) -> None:
    assert values(text, Locale.EN) == ([] if english is None else [english])
    assert values(text, Locale.DE) == ([] if german is None else [german])
    assert set(values(text, Locale.ANY)) == {value for value in (english, german) if value is not None}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-7", -7),
        ("+7", 7),
        ("−7", -7),
        ("- 7", -7),
        ("-$7", -7),
        ("$-7", -7),
        ("3/4", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        ("1 1/2", Fraction(3, 2)),
        ("1½", Fraction(3, 2)),
        ("½", Fraction(1, 2)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        (r"1\frac{1}{2}", Fraction(3, 2)),
        ("1.5e3", 1500),
        ("2E-2", Fraction(1, 50)),
        (r"1.5 \times 10^{3}", 1500),
        ("1.5·10³", 1500),
        ("1.5 × 10⁻³", Fraction(3, 2000)),
        ("$42$", 42),
        (r"\(42\)", 42),
        ("**42**", 42),
        ("42.", 42),
        ("5 million", 5_000_000),
        ("2 dozen eggs", 24),
        ("0.1", Fraction(1, 10)),
    ],
)
def test_a_number_has_its_exact_value(text: str, value: Fraction | int) -> None:
    assert values(text, Locale.EN) == [value]


@pytest.mark.parametrize(
    ("text", "value", "unit", "percent"),
    [
        ("$5", 5, "$", False),
        ("5 €", 5, "€", False),
        ("EUR 5", 5, "EUR", False),
        ("5 km/h", 5, "km/h", False),
        ("5 cm²", 5, "cm²", False),
        (r"5\text{ km}", 5, "km", False),
        ("20°C", 20, "°C", False),
        ("50%", 50, "", True),
        (r"50\%", 50, "", True),
        ("50 Prozent", 50, "", True),
        ("3 apples left", 3, "apples left", False),
        ("$5 million", 5_000_000, "$", False),
    ],
)
def test_units_and_percent_signs_are_kept_apart_from_the_value(
    text: str, value: int, unit: str, percent: bool
) -> None:
    assert readings(text, Locale.EN) == (Quantity(Fraction(value), unit, percent),)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "-", "41 or 42", "41 oder 42", "41, 42", "41 42", "41 or", "42 or more", "42 plus one",
        "42!", "3 x 4", "2^5", "3-4", "3–4", "10:30", "2024-05-01", "1/2/3", "1/0", "1 1/0", "--4", "-$-4",
        "1..2", "1,,2", "12,34,567", "1e999", "1e9999", "9" * 201, "4 2 apples", "forty-two", "= 42",
        "42 [sic]", "the 42",
    ],
)  # fmt: skip
def test_what_is_not_one_number_has_no_reading(text: str) -> None:
    assert readings(text, Locale.EN) == ()


def test_a_billion_is_another_one_in_german() -> None:
    assert values("2 billion", Locale.EN) == [2 * 10**9]
    assert values("2 Billionen", Locale.DE) == [2 * 10**12]
    assert values("2 Mrd. Euro", Locale.DE) == [2 * 10**9]


def test_one_number_has_one_reading_if_both_notations_agree() -> None:
    assert len(readings("42 km", Locale.ANY)) == 1


@pytest.mark.parametrize(
    ("text", "locale", "value"),
    [
        ("first 3, then 4 and 5 apples.", Locale.EN, 5),
        ("It costs $1,234.50.", Locale.EN, Fraction(2469, 2)),
        ("Es kostet 1.234,50 €.", Locale.DE, Fraction(2469, 2)),
        ("so x=-3", Locale.EN, -3),
        ("between 3-5", Locale.EN, 5),
        ("room B12 has 4 chairs, see A7", Locale.EN, 4),
        ("**12**", Locale.EN, 12),
        (r"it is \frac{1}{2}", Locale.EN, Fraction(1, 2)),
    ],
)
def test_the_last_number_of_a_text_is_found(text: str, locale: Locale, value: Fraction | int) -> None:
    assert [found.value for found in last_number(text, locale)] == [value]


def test_a_text_without_numbers_has_no_last_number() -> None:
    assert last_number("none here", Locale.EN) == ()


def grouped(whole: int, decimals: str, group: str, point: str) -> str:
    return f"{whole:,}".replace(",", group) + (point + decimals if decimals else "")


@given(
    whole=st.integers(0, 10**15),
    decimals=st.text("0123456789", max_size=8),
    negative=st.booleans(),
    in_groups=st.booleans(),
    unit=st.sampled_from(["", " km", " €", " Euro"]),
)
def test_what_was_written_in_a_notation_is_read_in_it(
    whole: int, decimals: str, negative: bool, in_groups: bool, unit: str
) -> None:
    value = Fraction(f"{whole}.{decimals or '0'}") * (-1 if negative else 1)
    for locale, group, point in ((Locale.EN, ",", "."), (Locale.DE, ".", ",")):
        text = ("-" if negative else "") + grouped(whole, decimals, group if in_groups else "", point) + unit
        assert [(found.value, found.unit) for found in readings(text, locale)] == [(value, unit.strip())]
        assert value in [found.value for found in readings(text, Locale.ANY)]
        assert [found.value for found in last_number("It is " + text, locale)] == [value]


@given(st.text(max_size=250))
def test_any_text_is_read_or_refused_without_an_exception(text: str) -> None:
    for locale in Locale:
        assert len(readings(text, locale)) <= 2
        assert len(last_number(text, locale)) <= 2


@pytest.mark.parametrize(
    "piece", ["1", "1,", "1 ", "1/", "1e", "\u00a01", "-", "$", "½", "\\frac{1}{", "1 000 "]
)
def test_hostile_texts_take_no_quadratic_time(piece: str) -> None:
    start = time.perf_counter()
    for locale in Locale:
        readings(piece * 100_000, locale)
        readings((piece * 200)[:200], locale)
        last_number(piece * 100_000, locale)
    assert time.perf_counter() - start < 10  # tenths of a second; minutes if a search begins anew at each
