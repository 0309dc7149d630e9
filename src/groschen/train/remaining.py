"""What a run still has to pay before it may end whole: another step, the last measurements, the report.

Estimated from the run's own ledger, anew before each step, so that training ends early enough: completions
grow longer while a model learns, and other programs come and go. Before the first step the plan says how much
training costs beside drawing. Leaves out the budget itself (runs/budget.py) and when to ask (session.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from groschen.ledger import LedgerLine
from groschen.plan import Plan
from groschen.prices import Prices
from groschen.runs.budget import Spent

_LAST = 3  # steps that the next one is judged by: it costs as much as the dearest of them
_MARGIN = 1.2  # of what is estimated: problems of test may be longer than those of train
_REPORT_S = 5.0
_SAVED_BYTES_PER_WEIGHT, _SAVED_BYTES_PER_S = 14, 0.3e9  # until a checkpoint has been timed; plan_time.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Completions of each kind of work."""

    step: int
    dev: int  # of one measurement
    test: int
    base: int  # all that were drawn before the first step


def spent_on(lines: Iterable[LedgerLine], prices: Prices) -> Spent:
    """What these lines took, with the time that passed before each of them."""
    seconds = flops = joules = 0.0
    for line in lines:
        seconds += line.wall_s + line.gap_wall_s
        flops += line.flops
        joules += (line.joules or 0.0) + (line.gap_joules or 0.0)
    money = prices.of_machine(seconds) + prices.of_energy(joules)
    return Spent(seconds=seconds, flops=flops, money=money, currency=prices.currency)


class Remaining:
    """The estimates for one run at one moment."""

    def __init__(
        self, lines: Sequence[LedgerLine], step: int, counts: Counts, planned: Plan, prices: Prices
    ) -> None:
        """lines: of all attempts. step: steps that are done."""
        self._lines, self._step, self._counts = lines, step, counts
        self._planned, self._prices = planned, prices

    def next_step(self) -> Spent:
        """Rollouts, verdicts and update of another step."""
        if self._step:
            return self._dearest("generation", "verification", "training").times(_MARGIN)
        drawn = self._of_completions(self._counts.step)
        phases = {phase.phase: phase for phase in self._planned.phases}
        generation, training = phases.get("generation"), phases.get("training")
        if generation is None or training is None:
            return drawn.times(_MARGIN)
        seconds = training.seconds.expected / generation.seconds.expected
        more = Spent(
            seconds=drawn.seconds * seconds,
            flops=drawn.flops * training.flops / generation.flops,
            money=drawn.money * seconds,
            currency=drawn.currency,
        )
        return (drawn + more).times(_MARGIN)

    def mean_step_s(self) -> float:
        """Seconds of a step as the last ones were."""
        steps = range(max(1, self._step - _LAST + 1), self._step + 1)
        seconds = [self._of(step, "generation", "verification", "training").seconds for step in steps]
        return sum(seconds) / len(seconds) if seconds else self.next_step().seconds

    def dev(self) -> Spent:
        """One measurement on dev, with its checkpoint."""
        return self._of_completions(self._counts.dev).times(_MARGIN) + self._checkpoint()

    def end(self) -> Spent:
        """What comes after the last measurement on dev: the best checkpoint, measured, and the report."""
        report = self._of_time(_REPORT_S)
        return self._of_completions(self._counts.test).times(_MARGIN) + self._checkpoint() + report

    def _of_completions(self, count: int) -> Spent:
        """Drawing and grading so many now: at the highest price that is known of one completion."""
        prices = [Spent(currency=self._prices.currency)]
        if self._step:
            prices.append(self._dearest("generation", "verification").times(1 / self._counts.step))
        measured = [line.step for line in self._lines if line.phase == "evaluation"]
        if measured:
            last = max(measured)
            number = self._counts.dev if last else self._counts.base
            phases = ("evaluation",) if last else ("evaluation", "verification")
            prices.append(self._of(last, *phases).times(1 / max(1, number)))
        return max(prices, key=lambda price: price.seconds).times(count)

    def _dearest(self, *phases: str) -> Spent:
        steps = range(max(1, self._step - _LAST + 1), self._step + 1)
        return max((self._of(step, *phases) for step in steps), key=lambda spent: spent.seconds)

    def _of(self, step: int, *phases: str) -> Spent:
        chosen = (line for line in self._lines if line.step == step and line.phase in phases)
        return spent_on(chosen, self._prices)

    def _checkpoint(self) -> Spent:
        lines = [line for line in self._lines if line.phase == "checkpoint"]
        seconds = max((line.wall_s for line in lines), default=0.0)
        if not lines:
            seconds = _SAVED_BYTES_PER_WEIGHT * self._planned.num_parameters / _SAVED_BYTES_PER_S
        return self._of_time(seconds)

    def _of_time(self, seconds: float) -> Spent:
        money = self._prices.of_machine(seconds)
        return Spent(seconds=seconds, money=money, currency=self._prices.currency)
