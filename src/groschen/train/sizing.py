"""How large a run should be: steps, completions, tokens and measurements for a budget, on this machine.

What is known (prompts in tokens, problems of each split, the machine's roofs, a calibration) and the budget
decide; what the user set stays and the rest is chosen around it. The plan of what is chosen ends within the
budget at the high end of its interval. Leaves out the plan itself (planning.py) and all words (advice.py).

The rules, from public runs of models of 0.5 to 1.5 billion weights: groups of 8 (16 where the base seldom
passes), up to 32 problems a step, but first enough updates: runs gained within 50 to 500 of them, with a rate
times their number of about 5e-4 (1e-5 x 50, 1e-6 x 450, 1e-6 x 500). The rate stays between 1e-6 and the 3e-6
of DeepSeek-R1: at 1e-5 runs of a 0.5B model here got worse. Small models peak early: dev is asked every 25
steps or oftener, and there are at most 400 steps.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch

from groschen import machine
from groschen.config import build
from groschen.errors import BadRequest, DoesNotFit
from groschen.evals.power import smallest_gain
from groschen.model.kvcache import KEYS_PER_BLOCK, KeyValueCache
from groschen.model.operations import kit_for
from groschen.plan import Plan
from groschen.plan_time import RecipeFacts
from groschen.records import Split
from groschen.runs.budget import Budget, Spent
from groschen.train.known import Known, is_set
from groschen.train.planning import facts, plan_with
from groschen.train.recipe import GrpoRecipe

FEWEST_STEPS = 40  # below, a gain is not to be expected
_MOST_STEPS = 400
# Completions of a step, and the steps that must be possible before they are so many.
_COMPLETIONS = {256: 100, 128: 80, 64: 60, 32: FEWEST_STEPS, 16: FEWEST_STEPS}
_SELDOM = 0.1  # a base that passes less often needs larger groups to see a pass at all
_RATE_TIMES_STEPS, _LEAST_RATE, _MOST_RATE = 5e-4, 1e-6, 3e-6
_TEST_SHARE, _DEV_SHARE, _WORDING_SHARE = 0.2, 0.15, 0.05  # of the budget, at most
_TEST_PROBLEMS, _DEV_COMPLETIONS = (2000, 1000, 500, 250, 100, 50, 20), (300, 200, 100, 64, 32, 16)
_WORDING_PROBLEMS = (50, 24, 12)
_SMALL_ENOUGH = 0.03  # a test that shows this gain needs to be no larger
_ROWS = {"cpu": 64, "cuda": 256}
_MICRO_BATCHES = {"cpu": (2048, 1024), "cuda": (16384, 8192, 4096, 2048, 1024)}
_MEMORY_SHARE = 0.9  # of what is free, for a micro-batch that is larger than it must be
_MAX_TOKENS = 512  # where no completion was seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """What was chosen for one budget."""

    budget: str
    recipe: GrpoRecipe
    plan: Plan
    test_problems: int  # that there are, of those that the recipe wants
    smallest_gain: float  # that this test would show; NaN: none
    fits: bool  # the plan's high end lies within the budget
    has_a_step: bool  # and the middle of it does
    least_budget: str | None  # where this one is too small for a result: one that is not


def default_budget(device: torch.device) -> str:
    """A night on a CPU; on a GPU an hour, in which it does what two cores do in days."""
    return "8h" if device.type == "cpu" else "1h"


def choose(known: Known, budget: Budget) -> Sized:
    """The sizes for a budget. Raises DoesNotFit if the memory is too small."""
    for measuring in (1.0, 0.5):
        search = _Search(known, budget, measuring)
        best = search.best()
        if best.fits and best.steps >= FEWEST_STEPS:
            break  # else half of the measurements, for more steps
    recipe = search.recipe(best)
    is_short = recipe.num_steps < FEWEST_STEPS and not is_set(known.overrides, "num_steps")
    num_test = min(recipe.evaluation.test_problems, len(known.task.problems[Split.TEST]))
    return Sized(
        budget=str(budget),
        recipe=recipe,
        plan=search.plan(recipe),
        test_problems=num_test,
        smallest_gain=smallest_gain(num_test, recipe.evaluation.test_samples, known.base),
        fits=search.share(recipe) <= 1,
        has_a_step=search.share(recipe, at="expected") <= 1,
        least_budget=search.least_budget(best) if is_short else None,
    )


def refuse_without_a_step(sized: Sized) -> None:
    """Raises BadRequest, with the least that would do, if not even one step is expected to fit."""
    if sized.least_budget is not None and not sized.has_a_step:
        recipe = sized.recipe
        raise BadRequest(
            f"a budget of {sized.budget} is too small to measure {recipe.model} on {recipe.task}, train one "
            "step and measure it again on this machine; for a result give --budget "
            f"{sized.least_budget} or more"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """A candidate."""

    steps: int
    problems: int
    group: int
    max_tokens: int
    max_rows: int
    tokens_at_once: int
    every: int = 10
    dev_problems: int = 1
    dev_samples: int = 1
    test_problems: int = 0
    test_samples: int = 1
    prompt_problems: int = 0
    fits: bool = True  # the high end of its plan lies within the budget


class _Search:
    """Candidates as recipes, with what the user set, and which share of the budget each takes."""

    def __init__(self, known: Known, budget: Budget, measuring: float) -> None:
        """measuring: how much of its usual share of the budget measuring may have."""
        self.known, self.budget, self.measuring = known, budget, measuring

    def best(self) -> _Sizes:
        """The most completions a step that leave it steps enough."""
        start = self.with_test(self.with_memory(self.start()))
        for count, least_steps in self.problem_counts(start):
            sizes = self.with_steps(replace(start, problems=count))
            if sizes.fits and sizes.steps >= least_steps:
                break
        return sizes

    def start(self) -> _Sizes:
        """Group size, lengths and rows, which do not depend on the budget."""
        seen, kind = self.known.calibration, self.known.device.type
        is_seldom = seen is not None and seen.num_passed < _SELDOM * seen.num_graded
        return _Sizes(
            steps=1,
            problems=max(_COMPLETIONS) // 8,  # for the memory of all rows
            group=16 if is_seldom else 8,
            max_tokens=_max_tokens(self.known),
            max_rows=self._rows(),
            tokens_at_once=_MICRO_BATCHES.get(kind, _MICRO_BATCHES["cpu"])[0],
        )

    def _rows(self) -> int:
        """Rows whose cache takes a quarter of the memory at most, should all have the longest prompt."""
        known, rows = self.known, _ROWS.get(self.known.device.type, _ROWS["cpu"])
        dtype = kit_for(known.device, torch.bfloat16).operations.activation_dtype
        per_token = KeyValueCache.bytes_per_block(known.config, dtype) / KEYS_PER_BLOCK
        row_bytes = 1.25 * per_token * (known.prompts.longest + _max_tokens(known))
        while rows > 4 and rows * row_bytes > machine.free_memory_bytes(known.device) / 4:
            rows //= 2
        return rows

    def with_memory(self, sizes: _Sizes) -> _Sizes:
        """The largest micro-batch whose activations fit with room to spare (other programs may want memory
        before the run begins), else the smallest: its layers are computed again.
        """
        kind = self.known.device.type
        for count in _MICRO_BATCHES.get(kind, _MICRO_BATCHES["cpu"]):
            sizes = replace(sizes, tokens_at_once=count)
            try:
                plan = self.plan(self.recipe(sizes))
                if not plan.recomputes_layers and plan.memory.total <= _MEMORY_SHARE * plan.memory.available:
                    return sizes
            except DoesNotFit:
                continue
        self.plan(self.recipe(sizes))
        return sizes

    def with_test(self, sizes: _Sizes) -> _Sizes:
        """The test that shows the smallest gain for its share of the budget, but no finer than is of use;
        then the other wordings of the prompt.
        """
        available = len(self.known.task.problems[Split.TEST])
        counts = sorted({min(count, available) for count in _TEST_PROBLEMS})
        pairs = [(n, k) for n in counts for k in (1, 2, 4, 8) if k < 8 or n <= 250]
        without = self.share(self.recipe(sizes))
        candidates = [replace(sizes, test_problems=n, test_samples=k) for n, k in pairs]
        paid = [
            each
            for each in candidates
            if self.share(self.recipe(each)) - without <= self.measuring * _TEST_SHARE
        ]
        gains = {each: smallest_gain(each.test_problems, each.test_samples, self.known.base) for each in paid}
        enough = [each for each in paid if gains[each] <= _SMALL_ENOUGH]
        if enough:
            sizes = min(enough, key=lambda each: each.test_problems * each.test_samples)
        elif paid:
            sizes = min(paid, key=lambda each: (_or_infinite(gains[each]), each.test_samples))
        else:
            sizes = candidates[0]
        return self._with_wordings(sizes)

    def _with_wordings(self, sizes: _Sizes) -> _Sizes:
        if not self.known.task.instructions:
            return sizes
        without = self.share(self.recipe(sizes))
        for count in _WORDING_PROBLEMS:
            tried = replace(sizes, prompt_problems=count)
            if self.share(self.recipe(tried)) - without <= self.measuring * (
                _WORDING_SHARE + _TEST_SHARE / 2
            ):
                return tried
        return sizes

    def problem_counts(self, sizes: _Sizes) -> list[tuple[int, int]]:
        """Problems of a step to choose from, the most first, each with the steps that it asks for."""
        num_train = len(self.known.task.of(Split.TRAIN))
        counts = {min(num_train, max(1, n // sizes.group)): least for n, least in _COMPLETIONS.items()}
        return list(counts.items())

    def with_steps(self, sizes: _Sizes) -> _Sizes:
        """As many steps as the budget has, one at least, with measurements on dev between them."""
        num_evaluations = 7
        for _ in range(2):
            sizes = self._with_dev(replace(sizes, steps=1), num_evaluations)
            sizes = self._with_most_steps(sizes)
            num_evaluations = 1 + -(-sizes.steps // sizes.every)
        return sizes

    def _with_dev(self, sizes: _Sizes, num_evaluations: int) -> _Sizes:
        available = len(self.known.task.of(Split.DEV))
        least = self.share(self.recipe(replace(sizes, dev_problems=1, dev_samples=1, every=1)))
        for count in _DEV_COMPLETIONS:
            n = min(count, available)
            tried = replace(sizes, dev_problems=n, dev_samples=min(4, max(1, count // n)), every=1)
            # One step: of the base, and after it.
            once = (self.share(self.recipe(tried)) - least) / 2
            if once * num_evaluations <= self.measuring * _DEV_SHARE:
                break
        return tried

    def _with_most_steps(self, sizes: _Sizes) -> _Sizes:
        few, many = 1, _MOST_STEPS
        if is_set(self.known.overrides, "num_steps"):
            few = many = self.recipe(sizes).num_steps
        while few < many:
            middle = (few + many + 1) // 2
            if self.share(self.recipe(_of_steps(sizes, middle))) <= 1:
                few = middle
            else:
                many = middle - 1
        chosen = _of_steps(sizes, few)
        return replace(chosen, fits=self.share(self.recipe(chosen)) <= 1)

    def recipe(self, sizes: _Sizes) -> GrpoRecipe:
        """The candidate as a recipe: what the user set counts before it."""
        rate = min(_MOST_RATE, max(_LEAST_RATE, _RATE_TIMES_STEPS / sizes.steps))
        settings: dict[str, object] = {
            **self.known.named,
            "num_steps": sizes.steps,
            "max_rows": sizes.max_rows,
            "tokens_at_once": sizes.tokens_at_once,
            "save_every": sizes.every if sizes.every <= 10 else -(-sizes.every // 2),
            "budget": str(self.budget),
            "sampling": {
                "problems_per_step": sizes.problems,
                "group_size": sizes.group,
                "max_tokens": sizes.max_tokens,
            },
            "optimizer": {"learning_rate": float(f"{rate:.2g}"), "warmup_steps": min(5, sizes.steps // 10)},
            "evaluation": {
                "every": sizes.every,
                "dev_problems": sizes.dev_problems,
                "dev_samples": sizes.dev_samples,
                "test_problems": sizes.test_problems,
                "test_samples": sizes.test_samples,
                "prompt_problems": sizes.prompt_problems,
            },
        }
        source = str(self.known.named.get("task"))
        return build(GrpoRecipe, settings, self.known.overrides, source=source)

    def plan(self, recipe: GrpoRecipe) -> Plan:
        """What the candidate takes. Raises DoesNotFit."""
        known = self.known
        return plan_with(self._facts(recipe), recipe, known.config, known.device, known.roofs)

    def _facts(self, recipe: GrpoRecipe) -> RecipeFacts:
        known = self.known
        return facts(
            recipe, known.task, known.text, known.completion_tokens, prompts=known.prompts,
            calibration=known.calibration,
        )  # fmt: skip

    def share(self, recipe: GrpoRecipe, at: Literal["expected", "high"] = "high") -> float:
        """Which share of the budget the candidate takes, the command around it included."""
        plan = self.plan(recipe)
        seconds, cost = plan.total.seconds, plan.total.cost
        longer = self._facts(recipe).most_tokens_share
        is_high = at == "high"
        spent = Spent(
            seconds=(seconds.high if is_high else seconds.expected) + self.known.spent_s,
            flops=plan.total.flops * (longer if is_high else 1.0),
            money=cost.high if is_high else cost.expected,
            currency=plan.currency,
        )
        return self.budget.share(spent)

    def least_budget(self, sizes: _Sizes) -> str:
        """A budget, as it is typed, for the fewest steps of which a result can be expected."""
        available = len(self.known.task.problems[Split.TEST])
        small = replace(
            _of_steps(sizes, FEWEST_STEPS), problems=self.problem_counts(sizes)[-1][0],
            test_problems=min(available, 100), test_samples=1, prompt_problems=0,
        )  # fmt: skip
        small = self._with_dev(small, num_evaluations=7)
        return self._typed(self.share(self.recipe(_of_steps(small, FEWEST_STEPS))) * self.budget.amount)

    def _typed(self, amount: float) -> str:
        if self.budget.kind == "money":
            return f"{math.ceil(100 * amount) / 100:.2f}{self.budget.currency}"
        if self.budget.kind == "flops":
            return f"{1.05 * amount:.1e}FLOP"
        minutes = 5 * math.ceil(amount / 300)
        return f"{minutes}min" if minutes < 120 else f"{math.ceil(minutes / 60)}h"


def _of_steps(sizes: _Sizes, steps: int) -> _Sizes:
    """The candidate with so many steps, dev asked some six times, and every 25 steps at least."""
    return replace(sizes, steps=steps, every=min(25, max(1, -(-steps // 6))))


def _max_tokens(known: Known) -> int:
    """Room for nearly all completions that were seen, half as long again; no more than the context has."""
    room = known.config.max_context - known.prompts.longest
    seen = known.calibration
    wanted = _MAX_TOKENS
    if seen is not None:
        wanted = seen.limit
        lengths = sorted((*seen.lengths, *seen.open_lengths))
        if len(seen.open_lengths) <= 0.05 * len(lengths):
            wanted = 64 * math.ceil(1.5 * lengths[int(0.95 * (len(lengths) - 1))] / 64)
            wanted = min(seen.limit, wanted)
    return max(1, min(wanted, room))


def _or_infinite(value: float) -> float:
    return math.inf if math.isnan(value) else value
