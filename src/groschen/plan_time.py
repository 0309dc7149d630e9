"""How long the phases of a recipe will take: work by formula over the measured roofs.

Where a roof is not reached, the share is what such work is known to reach. Every time is an interval, because
the rate is known roughly and the lengths of completions change while a model learns. Leaves out the formulas
(model/flops.py) and money (plan.py).
"""

import math
from dataclasses import dataclass, replace

from groschen.bill import Roofs
from groschen.errors import BadRequest
from groschen.model.config import ModelConfig
from groschen.model.flops import (
    Flops,
    body_weights,
    generation_flops,
    head_weights,
    scoring_flops,
    training_flops,
)
from groschen.plan_memory import Layout, parameter_count

# Shares of the product roof. Generation: 113 tokens/s of a 0.5B model with 64 rows
# is 0.68 of a roof of 167 GFLOP/s (benchmarks/results/engine-fixed64.json). Training: aimed at, not measured.
_GENERATION_SHARE, _TRAINING_SHARE = 0.60, 0.55
_STEP_OVERHEAD_S = 0.003  # of one engine step besides products: what binds a model of a few million weights
_UPDATE_BYTES_PER_WEIGHT = 40  # gradient, two moments and master read and written, weight written and packed
_LOADING_BYTES_PER_S, _SAVING_BYTES_PER_S = 0.5e9, 0.3e9  # a plain disk
_SPREAD = 0.45  # relative doubt about the share of the roof
_LENGTH_SPREAD = 0.35  # relative doubt about the mean length of completions
_LEAST_SIGNAL = 0.4  # share of the groups with signal; it was so in a run from 10 to 94 % (examples/sql)
_MEASURED_SPREAD, _MEASURED_LENGTH_SPREAD = 0.15, 0.2  # where a calibration measured both shortly before


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeFacts:
    """The numbers of a recipe that decide what it takes. Token counts are means."""

    steps: int
    problems_per_step: int
    group_size: int
    prompt_tokens: int
    completion_tokens: int  # expected mean; the task's base evaluation tells it
    max_completion_tokens: int
    evaluations: int = 0  # on dev: of the base, during the run and at its end
    evaluation_problems: int = 0
    evaluation_samples: int = 1
    wordings: int = 0  # of the task besides its own, each tried with the base on dev, one sample a problem
    wording_problems: int = 0
    final_problems: int = 0  # test, base and trained model, and the base again if another wording is better
    final_samples: int = 1
    verify_s: float = 0.001  # of one completion
    trained_per_group: int = 0  # completions of a group that are trained; 0: all
    signal_share: float = 1.0  # groups that are trained; those without signal are skipped
    checkpoints: int = 1
    max_rows: int = 64  # completions that decode together
    micro_batch_tokens: int = 2048  # a prompt with one completion is never cut, however long
    scored_tokens: int = 512  # tokens that have logits at once; a completion is never cut here either
    shares_prompt: bool = True  # in training
    recomputes_layers: bool = False
    adapter_weights: int | None = None  # of a LoRA adapter; None: every weight is trained
    has_reference: bool = False  # logprobs of a frozen model for a KL term
    # Of a calibration: seconds that were measured over those of the formula.
    generation_factor: float = 1.0
    training_factor: float = 1.0
    gradient_overhead_s: float = 0.0  # measured too, of each micro-batch
    is_measured: bool = False  # both factors and completion_tokens are

    def __post_init__(self) -> None:
        counts = (self.steps, self.problems_per_step, self.group_size, self.prompt_tokens, self.max_rows)
        if min(*counts, self.completion_tokens, self.micro_batch_tokens) < 1:
            raise BadRequest(
                "a plan needs steps, problems, group size, rows and token counts of 1 or more; "
                f"got {counts}, {self.completion_tokens}, {self.micro_batch_tokens}"
            )
        if self.completion_tokens > self.max_completion_tokens:
            raise BadRequest(
                f"completions of {self.completion_tokens} tokens are expected, but "
                f"{self.max_completion_tokens} are the most that is allowed"
            )

    @property
    def doubts(self) -> tuple[float, float]:
        """Relative, about rates and about the mean length of completions."""
        return (_MEASURED_SPREAD, _MEASURED_LENGTH_SPREAD) if self.is_measured else (_SPREAD, _LENGTH_SPREAD)

    @property
    def most_tokens_share(self) -> float:
        """The mean length that must be reckoned with, over the expected one: no longer than the limit."""
        return min(1 + self.doubts[1], self.max_completion_tokens / self.completion_tokens)


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a prediction is expected to come true, and its middle."""

    low: float
    expected: float
    high: float

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Rates:
    """Work to seconds, for one model, recipe and machine."""

    config: ModelConfig
    facts: RecipeFacts
    roofs: Roofs
    layout: Layout

    def sampling(self, problems: float, samples: int) -> tuple[Flops, Interval]:
        """Groups of `samples` completions for a number of problems, generated in one go."""
        facts, lengths = self.facts, [self.facts.completion_tokens] * samples
        flops = generation_flops(self.config, facts.prompt_tokens, lengths) * problems
        if problems == 0:
            return flops, Interval(0, 0, 0)
        rows = min(facts.max_rows, problems * samples)
        engine_steps = problems * samples * facts.completion_tokens / rows
        weights = body_weights(self.config) + head_weights(self.config)
        reading = engine_steps * self.layout.weight_bytes * weights / self.roofs.read_bytes_per_s
        products = flops.hardware / (self.roofs.flops_per_s * _GENERATION_SHARE)
        seconds = max(products, reading) + engine_steps * _STEP_OVERHEAD_S
        return flops, self._with_doubt(seconds * facts.generation_factor)

    def evaluation(self) -> tuple[Flops, Interval]:
        """The base and the policy on dev, the base with each wording on dev, and on test the base, the best
        checkpoint and perhaps the base's best wording: as likely as if all wordings were alike.
        """
        facts = self.facts
        dev = self.sampling(facts.evaluation_problems, facts.evaluation_samples)
        wording = self.sampling(facts.wording_problems, 1)
        test = self.sampling(facts.final_problems, facts.final_samples)
        wordings = facts.wordings if facts.wording_problems else 0
        tries, again = wordings + 1 if wordings else 0, wordings / (wordings + 1)
        flops = dev[0] * facts.evaluations + wording[0] * tries + test[0] * (2 + again)
        seconds = _times(dev[1], facts.evaluations) + _times(wording[1], tries) + _times(test[1], 2)
        third = Interval(0, again * test[1].expected, test[1].high if wordings else 0)
        return flops, seconds + third

    def training(self, problems: float) -> tuple[Flops, Interval]:
        """Forward, backward and one update for the groups of a step that carry signal."""
        facts = self.facts
        lengths = [facts.completion_tokens] * (facts.trained_per_group or facts.group_size)
        flops = training_flops(
            self.config,
            facts.prompt_tokens,
            lengths,
            shares_prompt=facts.shares_prompt,
            recomputes_layers=facts.recomputes_layers,
            recomputes_head=False,
            adapter_weights=facts.adapter_weights,
        )
        if facts.has_reference:
            flops += scoring_flops(
                self.config, facts.prompt_tokens, lengths, shares_prompt=facts.shares_prompt
            )
        flops = flops * problems
        trained = facts.adapter_weights or parameter_count(self.config)
        update = trained * _UPDATE_BYTES_PER_WEIGHT / self.roofs.read_bytes_per_s
        tokens = problems * (facts.prompt_tokens + sum(lengths))
        overhead = math.ceil(tokens / facts.micro_batch_tokens) * facts.gradient_overhead_s
        seconds = self._with_doubt(self.gradient_s(flops) + overhead + update)
        # Groups without signal are skipped: once a model has learned, that may be most of them.
        return flops, replace(seconds, low=_LEAST_SIGNAL * seconds.low)

    def gradient_s(self, flops: Flops) -> float:
        """Expected seconds of forward and backward."""
        rate = self.roofs.flops_per_s * _TRAINING_SHARE
        return flops.hardware / rate * self.facts.training_factor

    def _with_doubt(self, seconds: float) -> Interval:
        """The doubt about the rate and the doubt about lengths, which cannot exceed their limit."""
        rate, length = self.facts.doubts
        high = seconds * (1 + rate) * self.facts.most_tokens_share
        return Interval(seconds * (1 - rate) * (1 - length), seconds, high)


def work(rates: Rates) -> list[tuple[str, Flops, Interval]]:
    """Each phase of the whole run: its name, its FLOPs and its seconds."""
    facts = rates.facts
    generation = rates.sampling(facts.problems_per_step, facts.group_size)
    training = rates.training(facts.problems_per_step * facts.signal_share)
    graded = facts.steps * facts.problems_per_step * facts.group_size
    weights = parameter_count(rates.config)
    loaded = rates.layout.weight_bytes * weights / _LOADING_BYTES_PER_S
    state = 12 * (facts.adapter_weights or weights)  # float32 master and both moments
    saved = facts.checkpoints * (rates.layout.weight_bytes * weights + state) / _SAVING_BYTES_PER_S
    return [
        ("loading", Flops(), _roughly(loaded)),
        ("generation", generation[0] * facts.steps, _times(generation[1], facts.steps)),
        ("verification", Flops(), _roughly(graded * facts.verify_s)),
        ("training", training[0] * facts.steps, _times(training[1], facts.steps)),
        ("evaluation", *rates.evaluation()),
        ("checkpoint", Flops(), _roughly(saved)),
    ]


def _times(interval: Interval, count: float) -> Interval:
    return Interval(interval.low * count, interval.expected * count, interval.high * count)


def _roughly(seconds: float) -> Interval:
    """What depends on a disk or on a user's verifier: a factor of three either way."""
    return Interval(seconds / 3, seconds, seconds * 3)
