"""Words for units, in English and German: which mean the same, and which multiply the number before them.

A word that is no known unit is one too (5 apples). Leaves out conversions: 5 km and 5000 m are written in two
units, and whether that is right is for the task to say.
"""

import re
from dataclasses import dataclass

_SAME = """
€ eur euro euros | $ usd us$ dollar dollars bucks | £ gbp pound pounds | ¥ jpy yen | ₹ inr rupee rupees
chf sfr franken franc francs | ¢ ct cent cents | cny rmb yuan | sek nok dkk kr kronen krona | pln zloty zł
km kilometer kilometers kilometre kilometres kilometern | m meter meters metre metres metern
dm decimeter decimeters dezimeter | cm centimeter centimeters centimetre centimetres zentimeter
mm millimeter millimeters millimetre millimetres | mi mile miles meile meilen | yd yard yards
ft foot feet fuß fuss | in inch inches zoll
ha hectare hectares hektar
kg kilogram kilograms kilogramm kilo kilos | g gram grams gramm | mg milligram milligrams milligramm
t ton tons tonne tonnes tonnen | lb lbs pound pounds pfund | oz ounce ounces unze unzen
l L liter liters litre litres litern | ml mL milliliter milliliters millilitre millilitres
s sec secs second seconds sek sekunde sekunden | ms millisecond milliseconds millisekunde millisekunden
min mins minute minutes minuten | h hr hrs hour hours std stunde stunden | d day days tag tage tagen
wk wks week weeks woche wochen | mo month months monat monate monaten | yr yrs year years jahr jahre jahren
°c celsius | °f fahrenheit | ° deg degree degrees grad | kelvin
kmh kph | mph | n newton newtons | j joule joules | kj kilojoule kilojoules
kwh kilowattstunde kilowattstunden
w watt watts | kw kilowatt kilowatts | v volt volts | a ampere amperes amp amps | hz hertz | pa pascal pascals
b byte bytes | kb kilobyte kilobytes | mb megabyte megabytes | gb gigabyte gigabytes | tb terabyte terabytes
person persons people personen | stück stk piece pieces pcs | point points punkt punkte punkten
time times mal
"""
_GROUPS: dict[str, frozenset[int]] = {}
for _number, _group in enumerate(_SAME.replace("\n", "|").split("|")):
    for _word in _group.split():
        _GROUPS[_word] = _GROUPS.get(_word, frozenset()) | {_number}
_POWERS = {
    "sqm": "m²", "qm": "m²", "quadratmeter": "m²", "sqkm": "km²", "quadratkilometer": "km²", "sqft": "ft²",
    "quadratzentimeter": "cm²", "cbm": "m³", "kubikmeter": "m³", "ccm": "cm³", "kubikzentimeter": "cm³",
}  # fmt: skip
# Units whose letters mean another one in another case: mW is no MW.
_CASED = frozenset(
    ("m", "M", "mm", "MM", "mg", "Mg", "t", "T", "s", "S", "h", "H", "g", "G", "k", "K", "a", "A")
)
_CURRENCY_CODES = frozenset(
    "EUR USD GBP JPY CHF CNY INR CAD AUD NZD SEK NOK DKK PLN CZK HUF RUB BRL MXN KRW TRY ZAR SGD HKD RMB ILS "
    "THB".split()
)
CURRENCIES = _CURRENCY_CODES | frozenset(
    "$ € £ ¥ ₹ ₽ ₩ ₺ ₿ US$ A$ C$ NZ$ HK$ S$ CA$ AU$ Euro Euros Dollar Dollars".split()
)
_PER = re.compile(r"\s*(?:/|\bper\b|\bpro\b|\bje\b|\bp\.)\s*", re.IGNORECASE)
_POWER = re.compile(r"\b(square|sq|cubic)\.?\s+(\w+)", re.IGNORECASE)

