"""The bill of a run, what closed models would have charged, and what the plan had said.

Leaves out all computing of costs (bill.py, plan.py). Prices move: each is shown with its date and source.
"""

from collections.abc import Callable, Sequence

from groschen.bill import Bill, PhaseBill, break_even_calls, cost_per_point
from groschen.evals import report_data
from groschen.evals.comparison import Finding
from groschen.evals.markup import Html, join, section, table, tag
from groschen.evals.report_results import Money, Results
from groschen.evals.report_text import DASH, Words
from groschen.plan import PhaseComparison
from groschen.plan_time import Interval
from groschen.prices import JOULES_PER_KWH, Price


def cost(results: Results, words: Words) -> Html | None:
    """Time, tokens, computing, energy and money of each phase, and of others for the same work."""
    money = results.money
    if money is None:
        return section("cost", words("cost.title"), words.language, tag("p", words("cost.none")))
    return section(
        "cost",
        words("cost.title"),
        words.language,
        tag("p", *_sentences(results, money, words)),
        _phases(money.bill, words),
        tag("p", _energy(money.bill.total, words), " ", words("cost.mfu_note"), class_="note"),
        _others(results, money, words),
        tag("p", _hosted(money, words)),
        _prices(money, words),
    )


def plan(results: Results, words: Words) -> Html | None:
    """What was predicted beside what came; None where there was no plan."""
    compared = results.planned
    if compared is None:
        return None
    names = ("phase", "planned_s", "actual_s", "inside", "planned_cost", "actual_cost")
    header = [words(f"plan.{name}", currency=compared.currency) for name in names]
    rows = [_plan_row(each, words) for each in compared.phases]
    inside = [each.is_inside for each in compared.phases if each.is_inside is not None]
    sentence = words("plan.sentence", inside=words.count(sum(inside)), compared=words.count(len(inside)))
    memory = words("plan.memory", gigabytes=words.number(compared.planned_bytes / 1e9))
    return section(
        "plan",
        words("plan.title"),
        words.language,
        tag("p", sentence, " ", memory),
        table(header, rows, caption=words("plan.caption")),
    )


def _sentences(results: Results, money: Money, words: Words) -> list[str]:
    bill = money.bill
    total = bill.total
    said = words(
        "cost.sentence",
        time=words.duration(total.wall_s),
        money=words.money(total.cost, bill.currency),
        energy=words.money(total.energy_cost, bill.currency),
        machine=words.money(total.machine_cost, bill.currency),
    )
    parts = [said]
    if results.main is not None and results.main.finding is Finding.GAIN:
        per_point = cost_per_point(total.cost, results.main.paired.gain)
        parts.append(" " + words("cost.per_point", money=words.money(per_point, bill.currency)))
    if bill.attempts > 1:
        repeated = words.duration(bill.repeated_s)
        parts.append(" " + words("cost.attempts", attempts=words.count(bill.attempts), repeated=repeated))
    return parts


def _phases(bill: Bill, words: Words) -> Html:
    names = (
        "phase",
        "time",
        "share",
        "prompt_tokens",
        "generated",
        "trained",
        "flop",
        "mfu",
        "energy",
        "money",
    )
    rows = [_phase_row(phase, bill, words) for phase in (*bill.phases, bill.total)]
    header = [words(f"cost.{name}", currency=bill.currency) for name in names]
    return table(header, rows, caption=words("cost.caption"))


def _phase_name(phase: str, words: Words) -> str:
    """The name of a phase; one that another version wrote, or nobody, stands as it was read."""
    return words(f"phase.{phase}") if words.has(f"phase.{phase}") else phase[:40]


