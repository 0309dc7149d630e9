"""What a recipe will take before it is started: seconds, FLOPs, joules, money and memory, phase by phase.

Leaves out how times (plan_time.py) and bytes (plan_memory.py) are found, and what was really spent (bill.py),
which `compare` lays beside the plan.
"""

import math
from dataclasses import dataclass

import msgspec
from rich.table import Table

from groschen.bill import Bill, Roofs
from groschen.energy import estimated_watts
from groschen.errors import BadRequest
from groschen.model.config import ModelConfig
from groschen.model.flops import Flops
from groschen.plan_memory import Layout, MemoryPlan, parameter_count, plan_memory, refuse_if_too_much
from groschen.plan_time import Interval, Rates, RecipeFacts, work
from groschen.prices import Prices


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePlan:
    """One phase, or the whole. Money in the plan's currency."""

    phase: str
    flops: float
    recomputed_flops: float
    seconds: Interval
    joules: float  # estimated, for the expected time
    energy_cost: float
    cost: Interval  # electricity and machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The prediction for one run."""

    phases: tuple[PhasePlan, ...]
    total: PhasePlan
    memory: MemoryPlan
    num_parameters: int
    samples: int  # completions that are trained on
    currency: str
    recomputes_layers: bool = False  # for the gradient, instead of keeping what it needs


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseComparison:
    """Prediction and outcome of one phase; None where only one of them has it."""

    phase: str
    planned_s: Interval | None
    actual_s: float | None
    is_inside: bool | None  # the outcome lies in the interval
    planned_flops: float | None
    actual_flops: float | None
    planned_cost: Interval | None
    actual_cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Prediction and outcome of a run."""

    phases: tuple[PhaseComparison, ...]  # the last one is the total
    planned_bytes: int
    peak_bytes: int | None
    currency: str


def plan(
    config: ModelConfig,
    facts: RecipeFacts,
    roofs: Roofs,
    prices: Prices,
    layout: Layout,
    *,
    available_bytes: int,
    cpus: int,
) -> Plan:
    """Predict a run. Raises DoesNotFit, with what to change, if its memory exceeds `available_bytes`."""
    memory = plan_memory(
        config,
        layout,
        available=available_bytes,
        cache_tokens=_cache_tokens(facts),
        micro_batch_tokens=max(facts.micro_batch_tokens, facts.prompt_tokens + facts.max_completion_tokens),
        scored_tokens=max(facts.scored_tokens, facts.max_completion_tokens),
        recomputes_layers=facts.recomputes_layers,
        adapter_weights=facts.adapter_weights,
        has_reference=facts.has_reference,
    )
    refuse_if_too_much(memory)
    watts = estimated_watts(cpus, memory.available)
    phases = tuple(
        _priced(phase, flops, seconds, watts, prices)
        for phase, flops, seconds in work(Rates(config, facts, roofs, layout))
        if seconds.high > 0
    )
    seconds, flops = Interval(0, 0, 0), Flops()
    for each in phases:
        seconds, flops = seconds + each.seconds, flops + Flops(each.flops, each.recomputed_flops)
    return Plan(
        phases=phases,
        total=_priced("total", flops, seconds, watts, prices),
        memory=memory,
        num_parameters=parameter_count(config),
        samples=facts.steps * facts.problems_per_step * facts.group_size,
        currency=prices.currency,
        recomputes_layers=facts.recomputes_layers,
    )


def compare(planned: Plan, bill: Bill, peak_bytes: int | None = None) -> Comparison:
    """The plan beside the bill, phase by phase, in the order of the bill; the total last."""
    plans = {each.phase: each for each in (*planned.phases, planned.total)}
    bills = {each.phase: each for each in (*bill.phases, bill.total)}
    names = [name for name in dict.fromkeys([*bills, *plans]) if name != "total"]
    rows = []
    for name in [*names, "total"]:
        before, after = plans.get(name), bills.get(name)
        rows.append(
            PhaseComparison(
                phase=name,
                planned_s=before.seconds if before else None,
                actual_s=after.wall_s if after else None,
                is_inside=after.wall_s in before.seconds if before and after else None,
                planned_flops=before.flops if before else None,
                actual_flops=after.flops if after else None,
                planned_cost=before.cost if before else None,
                actual_cost=after.cost if after else None,
            )
        )
    if planned.currency != bill.currency:
        raise BadRequest(f"the plan is in {planned.currency}, the bill in {bill.currency}; use one of them")
    return Comparison(
        phases=tuple(rows),
        planned_bytes=planned.memory.total,
        peak_bytes=peak_bytes,
        currency=bill.currency,
    )


def as_json(found: Plan | Comparison) -> str:
    """One JSON object, indented, with a line end (docs/costs.md)."""
    return msgspec.json.format(msgspec.json.encode(found)).decode() + "\n"


def as_table(found: Plan) -> Table:
    """The plan for people: a line for each phase, the total, and memory. It fits 80 columns, and a pipe."""
    taken = f"memory {found.memory.total / 1e9:.2f} GB of {found.memory.available / 1e9:.2f}"
    table = Table(box=None, padding=(0, 2, 0, 0), caption=taken, caption_justify="left", caption_style="bold")
    for name in ("phase", "time", "between", "TFLOP", "Wh", found.currency):
        table.add_column(name, justify="left" if name == "phase" else "right", no_wrap=True)
    for each in (*found.phases, found.total):
        table.add_row(
            each.phase,
            duration(each.seconds.expected),
            f"{duration(each.seconds.low)} - {duration(each.seconds.high)}",
            figure((each.flops + each.recomputed_flops) / 1e12),
            figure(each.joules / 3600),
            f"{figure(each.cost.low)} - {figure(each.cost.high)}",
            style="bold" if each is found.total else None,
        )
    return table


def duration(seconds: float) -> str:
    """Seconds as "2.5 s", "4m 54s", "1h 02m" or "6d 07h": two of them have to fit a column."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours = minutes // 60
    if hours >= 100:
        return f"{hours // 24}d {hours % 24:02d}h"
    return f"{minutes}m {rest:02d}s" if minutes < 60 else f"{hours}h {minutes % 60:02d}m"


def figure(value: float) -> str:
    """At most seven characters: "0", "0.0123", "4.56", "12,345", "1.7e+06"; below 0.001 four decimals."""
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}" if value < 999_999 else f"{value:.1e}"
    if value < 0.001:
        return f"{value:.4f}"
    return f"{value:.{2 - math.floor(math.log10(value))}f}"


def _cache_tokens(facts: RecipeFacts) -> int:
    """Positions of all rows that decode together, a group's prompt once."""
    rows = min(facts.max_rows, facts.problems_per_step * facts.group_size)
    groups = -(-rows // facts.group_size)
    return groups * facts.prompt_tokens + rows * facts.max_completion_tokens


def _priced(phase: str, flops: Flops, seconds: Interval, watts: float, prices: Prices) -> PhasePlan:
    def cost(duration: float) -> float:
        return prices.of_energy(duration * watts) + prices.of_machine(duration)

    return PhasePlan(
        phase=phase,
        flops=flops.model,
        recomputed_flops=flops.recomputed,
        seconds=seconds,
        joules=seconds.expected * watts,
        energy_cost=prices.of_energy(seconds.expected * watts),
        cost=Interval(cost(seconds.low), cost(seconds.expected), cost(seconds.high)),
    )
