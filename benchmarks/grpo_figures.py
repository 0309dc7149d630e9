"""From what programs said of their steps to figures: rates, shares of the roof, ratios, and the check that
all of them did the same work.

Leaves out running them (run_grpo.py) and cost against the number of samples (grpo_scaling.py).
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from grpo_steps import Taken

from groschen import roofs
from groschen.model.config import ModelConfig
from groschen.model.flops import training_flops
from groschen.model.operations import kit_for
from groschen.roofs import Roof

Line = dict[str, object]
ROOF_ROWS = 1024  # a training pass has about so many
OURS = "groschen"


@dataclass(frozen=True)
class Measured:
    """One step of one program, with what its process and the machine were like."""

    turn: int  # of the programs
    step: int  # within the turn, warm-up left out
    taken: Taken
    peak_rss_gib: float
    elsewhere_share: float

    @staticmethod
    def of_line(line: Line, turn: int, step: int) -> "Measured":
        """A program's line as `programs.Running` returns it."""
        rest = dict(line)
        peak, elsewhere = float(str(rest.pop("peak_rss_gib"))), float(str(rest.pop("elsewhere_share")))
        return Measured(turn, step, Taken(**rest), peak, elsewhere)  # type: ignore[arg-type]

    @property
    def generated_tokens(self) -> int:
        """Of all completions, end tokens included."""
        return sum(map(sum, self.taken.completion_tokens))

    @property
    def training_seconds(self) -> float:
        """All but generation: rewards, forward, backward, optimizer."""
        return self.taken.seconds - self.taken.generation_seconds

    @property
    def seconds_per_1000_tokens(self) -> float:
        """Whole step over completion tokens, since lengths differ by chance."""
        return 1000 * self.taken.seconds / self.generated_tokens

    def model_flops(self, config: ModelConfig) -> float:
        """What the update needs, the prompt of a group once: the same formula for every program, so that
        work done twice earns nothing.
        """
        groups = zip(self.taken.prompt_tokens, self.taken.completion_tokens, strict=True)
        return sum(training_flops(config, prompt, lengths).model for prompt, lengths in groups)

    def as_line(self, config: ModelConfig) -> Line:
        """What a results file keeps of it."""
        return {
            "turn": self.turn,
            "step": self.step,
            "seconds": self.taken.seconds,
            "generation_seconds": self.taken.generation_seconds,
            "training_seconds": self.training_seconds,
            "generated_tokens": self.generated_tokens,
            "trained_tokens": self.taken.trained_tokens,
            "fed_tokens": self.taken.fed_tokens,
            "seconds_per_1000_tokens": self.seconds_per_1000_tokens,
            "training_gflops": self.model_flops(config) / self.training_seconds / 1e9,
            "peak_rss_gib": self.peak_rss_gib,
            "elsewhere_share": self.elsewhere_share,
            "note": self.taken.note,
        }


def measure_roofs(config: ModelConfig) -> dict[str, Roof]:
    """The widest product of a layer: torch's own in float32, and the one that our model runs."""
    inputs, outputs = config.width, 2 * config.mlp_width
    kit = kit_for(torch.device("cpu"), torch.bfloat16)
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0))
    wide, packed = weight.t().contiguous(), kit.product.pack(weight.to(torch.bfloat16))
    size = {"rows": ROOF_ROWS, "width_in": inputs, "width_out": outputs}
    return {
        "torch.mm float32": roofs.measure_product_roof(
            lambda x: torch.mm(x, wide), **size, dtype=torch.float32
        ),
        f"our product, {kit.product.name}": roofs.measure_product_roof(
            lambda x: kit.product.multiply(x, packed, outputs, None),
            **size,
            dtype=kit.operations.activation_dtype,
        ),
    }


def peaks(rounds: Sequence[dict[str, Roof]]) -> dict[str, float]:
    """GFLOP/s of each roof: the best of all repeats of all rounds, other work only lowers them."""
    return {name: max(each[name].best for each in rounds) for name in rounds[0]}


def summary(values: Sequence[float]) -> Line:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def refuse_other_work(steps: dict[str, list[Measured]]) -> None:
    """Raises SystemExit, with what differs, unless all programs had the same prompts and stops, and trained
    what they generated.
    """
    asked: dict[tuple[int, int], tuple[str, str, list[int]]] = {}
    for name, own in steps.items():
        for each in own:
            if each.taken.trained_tokens != each.generated_tokens:
                raise SystemExit(
                    f"{name} generated {each.generated_tokens} tokens and trained "
                    f"{each.taken.trained_tokens} of them"
                )
            work = each.taken.prompt_digest, each.taken.stop_ids
            known = asked.setdefault((each.turn, each.step), (name, *work))
            if known[1:] != work:
                raise SystemExit(
                    f"step {each.step} of turn {each.turn} was not the same work: {known[0]} had prompts "
                    f"{known[1]} and stops {known[2]}, {name} had {work[0]} and {work[1]}"
                )


def program_record(own: Sequence[Measured], config: ModelConfig, roof: dict[str, float]) -> Line:
    """All figures of one program."""
    rates = [each.model_flops(config) / each.training_seconds / 1e9 for each in own]
    rate = statistics.median(rates)
    return {
        **summary([each.taken.seconds for each in own]),
        "generation_seconds": summary([each.taken.generation_seconds for each in own]),
        "training_seconds": summary([each.training_seconds for each in own]),
        "seconds_per_1000_tokens": summary([each.seconds_per_1000_tokens for each in own]),
        "training_gflops": summary(rates),
        "training_roof_shares": {name: rate / peak for name, peak in roof.items()},
        "peak_rss_gib": max(each.peak_rss_gib for each in own),
        "repeats": [each.as_line(config) for each in own],
    }


def ratios(steps: dict[str, list[Measured]], figure: str) -> dict[str, float]:
    """For each rival: the median of its `figure`, a cost, over ours; above 1 is better for us."""

    def median(name: str) -> float:
        return statistics.median(_cost(each, figure) for each in steps[name])

    return {name: median(name) / median(OURS) for name in steps if name != OURS}


def _cost(each: Measured, figure: str) -> float:
    costs = {
        "seconds": each.taken.seconds,
        "seconds_per_1000_tokens": each.seconds_per_1000_tokens,
        "generation_seconds_per_1000_tokens": 1000 * each.taken.generation_seconds / each.generated_tokens,
        "training_seconds_per_1000_tokens": 1000 * each.training_seconds / each.generated_tokens,
        "peak_rss_gib": each.peak_rss_gib,
    }
    return costs[figure]