# What multiplies the number before it. The long and the short scale disagree about the billion.
_ALWAYS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("hundred", "hundert"), (100, 1)),
    **dict.fromkeys(("dozen", "dutzend"), (12, 1)),
    **dict.fromkeys(("thousand", "thousands", "tausend", "tsd", "thsd", "k"), (10**3, 1)),
    **dict.fromkeys(("lakh", "lakhs"), (10**5, 1)),
    **dict.fromkeys(("million", "millions", "millionen", "mio", "mill", "mln", "mn"), (10**6, 1)),
    **dict.fromkeys(("crore", "crores"), (10**7, 1)),
    **dict.fromkeys(("milliarde", "milliarden", "mrd", "bn", "bln"), (10**9, 1)),
    **dict.fromkeys(("billionen", "tn", "trn"), (10**12, 1)),
    **dict.fromkeys(("billiarde", "billiarden"), (10**15, 1)),
    **dict.fromkeys(("tenth", "tenths", "zehntel"), (1, 10)),
    **dict.fromkeys(("hundredth", "hundredths", "hundertstel"), (1, 100)),
    **dict.fromkeys(("thousandth", "thousandths", "tausendstel"), (1, 1000)),
}
_ENGLISH = {"billion": 10**9, "billions": 10**9, "trillion": 10**12, "trillions": 10**12}
_GERMAN = {"billion": 10**12, "trillion": 10**18, "trillionen": 10**18}
_LETTERS = {"M": 10**6, "B": 10**9}  # 5M, 5 M; and K by _ALWAYS
_MONEY_LETTERS = {"m": 10**6, "mm": 10**6, "MM": 10**6, "b": 10**9}  # with a currency: else they are metres


def contradict(one: str, other: str) -> bool:
    """Whether two units can't both stand behind one number. Words that only describe (5 red apples) can."""
    left, right = _read(one), _read(other)
    if (left.per is None) != (right.per is None):
        return True
    return not (
        _match(left, right) and (left.per is None or right.per is None or _match(left.per, right.per))
    )


def factor(word: str, *, german: bool, attached: bool, money: bool) -> tuple[int, int] | None:
    """By how much a word multiplies the number before it, as a fraction; None if it is a unit.

    attached: no space stands between. money: a currency stands there too.
    """
    plain = word.rstrip(".")
    small = plain.lower()
    if small in _ALWAYS:
        return _ALWAYS[small]
    known = (_GERMAN if german else _ENGLISH).get(small) or _LETTERS.get(plain)
    if known is None and money:
        known = _MONEY_LETTERS.get(plain)
    if known is None and plain == "T" and (attached or money):
        known = 10**3 if german and money else 10**12
    return None if known is None else (known, 1)


def split_currency(word: str) -> tuple[str, ...]:
    """TEUR as thousand and EUR, k€ as k and €; any other word as it is."""
    for length in (1, 3):
        start, end = word[:-length], word[-length:]
        if end in CURRENCIES and start.rstrip(".") in (
            "T",
            "k",
            "K",
            "M",
            "m",
            "B",
            "bn",
            "Mio",
            "Mrd",
            "Tsd",
            "mn",
        ):
            return ("Tsd" if start == "T" else start, end)
    return (word,)


@dataclass(frozen=True, slots=True)
class _Unit:
    groups: frozenset[int]  # of the first known word; empty if none is known
    words: frozenset[str]  # as stems
    per: "_Unit | None" = None


def _match(left: _Unit, right: _Unit) -> bool:
    if left.groups and right.groups:
        return bool(left.groups & right.groups)
    return bool(left.words & right.words)


def _read(text: str) -> _Unit:
    text = re.sub(r"\^\{?([23])\}?", lambda power: "²" if power[1] == "2" else "³", text)
    text = _POWER.sub(lambda power: power[2] + ("³" if power[1].lower() == "cubic" else "²"), text)
    above, _, below = (_PER.sub("/", text)).partition("/")
    groups, words = frozenset[int](), set[str]()
    for word in above.split():
        plain = word.strip(".,")
        groups = groups or _groups_of(plain)
        words.add(_stem(plain))
    return _Unit(groups, frozenset(words), _read(below.replace("/", " ")) if below else None)


def _groups_of(word: str) -> frozenset[int]:
    word = _POWERS.get(word.lower(), word)
    power = word[-1:] if word[-1:] in "²³" else ""
    if word in _GROUPS:
        return _GROUPS[word]
    base = word.removesuffix(power)
    known = _GROUPS.get(base)
    if known is None and base not in _CASED:
        known = _GROUPS.get(base.lower())
    found = known or frozenset()
    return (
        frozenset(group + (1000 if power == "²" else 2000) for group in found) if power and found else found
    )


def _stem(word: str) -> str:
    small = word.lower()
    for ending, instead in (("ies", "y"), ("es", "e"), ("s", ""), ("en", ""), ("n", "")):
        if len(small) > len(ending) + 2 and small.endswith(ending):
            return (small.removesuffix(ending) + instead).rstrip("e")
    return small.rstrip("e")
