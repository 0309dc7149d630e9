"""A ledger's lines to a bill: seconds, tokens, FLOPs, joules and money for each phase, and comparisons.

Every line of every attempt is counted. What a resumed run had to repeat is named besides (`repeated_s`), and
time between spans is the phase "unaccounted". Two costs stand side by side: electricity alone (what an idle
machine of one's own costs more), and with the machine's share. Leaves out people's time and the failed runs
that have ledgers of their own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from groschen.energy import ESTIMATED, MEASURED, NONE
from groschen.ledger import PHASES, LedgerLine
from groschen.prices import Prices

UNACCOUNTED = "unaccounted"
INCOMPLETE = "incomplete"  # some of the lines have no energy
_SAMPLING = ("generation", "evaluation")  # what an API would have been called for
_TRAINING_LOOP = ("generation", "verification", "training")
_REPEATABLE = (*_TRAINING_LOOP, "evaluation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofs:
    """The measured limits of the machine that did the work, of `groschen doctor`."""

    flops_per_s: float  # products, in the type that the model computes in
    read_bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseBill:
    """One phase of a run, or the whole of it. Money in the currency of the bill."""

    phase: str
    wall_s: float = 0.0
    cpu_s: float = 0.0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    trained_tokens: int = 0
    flops: float = 0.0
    recomputed_flops: float = 0.0
    mfu: float | None = None  # flops over what the roof allows in wall_s; None: no FLOPs, or no roof known
    hfu: float | None = None  # the same with recomputed_flops
    joules: float = 0.0
    joules_method: str = NONE  # "measured", "estimated", "incomplete" or "none"
    energy_cost: float = 0.0
    machine_cost: float = 0.0

    @property
    def cost(self) -> float:
        """Electricity and machine."""
        return self.energy_cost + self.machine_cost

    @property
    def tokens_per_s(self) -> float:
        """Generated and trained tokens in a second."""
        return (self.generated_tokens + self.trained_tokens) / self.wall_s if self.wall_s else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a run has cost so far."""

    phases: tuple[PhaseBill, ...]  # those that occurred, in the recipe's order; others; "unaccounted" last
    total: PhaseBill
    currency: str
    attempts: int
    repeated_s: float  # of the total, at most: steps that a later attempt did again
    repeated_cost: float

    @property
    def unaccounted_s(self) -> float:
        """Wall-clock time between the spans."""
        return sum(phase.wall_s for phase in self.phases if phase.phase == UNACCOUNTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCharge:
    """What one closed model would have charged for the tokens of a run."""

    name: str
    input_tokens: int
    output_tokens: int
    cost: float
    currency: str
    price_date: str
    price_source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedCharge:
    """Hosted reinforcement fine-tuning, which is billed by the hour of its own machines.

    cost_at_our_pace: if it took as long as ours did; it may well be faster. equal_hours: the time for which
    it charges as much as our whole run cost.
    """

    loop_hours: float
    cost_at_our_pace: float
    equal_hours: float
    currency: str
    price_date: str
    price_source: str


def summarise(lines: Sequence[LedgerLine], roofs: Roofs | None, prices: Prices) -> Bill:
    """The bill of all lines. roofs: None leaves MFU open."""
    found = [
        _phase(phase, [line for line in lines if line.phase == phase], roofs, prices)
        for phase in (*PHASES, *dict.fromkeys(line.phase for line in lines if line.phase not in PHASES))
        if any(line.phase == phase for line in lines)
    ]
    gaps = _phase(UNACCOUNTED, [_gap(line) for line in lines], None, prices)
    phases = (*found, gaps) if gaps.wall_s > 0 else tuple(found)
    everything = [*lines, *(_gap(line) for line in lines)]
    repeated = _phase("repeated", _repeated(lines), None, prices)
    return Bill(
        phases=phases,
        total=_phase("total", everything, roofs, prices),
        currency=prices.currency,
        attempts=max((line.attempt for line in lines), default=0),
        repeated_s=repeated.wall_s,
        repeated_cost=repeated.cost,
    )


def as_what_closed_apis_would_charge(
    lines: Sequence[LedgerLine], prices: Prices, phases: Sequence[str] = _SAMPLING
) -> tuple[ApiCharge, ...]:
    """What each closed model of the price file would have charged to sample as many tokens.

    The prompt of a group is charged once, nothing as cached, and every generated token as output, as hidden
    thinking is. Tokens are ours: another model's tokenizer splits the same text a little differently.
    """
    chosen = [line for line in lines if line.phase in phases]
    prompt = sum(line.prompt_tokens for line in chosen)
    generated = sum(line.generated_tokens for line in chosen)
    return tuple(
        ApiCharge(
            name=name,
            input_tokens=prompt,
            output_tokens=generated,
            cost=prices.of_api(name, input_tokens=prompt, output_tokens=generated),
            currency=prices.currency,
            price_date=api.date,
            price_source=api.source,
        )
        for name, api in sorted(prices.apis.items())
    )


def as_hosted_training_would_charge(lines: Sequence[LedgerLine], prices: Prices) -> HostedCharge:
    """Hosted reinforcement fine-tuning in the place of the training loop; its grader tokens are left out."""
    loop_s = sum(line.wall_s for line in lines if line.phase in _TRAINING_LOOP)
    price, hour = prices.hosted_rft_hour, prices.of_hosted_rft(3600)
    return HostedCharge(
        loop_hours=loop_s / 3600,
        cost_at_our_pace=prices.of_hosted_rft(loop_s),
        equal_hours=summarise(lines, None, prices).total.cost / hour if hour else math.inf,
        currency=prices.currency,
        price_date=price.date,
        price_source=price.source,
    )


def cost_per_point(cost: float, gain: float) -> float | None:
    """Money for each percentage point gained. gain: 0.05 is 5 points. None: nothing was gained."""
    return cost / (100.0 * gain) if gain > 0 else None


def break_even_calls(training_cost: float, own_per_call: float, api_per_call: float) -> int | None:
    """Calls after which training and running an own model costs less than a closed one; None: never."""
    saved = api_per_call - own_per_call
    return math.ceil(training_cost / saved) if saved > 0 else None


def _phase(phase: str, lines: Sequence[LedgerLine], roofs: Roofs | None, prices: Prices) -> PhaseBill:
    names = {field.name for field in fields(LedgerLine)} & {field.name for field in fields(PhaseBill)}
    sums = {name: sum(getattr(line, name) for line in lines) for name in names - _NOT_SUMMED}
    possible = roofs.flops_per_s * sums["wall_s"] if roofs else 0.0
    has_mfu = possible > 0 and sums["flops"] > 0
    joules = sum(line.joules or 0.0 for line in lines)
    return PhaseBill(
        phase=phase,
        **sums,
        mfu=sums["flops"] / possible if has_mfu else None,
        hfu=(sums["flops"] + sums["recomputed_flops"]) / possible if has_mfu else None,
        joules=joules,
        joules_method=_method(lines),
        energy_cost=prices.of_energy(joules),
        machine_cost=prices.of_machine(sums["wall_s"]),
    )


_NOT_SUMMED = {"phase", "joules", "joules_method"}


def _method(lines: Sequence[LedgerLine]) -> str:
    methods = {line.joules_method for line in lines}
    if len(methods) < 2:
        return next(iter(methods), NONE)
    return INCOMPLETE if NONE in methods else ESTIMATED if ESTIMATED in methods else MEASURED


def _gap(line: LedgerLine) -> LedgerLine:
    """What passed before a line, as a line."""
    return LedgerLine(
        phase=UNACCOUNTED,
        step=line.step,
        wall_s=line.gap_wall_s,
        cpu_s=line.gap_cpu_s,
        joules=line.gap_joules,
        joules_method=line.joules_method,
        attempt=line.attempt,
    )


def _repeated(lines: Sequence[LedgerLine]) -> list[LedgerLine]:
    """Lines of steps at or after the one where a later attempt began with the same phase."""
    began: dict[tuple[int, str], int] = {}
    for line in lines:
        if line.phase in _REPEATABLE:
            began.setdefault((line.attempt, line.phase), line.step)
    return [
        line
        for line in lines
        if line.phase in _REPEATABLE
        and any(
            later > line.attempt and phase == line.phase and line.step >= step
            for (later, phase), step in began.items()
        )
    ]
