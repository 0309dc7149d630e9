"""Everything that a report says, computed once from a run folder, before any words are chosen.

Leaves out the words and the numbers' notation: every section is made once for each language from this.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from groschen.bill import (
    ApiCharge,
    Bill,
    HostedCharge,
    Roofs,
    as_hosted_training_would_charge,
    as_what_closed_apis_would_charge,
)
from groschen.bill import (
    summarise as make_bill,
)
from groschen.evals import report_data
from groschen.evals.comparison import Comparison, Summary, compare, summarise
from groschen.evals.report_data import PRICES, RunData, number_of, points_of
from groschen.plan import Comparison as PlanComparison
from groschen.plan import compare as compare_plan
from groschen.prices import Prices, load_prices


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """The bill of a run and what others would have charged; a dated price file stands behind it."""

    bill: Bill
    apis: tuple[ApiCharge, ...]  # for all that was sampled
    evaluation_apis: tuple[ApiCharge, ...]  # for the evaluations alone
    hosted: HostedCharge
    prices: Prices


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Whether the engine's logprobs and the trainer's were the same bits."""

    largest: float  # over all steps, nat; NaN if no step was recorded
    num_steps: int
    num_nonzero: int  # steps whose gap was not exactly 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The run and what follows from it. A comparison is None where one of its two evaluations is missing."""

    run: RunData
    split: str | None  # that the numbers are about; None: base or trained model was not evaluated
    summaries: Mapping[str, Summary]  # by report_data.MODELS, those that were evaluated on the split
    main: Comparison | None  # base as asked, trained
    against_prompt: Comparison | None  # base with its best prompt, trained
    against_format: Comparison | None  # trained for the format alone, trained
    money: Money | None  # None: no ledger
    planned: PlanComparison | None  # None: no plan, or no ledger to compare it with
    gap: Gap


def results_of(run: RunData, prices: Prices | None) -> Results:
    """The results of a run. prices: None takes the user's price file, or the shipped one.

    Raises BadRequest if two evaluations that are to be compared have different problems.
    """
    split = run.split
    records = {model: run.records_of(model, split) for model in report_data.MODELS} if split else {}
    records = {model: found for model, found in records.items() if found}

    def pair(first: str) -> Comparison | None:
        if first not in records or report_data.TRAINED not in records:
            return None
        return compare(records[first], records[report_data.TRAINED])

    money = _money(run, prices) if run.ledger else None
    return Results(
        run=run,
        split=split,
        summaries={model: summarise(found) for model, found in records.items()},
        main=pair(report_data.BASE),
        against_prompt=pair(report_data.PROMPTED),
        against_format=pair(report_data.FORMAT_ONLY),
        money=money,
        planned=compare_plan(run.plan, money.bill) if run.plan and money else None,
        gap=_gap(run),
    )


def prices_of(folder: Path) -> Prices:
    """The prices that a run's bill uses: prices.json of the run folder over the user's or the shipped
    ones.
    """
    own = folder / PRICES
    return load_prices(own if own.exists() else None)


def _money(run: RunData, prices: Prices | None) -> Money:
    used = prices or load_prices()
    return Money(
        bill=make_bill(run.ledger, _roofs(run), used),
        apis=as_what_closed_apis_would_charge(run.ledger, used),
        evaluation_apis=as_what_closed_apis_would_charge(run.ledger, used, ("evaluation",)),
        hosted=as_hosted_training_would_charge(run.ledger, used),
        prices=used,
    )


def _roofs(run: RunData) -> Roofs | None:
    """The roofs in the manifest, under "roofs" as `groschen doctor --json` writes them, or beside it."""
    machine = run.manifest.machine
    found = machine.get("roofs")
    roofs: Mapping[str, object] = found if isinstance(found, Mapping) else machine
    gflops, gbps = number_of(roofs, "bf16_gflops"), number_of(roofs, "read_gbps")
    if math.isnan(gflops):
        return None
    return Roofs(flops_per_s=gflops * 1e9, read_bytes_per_s=0.0 if math.isnan(gbps) else gbps * 1e9)


def _gap(run: RunData) -> Gap:
    gaps = [abs(value) for _, value in points_of(run.steps, "policy/logprob_gap_max")]
    return Gap(
        largest=max(gaps, default=math.nan), num_steps=len(gaps), num_nonzero=sum(gap != 0 for gap in gaps)
    )