def _phase_row(phase: PhaseBill, bill: Bill, words: Words) -> list[Html | str]:
    def tokens(count: int) -> str:
        return words.count(count) if count else DASH

    return [
        _phase_name(phase.phase, words),
        words.duration(phase.wall_s),
        words.percent(phase.wall_s / bill.total.wall_s if bill.total.wall_s else None, 0),
        tokens(phase.prompt_tokens),
        tokens(phase.generated_tokens),
        tokens(phase.trained_tokens),
        words.short(phase.flops) if phase.flops else DASH,
        words.percent(phase.mfu, 0),
        words.short(phase.joules / JOULES_PER_KWH * 1000) if phase.joules else DASH,
        words.amount(phase.cost),
    ]


def _energy(total: PhaseBill, words: Words) -> str:
    return words(f"cost.energy_{total.joules_method}")


def _others(results: Results, money: Money, words: Words) -> Html:
    header = [
        words(f"cost.{name}") for name in ("api", "api_money", "break_even", "price_date", "price_source")
    ]
    rows = []
    for api in money.apis:
        calls = _break_even(results, money, api.name)
        rows.append(
            [
                api.name,
                words.money(api.cost, api.currency),
                words.count(calls) if calls is not None else words("cost.never"),
                api.price_date,
                api.price_source,
            ]
        )
    intro = words(
        "cost.apis",
        prompt=words.count(money.apis[0].input_tokens if money.apis else 0),
        generated=words.count(money.apis[0].output_tokens if money.apis else 0),
    )
    return join(
        [tag("h3", words("cost.others")), tag("p", intro), _if_rows(header, rows, words("cost.api_caption"))]
    )


def _if_rows(header: Sequence[str], rows: Sequence[list[str]], caption: str) -> Html | None:
    return table(header, rows, caption=caption, texts=(4,)) if rows else None


def _break_even(results: Results, money: Money, name: str) -> int | None:
    """Calls like those of the evaluation after which the run has paid for itself; None: never, or not
    known.
    """
    evaluated = next((phase for phase in money.bill.phases if phase.phase == "evaluation"), None)
    trained = results.summaries.get(report_data.TRAINED)
    if evaluated is None or trained is None or not evaluated.generated_tokens:
        return None
    answers = evaluated.generated_tokens / trained.mean_tokens if trained.mean_tokens else 0.0
    api = next((each for each in money.evaluation_apis if each.name == name), None)
    if api is None or not answers:
        return None
    return break_even_calls(money.bill.total.cost, evaluated.cost / answers, api.cost / answers)


def _hosted(money: Money, words: Words) -> str:
    hosted = money.hosted
    return words(
        "cost.hosted",
        money=words.money(hosted.cost_at_our_pace, hosted.currency),
        time=words.duration(3600 * hosted.loop_hours),
        equal=words.duration(3600 * hosted.equal_hours),
        date=hosted.price_date,
        source=hosted.price_source,
    )


def _prices(money: Money, words: Words) -> Html:
    prices = money.prices
    per_hour = Price(
        value=prices.machine.per_hour,
        currency=prices.machine.currency,
        date=prices.machine.date,
        source=prices.machine.source,
    )
    named = ((words("cost.kwh"), prices.kwh), (words(f"cost.machine_{prices.machine.kind}"), per_hour))
    rows = [
        [name, words.money(price.value, price.currency), price.date, price.source] for name, price in named
    ]
    header = [words(f"cost.{name}") for name in ("price", "value", "price_date", "price_source")]
    return tag(
        "details",
        tag("summary", words("cost.prices")),
        table(header, rows, caption=words("cost.prices"), texts=(3,)),
    )


def _plan_row(each: PhaseComparison, words: Words) -> list[Html | str]:
    inside = DASH if each.is_inside is None else words.yes(each.is_inside)
    return [
        _phase_name(each.phase, words),
        _between(each.planned_s, words.duration),
        words.duration(each.actual_s),
        inside,
        _between(each.planned_cost, words.amount),
        words.amount(each.actual_cost),
    ]


def _between(interval: Interval | None, write: Callable[[float], str]) -> str:
    if interval is None:
        return DASH
    return f"{write(interval.expected)} ({write(interval.low)} \u2013 {write(interval.high)})"
