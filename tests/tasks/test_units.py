"""What stands beside a number: words that multiply, units, approximations."""

import pytest

from groschen.errors import BadRequest
from groschen.tasks.answers import Number
from groschen.tasks.numbers import Locale
from verifier_samples import assert_keeps_its_own_key, passes, problem

EN, DE = Locale.EN, Locale.DE
SCALED = [  # reference, answer, locale: right
    (42000, "42k", EN),
    (42000, "42K", EN),
    (42000, "42 k", EN),
    (42000, "$42k", EN),
    (42000, "42 thousand", EN),
    (3.2e9, "$3.2B", EN),
    (3.2e9, "3.2bn", EN),
    (3.2e9, "$3.2 billion", EN),
    (3.2e9, "3,2 Mrd. €", DE),
    (500_000, "500 TEUR", DE),
    (500_000, "500 T€", DE),
    (500_000, "500 k€", DE),
    (500_000, "500 Tsd. €", DE),
    (500_000, "500 Tsd. Euro", DE),
    (500_000, "EUR 500 Tsd.", DE),
    (5_000_000, "5M", EN),
    (5_000_000, "$5m", EN),
    (5_000_000, "5 Mio. €", DE),
    (5_000_000, "5 Mio", DE),
    (5_000_000, "5mn", EN),
    (5_000_000, "5 million USD", EN),
    (1_500_000, "1,5 Mio. Euro", DE),
    (1_200_000_000_000, "$1.2T", EN),
    (1_200_000_000_000, "1.2 trillion", EN),
    (24, "2 dozen", EN),
    (0.05, "5 hundredths", EN),
    (2 * 10**12, "2 Billionen", DE),
    (500_000, "5 lakh", EN),
    (3_200_000, "USD 3.2M", EN),
    (5, "5 m", EN),
    (5, "5 mm", EN),
    (5, "5 T", EN),
    (5, "5 kg", EN),
    (5, "5 km", EN),
]
NOT_SCALED = [
    (42, "42k", EN),
    (42, "42K", EN),
    (42, "42 K", EN),
    (3.2, "$3.2B", EN),
    (3.2, "3.2bn", EN),
    (3.2, "3.2 Mrd.", DE),
    (500, "500 TEUR", DE),
    (500, "500 T€", DE),
    (500, "500 k€", DE),
    (500, "500 Tsd. €", DE),
    (5, "5M", EN),
    (5, "$5m", EN),
    (5, "5 Mio. €", DE),
    (5, "5mn", EN),
    (1.2, "$1.2T", EN),
    (2, "2 dozen", EN),
    (5, "5 lakh", EN),
    (5, "5 hundredths", EN),
    (2e9, "2 Billionen", DE),
    (42, "42 thousand", EN),
    (42, "42 hundred", EN),
    (5_000_000, "5 m", EN),
    (5_000_000, "5 mm", EN),
]


@pytest.mark.parametrize(("reference", "answer", "locale"), SCALED)
def test_a_word_that_multiplies_multiplies(reference: object, answer: str, locale: Locale) -> None:
    assert passes(Number(locale=locale), reference, answer)


@pytest.mark.parametrize(("reference", "answer", "locale"), NOT_SCALED)
def test_a_word_that_multiplies_is_no_unit(reference: object, answer: str, locale: Locale) -> None:
    assert not passes(Number(locale=locale), reference, answer)


def test_a_word_that_multiplies_is_a_unit_where_the_task_says_so() -> None:
    assert passes(Number(units=("TEUR",)), 500, "500 TEUR") and not passes(
        Number(units=("TEUR",)), 500, "500 EUR"
    )
    assert passes(Number(units=("K",)), 300, "300 K") and passes(Number(units=("dozen",)), 3, "3 dozen")
    assert not passes(Number(units=("K",)), 300_000, "300 K")


ABOUT = [
    "~42",
    "≈ 42",
    "about 42",
    "approximately 42",
    "approx. 42",
    "ca. 42",
    "circa 42",
    "etwa 42",
    "rund 42",
    "ungefähr 42",
    "roughly 42",
    "around 42",
    r"\approx 42",
    r"$\approx 42$",
    r"\sim 42",
    "~ 42 km",
    "~$42",
    "nearly 42",
    "almost 42",
    "fast 42",
]


@pytest.mark.parametrize("answer", ABOUT)
def test_an_approximation_passes_only_where_there_is_a_tolerance(answer: str) -> None:
    assert not passes(Number(), 42, answer)
    assert passes(Number(absolute=0.5), 42, answer) and passes(Number(relative=0.01), 41.9, answer)
    assert not passes(Number(absolute=0.5), 43, answer)


