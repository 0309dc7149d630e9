"""The door to the verifiers: by kind and settings, as JSONL rows and TOML files name them, or by classes.

verifiers.from_settings("number", {"locale": "de", "units": ["€", "Euro"]})
verifiers.Number(locale=verifiers.Locale.DE)
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields

import msgspec

from groschen.errors import BadRequest
from groschen.tasks.answers import Exact, Number, Percent
from groschen.tasks.choice import Choice
from groschen.tasks.combined import Part, Weighted, part_settings
from groschen.tasks.json_schema import Json
from groschen.tasks.judging import Verifier
from groschen.tasks.mathematics import Expression
from groschen.tasks.numbers import Locale, Quantity, last_number, readings
from groschen.tasks.patterns import Pattern
from groschen.tasks.slots import Slot
from groschen.tasks.unit_tests import Code

__all__ = [
    "Choice", "Code", "Exact", "Expression", "Json", "Locale", "Number", "Part", "Pattern", "Percent",
    "Quantity", "Slot", "Verifier", "Weighted", "from_settings", "last_number", "readings",
]  # fmt: skip

_Kind = type[Exact] | type[Number] | type[Choice] | type[Pattern] | type[Json] | type[Expression] | type[Code]
KINDS: Mapping[str, _Kind] = {
    "exact": Exact,
    "number": Number,
    "choice": Choice,
    "pattern": Pattern,
    "json": Json,
    "expression": Expression,
    "code": Code,
}


def from_settings(kind: str, settings: Mapping[str, object]) -> Verifier:
    """The verifier of a kind. Raises BadRequest that names an unknown kind or key, or a value out of range.

    "weighted" takes `parts`: a table from names to {kind = ..., weight = 1.0, required = true, ...}.
    """
    if kind == "weighted":
        return _weighted(settings)
    if kind not in KINDS:
        raise BadRequest(f"there is no kind of checker {kind!r:.200}; {_nearest(kind, [*KINDS, 'weighted'])}")
    made = KINDS[kind]
    names = [field.name for field in fields(made) if field.init]
    for key in settings:
        if key not in names:
            raise BadRequest(f"the checker {kind!r:.200} has no setting {key!r:.200}; {_nearest(key, names)}")
    try:
        return msgspec.convert(dict(settings), made)
    except msgspec.ValidationError as error:
        raise BadRequest(f"the checker {kind!r:.200} can't be set so: {error}") from error


def _weighted(settings: Mapping[str, object]) -> Weighted:
    for key in settings:
        if key != "parts":
            raise BadRequest(
                f"the checker 'weighted' has no setting {key!r:.200}; {_nearest(key, ['parts'])}"
            )
    raw = settings.get("parts")
    if not isinstance(raw, Mapping) or not raw:
        raise BadRequest(
            f"the checker 'weighted' has the parts {raw!r:.200}; expected a table from names to checkers"
        )
    parts = []
    for name, one in raw.items():
        own, weight, required = part_settings(str(name), one)
        rest = {key: value for key, value in own.items() if key != "kind"}
        verifier = from_settings(str(own["kind"]), rest)
        parts.append(Part(name=str(name), verifier=verifier, weight=weight, required=required))
    return Weighted(parts=tuple(parts))


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r:.200}?" if near else f"known are {', '.join(map(repr, names))}"
