"""What was chosen for a run without a recipe, in words: five lines, a table of three budgets, JSON.

Leaves out the choosing (sizing.py).
"""

import math
import tomllib
from collections.abc import Sequence

import msgspec
from rich.table import Table

from groschen import plan as plans
from groschen.commands import command
from groschen.config import flatten
from groschen.evals.power import problems_needed
from groschen.live_words import duration, money, percent
from groschen.train.known import Known
from groschen.train.sizing import FEWEST_STEPS, Sized

OFFERED = ("30min", "8h", "60h")  # a first look, a night, a weekend
_TELLING = 8  # graded completions: if none of so many passes, the model solves under a third
_WORTH_SHOWING = 0.05  # a test that cannot show so much says how many problems would
_CHOSEN = (
    "num_steps", "max_rows", "tokens_at_once", "save_every", "budget",
    "sampling.problems_per_step", "sampling.group_size", "sampling.max_tokens",
    "optimizer.learning_rate", "optimizer.warmup_steps",
    "evaluation.every", "evaluation.dev_problems", "evaluation.dev_samples",
    "evaluation.test_problems", "evaluation.test_samples", "evaluation.prompt_problems",
)  # fmt: skip


def explain(known: Known, sized: Sized) -> list[str]:
    """What was chosen and why, five lines; more where a result is not to be expected."""
    recipe, plan = sized.recipe, sized.plan
    sampling, evaluation = recipe.sampling, recipe.evaluation
    seconds = plan.total.seconds
    within = f"within the budget of {sized.budget}"
    if not sized.fits:
        within = f"MORE THAN THE BUDGET of {sized.budget}, which will end it early"
    lines = [
        seen(known),
        f"training: {recipe.num_steps} steps of {sampling.problems_per_step} problems x "
        f"{sampling.group_size} completions of at most {sampling.max_tokens} tokens, rate "
        f"{recipe.optimizer.learning_rate:.2g}: enough updates come before large ones",
        f"measuring: {evaluation.dev_problems} dev problems x {evaluation.dev_samples} every "
        f"{evaluation.every} steps, {sized.test_problems} test problems x {evaluation.test_samples} before "
        "and after",
        what_it_shows(known, sized),
        f"it takes {duration(seconds.expected)} ({duration(seconds.low)} to {duration(seconds.high)}), "
        f"{within}; {money(plan.total.cost.expected, plan.currency)}, "
        f"{plan.memory.total / 1e9:.1f} of {plan.memory.available / 1e9:.1f} GB; --set changes any of it",
    ]
    found = known.calibration
    if found is not None and found.num_graded >= _TELLING and not found.num_passed:
        lines.append(
            f"NOTHING PASSED of {found.num_graded}: where all completions of a problem earn the same, "
            "nothing is learned; look at what the model writes, and at the prompt, before a long run"
        )
    if sized.least_budget is not None:
        lines.append(
            f"TOO SMALL FOR A RESULT: fewer than {FEWEST_STEPS} updates seldom teach anything; give "
            f"--budget {sized.least_budget} or more"
        )
    return lines


def seen(known: Known) -> str:
    """What is known of prompts and completions, and how."""
    prompts = f"prompts of {known.prompts.mean:.0f} tokens (longest {known.prompts.longest})"
    found = known.calibration
    if found is None:
        return f"{prompts}; lengths and speed by a rule of thumb, the model was not tried"
    cut = len(found.open_lengths) / max(1, len(found.lengths) + len(found.open_lengths))
    return (
        f"{prompts}, completions of {found.mean_tokens(found.limit):.0f} ({percent(cut)} had not ended when "
        f"the look was over); {found.tokens_per_s:.0f} tokens/s drawn, {found.trained_tokens_per_s:.0f} "
        f"trained; {found.num_passed} of {found.num_graded} passed, a guess to plan with and no result"
    )


