"""What a run may spend: a time, an amount of computing or of money, and whether it is used up.

Leaves out measuring what was spent (the ledger) and converting one currency into another.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

from groschen.errors import BadRequest, UsageError

_SECONDS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "d": 86_400}
_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18, "z": 1e21}
_CURRENCIES = ("EUR", "USD")
_FORM = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-z]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a run has taken so far, all its processes together."""

    seconds: float = 0.0  # of wall time while a process of the run was at work
    flops: float = 0.0  # by formula
    money: float = 0.0
    currency: str = "EUR"

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            seconds=self.seconds + other.seconds,
            flops=self.flops + other.flops,
            money=self.money + other.money,
            currency=self.currency,
        )

    def times(self, factor: float) -> "Spent":
        """As much of everything, so many times."""
        return Spent(
            seconds=self.seconds * factor,
            flops=self.flops * factor,
            money=self.money * factor,
            currency=self.currency,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most that a run may take. `text` is how it was written; `currency` is set for money only."""

    kind: Literal["time", "flops", "money"]
    amount: float  # seconds, floating-point operations or units of the currency
    text: str
    currency: str | None = None

    def share(self, spent: Spent) -> float:
        """How much of it is used, 1.0 for all. Raises BadRequest if the costs are in another currency."""
        if self.kind == "time":
            return spent.seconds / self.amount
        if self.kind == "flops":
            return spent.flops / self.amount
        if spent.currency != self.currency:
            raise BadRequest(
                f"the budget is {self.text} and the price file counts in {spent.currency}; give "
                f"the budget in {spent.currency}"
            )
        return spent.money / self.amount

    def __str__(self) -> str:
        return self.text


def parse_budget(text: str) -> Budget:
    """A time (90s, 10min, 2h, 1d), computing (5e14FLOP, 3PFLOP) or money (2EUR, 3USD).

    Raises UsageError for anything else, and for an amount that is not above zero.
    """
    form = _FORM.fullmatch(text.strip())
    if form is None:
        raise _misunderstood(text)
    amount, unit = float(form[1]), form[2]
    if not 0 < amount < math.inf:
        raise UsageError(f"a budget must be above zero and finite, found {text!r}")
    if unit.lower() in _SECONDS:
        return Budget(kind="time", amount=amount * _SECONDS[unit.lower()], text=text.strip())
    if unit.upper() in _CURRENCIES:
        return Budget(kind="money", amount=amount, text=text.strip(), currency=unit.upper())
    flops = re.fullmatch(r"([a-z]?)flops?", unit.lower())
    if flops is None or flops[1] not in _PREFIXES:
        raise _misunderstood(text)
    return Budget(kind="flops", amount=amount * _PREFIXES[flops[1]], text=text.strip())


def _misunderstood(text: str) -> UsageError:
    return UsageError(
        f"{text!r} is no budget; write a time (90s, 10min, 2h), computing (5e14FLOP, 3PFLOP) or money "
        f"({', '.join(f'2{currency}' for currency in _CURRENCIES)})"
    )