@pytest.mark.parametrize(
    "answer",
    [
        "42 or so",
        "42 ish",
        "42ish",
        "42 ca.",
        "at least 42",
        "42 at least",
        "42 squared",
        "42 factorial",
        "42+",
        "> 42",
        "≥ 42",
        "±42",
        "42 ± 1",
        "42?",
        "42...",
        "42 is wrong",
        "42 incorrect",
        "42%",
        "42 percent",
        "4.2e1e1",
        "MAX 42",
        "NOT 42",
        "42 plus",
        "42 minus",
        "42 remainder 3",
        "42 thousandths",
        "42‰",
    ],
)
def test_what_stands_beside_a_number_does_not_become_a_unit(answer: str) -> None:
    assert not passes(Number(), 42, answer)


@pytest.mark.parametrize(
    "answer",
    [
        "42",
        "42.0",
        "42 km",
        "$42",
        "42 €",
        "EUR 42",
        "42 USD",
        "US$42",
        "42 apples",
        "42 more apples",
        "42 apples left",
        "42 years old",
        "42 m hoch",
        "42 cents",
        "42 °C",
        "42°",
        "42 km/h",
        "42 cm²",
        "42 cm^2",
        "42~km",
        r"42\text{ kg}",
        r"\$42",
        "42 people",
        "42 Euro pro Tag",
        "84/2",
        "4.2e1",
        "**42**",
        "$42$",
    ],
)
def test_a_reference_without_a_unit_takes_any(answer: str) -> None:
    assert passes(Number(), 42, answer)


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("5 km", "5 m", False),
        ("5 km", "5 km", True),
        ("5 km", "5", True),
        ("5 km", "5 kilometers", True),
        ("5 km", "5 Kilometer", True),
        ("5 km", "5 km/h", False),
        ("5 km/h", "5 km", False),
        ("5 km", "5 miles", False),
        ("5 km", "5 kg", False),
        ("5 km", "5 apples", False),
        ("5 km/h", "5 kilometers per hour", True),
        ("5 km/h", "5 km/s", False),
        ("5 m²", "5 square meters", True),
        ("5 m²", "5 m", False),
        ("5 m²", "5 m^2", True),
        ("5 m", "5 M", False),
        ("5 mg", "5 g", False),
        ("5 m²", "5 cm²", False),
        ("5 m²", "5 Quadratmeter", True),
        ("12.50 €", "12.50 $", False),
        ("12.50 €", "$12.50", False),
        ("12.50 €", "12.50 Euro", True),
        ("12.50 €", "EUR 12.50", True),
        ("12.50 €", "€12.50", True),
        ("12.50 €", "12.50", True),
        ("12.50 €", "12.50 €/h", False),
        ("12.50 €", "12.50 ct", False),
        ("12.50 € pro Tag", "12.50 €/Tag", True),
        ("12.50 € pro Tag", "12.50 € pro Woche", False),
        ("12.50 €", "12.50 € insgesamt", True),
        ("$12.50", "12.50 dollars", True),
        ("$12.50", "12.50 USD", True),
        ("$12.50", "12.50 CHF", False),
        ("5 apples", "5 red apples", True),
        ("5 apples", "5 apple", True),
        ("5 apples", "5 oranges", False),
        ("5 Tage", "5 days", True),
        ("5 days", "5 hours", False),
        ("5 Stunden", "5 h", True),
        ("5 min", "5 minutes", True),
        ("500 TEUR", "500000 €", True),
        ("500 TEUR", "500 TEUR", True),
        ("500 TEUR", "500 EUR", False),
        ("500 TEUR", "500000 $", False),
        ("20 °C", "20 °F", False),
        ("20 °C", "20°C", True),
        ("20 °C", "20 Celsius", True),
        ("5 pounds", "5 lb", True),
        ("5 pounds", "£5", True),
        ("5 lb", "£5", False),
        ("50 %", "50", False),
    ],
)
def test_a_unit_that_contradicts_the_references_is_wrong(reference: str, answer: str, right: bool) -> None:
    assert passes(Number(), reference, answer) == right
    assert_keeps_its_own_key(Number(), problem(reference))


def test_an_approximation_is_no_reference() -> None:
    with pytest.raises(BadRequest, match="is not one number"):
        Number().check(problem("~42"))


def test_the_lenient_look_knows_words_that_multiply() -> None:
    for reference, text in ((42_000, "It is 42k."), (5_000_000, "so 5 million"), (42, "it takes 42 K9s")):
        assert Number()(problem(reference), text).parts["lenient"] is True
    assert Number()(problem(42), "It is 42k.").parts["lenient"] is False