def what_it_shows(known: Known, sized: Sized) -> str:
    """The smallest gain that the test would show, and what would be needed if that is large."""
    samples = sized.recipe.evaluation.test_samples
    if sized.test_problems == 0:
        return "no test problem is measured, so no gain can be claimed"
    needed = f"for 5 points {problems_needed(_WORTH_SHOWING, samples, known.base):,} problems are needed"
    about = f"{sized.test_problems} held-out problems x {samples}"
    if math.isnan(sized.smallest_gain):
        return f"NO GAIN CAN BE SHOWN with {about}: too few; {needed}"
    shown = (
        f"a gain of {100 * sized.smallest_gain:.1f} points or more would show with {about} (paired test, "
        f"5 %, power 80 %, base at {percent(known.base)}{'' if known.calibration else ', the worst case'})"
    )
    return shown if sized.smallest_gain <= _WORTH_SHOWING else f"{shown}; {needed}"


def command_of(known: Known, sized: Sized) -> str:
    """What to type for it."""
    words = ["train", known.named["task"], "--model", known.named["model"], "--budget", sized.budget]
    for flag in known.overrides:
        if flag.partition("=")[0].strip() != "budget":
            words += ["--set", flag]
    return command(*words)


def as_table(sizes: Sequence[Sized]) -> Table:
    """The budgets to pick from, in 80 columns."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    currency = sizes[0].plan.currency
    for name in ("budget", "steps", "a step", "tokens", "test", "shows", "time", "at most", currency):
        table.add_column(name, justify="right", no_wrap=True)
    for each in sizes:
        sampling, evaluation = each.recipe.sampling, each.recipe.evaluation
        gain = "nothing" if math.isnan(each.smallest_gain) else f"{100 * each.smallest_gain:.1f} pt"
        table.add_row(
            each.budget,
            f"{each.recipe.num_steps}{'*' if each.least_budget else ''}",
            f"{sampling.problems_per_step} x {sampling.group_size}",
            f"{sampling.max_tokens}",
            f"{each.test_problems} x {evaluation.test_samples}",
            gain,
            plans.duration(each.plan.total.seconds.expected),
            plans.duration(each.plan.total.seconds.high),
            plans.figure(each.plan.total.cost.expected),
        )
    return table


def footnotes(known: Known, sizes: Sequence[Sized]) -> list[str]:
    """What the columns of the table mean, and what to type for each row."""
    lines = [
        "a step: problems x completions; tokens: of a completion, at most; test: problems x completions, "
        "before and after;",
        "shows: the smallest gain that the test would show (paired, 5 %, power 80 %, base at "
        f"{percent(known.base)}{'' if known.calibration else ', the worst case'})",
    ]
    if any(each.least_budget for each in sizes):
        least = next(each.least_budget for each in sizes if each.least_budget)
        lines.append(
            f"* too small for a result: fewer than {FEWEST_STEPS} updates; --budget {least} is the least"
        )
    if all(not each.smallest_gain <= _WORTH_SHOWING for each in sizes):
        lines.append(what_it_shows(known, sizes[-1]))
    return [*lines, *(command_of(known, each) for each in sizes)]


def as_json(known: Known, sizes: Sequence[Sized]) -> str:
    """One object with a line end: what is known, and what was chosen for each budget (docs/json.md)."""
    found = known.calibration
    shown = {
        "task": known.named["task"],
        "model": known.named["model"],
        "prompt_tokens": {"mean": known.prompts.mean, "longest": known.prompts.longest},
        "calibration": found,
        "base_rate_assumed": known.base,
        "sizes": [
            {
                "budget": each.budget,
                "settings": _settings(each),
                "smallest_gain": None if math.isnan(each.smallest_gain) else each.smallest_gain,
                "test_problems": each.test_problems,
                "fits": each.fits,
                "has_a_step": each.has_a_step,
                "least_budget": each.least_budget,
                "command": command_of(known, each),
                "plan": each.plan,
            }
            for each in sizes
        ],
    }
    return msgspec.json.format(msgspec.json.encode(shown)).decode() + "\n"


def _settings(sized: Sized) -> dict[str, object]:
    chosen = flatten(sized.recipe)
    return {name: tomllib.loads(f"v = {chosen[name]}")["v"] for name in _CHOSEN}
