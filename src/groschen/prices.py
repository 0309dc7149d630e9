"""What electricity, machines and closed models cost: a dated, sourced file, replaceable entry by entry.

`prices.json` beside this file is shipped; $GROSCHEN_PRICES, or prices.json in the user's configuration
folder, is laid over it: what it names replaces what is shipped, each entry with its own date and source.
Leaves out taxes, storage, traffic and people's time. Prices move: look at the dates in the report.
"""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta, Struct
from platformdirs import user_config_path

from groschen.errors import BadFile
from groschen.files import decode, read_bytes

ENVIRONMENT_VARIABLE = "GROSCHEN_PRICES"
JOULES_PER_KWH = 3.6e6
_REMEDY = "see docs/costs.md"
_SHIPPED = Path(__file__).with_name("prices.json")
_LAID_OVER = ("rates", "gpu_hours", "apis")  # tables: the user's entries join or replace the shipped ones

Amount = Annotated[float, Meta(ge=0)]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$")]
Date = Annotated[str, Meta(pattern=r"^\d{4}(-\d{2}){0,2}$")]
Words = Annotated[str, Meta(min_length=1)]


class Price(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One amount, when it held and who says so."""

    value: Amount
    currency: Currency
    date: Date
    source: Words


class Rate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many units of a currency one euro is."""

    per_euro: Annotated[float, Meta(gt=0)]
    date: Date
    source: Words


class ApiPrice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of a closed model, for a million tokens each. Thinking that is not shown is billed as output."""

    input: Amount
    cached_input: Amount
    output: Amount
    currency: Currency
    date: Date
    source: Words


class MachinePrice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the machine that does the work.

    owned: `value` was paid once and is spread over `lifetime_hours`; electricity comes on top. rented:
    `value` is for an hour of the whole machine, electricity included.
    """

    kind: Literal["owned", "rented"]
    value: Amount
    currency: Currency
    date: Date
    source: Words
    lifetime_hours: Annotated[float, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        if (self.kind == "owned") != (self.lifetime_hours is not None):
            raise ValueError("an owned machine needs lifetime_hours, a rented one must not have it")

    @property
    def per_hour(self) -> float:
        """In its own currency."""
        return self.value / (self.lifetime_hours or 1.0)


class Prices(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a bill needs. Its methods answer in `currency`."""

    currency: Currency
    rates: dict[Currency, Rate]
    kwh: Price
    machine: MachinePrice
    gpu_hours: dict[str, Price]  # rents to choose a machine by; nothing is counted with them
    apis: dict[str, ApiPrice]
    hosted_rft_hour: Price

    def __post_init__(self) -> None:
        used = {self.currency, self.kwh.currency, self.machine.currency, self.hosted_rft_hour.currency}
        used |= {price.currency for price in self.gpu_hours.values()}
        used |= {price.currency for price in self.apis.values()}
        for currency in used - {"EUR", *self.rates}:
            raise ValueError(f"no rate for {currency}; add it to rates with its units for one euro")

    def convert(self, value: float, currency: str) -> float:
        """An amount of another currency in ours, by the dated rate of the file."""
        per_euro = {"EUR": 1.0, **{name: rate.per_euro for name, rate in self.rates.items()}}
        return value / per_euro[currency] * per_euro[self.currency]

    def of_energy(self, joules: float) -> float:
        """Nothing where the machine is rented: the rent contains it."""
        if self.machine.kind == "rented":
            return 0.0
        return self.convert(joules / JOULES_PER_KWH * self.kwh.value, self.kwh.currency)

    def of_machine(self, seconds: float) -> float:
        """Rent, or the share of the purchase."""
        return self.convert(seconds / 3600 * self.machine.per_hour, self.machine.currency)

    def of_api(
        self, name: str, *, input_tokens: float, output_tokens: float, cached_tokens: float = 0
    ) -> float:
        """What a closed model charges. cached_tokens: besides `input_tokens`, seen before."""
        api = self.apis[name]
        millionths = input_tokens * api.input + cached_tokens * api.cached_input + output_tokens * api.output
        return self.convert(millionths / 1e6, api.currency)

    def of_hosted_rft(self, seconds: float) -> float:
        """What hosted reinforcement fine-tuning charges for so much wall-clock time."""
        return self.convert(seconds / 3600 * self.hosted_rft_hour.value, self.hosted_rft_hour.currency)


def user_file() -> Path:
    """Where the user's own prices are looked for."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(named) if named else user_config_path("groschen") / "prices.json"


def load_prices(path: Path | None = None) -> Prices:
    """The shipped prices with the user's laid over them.

    path: the user's file; None: $GROSCHEN_PRICES, which must exist if it is set, or the one in the
    configuration folder if there is one. Raises BadFile with one sentence for anything that is not right.
    """
    must_exist = path is not None or bool(os.environ.get(ENVIRONMENT_VARIABLE))
    own = path or user_file()
    table = _read(_SHIPPED)
    if must_exist or own.exists():
        _lay_over(table, _read(own))
    try:
        return msgspec.convert(table, Prices)
    except msgspec.ValidationError as wrong:
        raise BadFile(f"{own if own.exists() else _SHIPPED}: {_explained(str(wrong))}") from wrong


def _read(path: Path) -> dict[str, object]:
    table: object = decode(read_bytes(path, remedy=_REMEDY), object, path, _REMEDY)
    if not isinstance(table, dict):
        raise BadFile(f"{path} must hold one JSON object with prices, found {type(table).__name__}")
    return cast("dict[str, object]", table)


def _lay_over(table: dict[str, object], own: dict[str, object]) -> None:
    for key, value in own.items():
        shipped = table.get(key)
        if key in _LAID_OVER and isinstance(value, dict) and isinstance(shipped, dict):
            shipped.update(value)
        else:
            table[key] = value


def _explained(message: str) -> str:
    """msgspec's sentence with the nearest key where one is unknown."""
    unknown = re.search(r"unknown field `([^`]*)`", message)
    if unknown is None:
        return message
    structs = (Prices, Price, Rate, ApiPrice, MachinePrice)
    known = {name for struct in structs for name in struct.__struct_fields__}
    return f"{message}{_nearest(unknown.group(1), known)}; see docs/costs.md"


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""
