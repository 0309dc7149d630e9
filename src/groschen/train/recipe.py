"""The settings of a GRPO run: one frozen dataclass, written whole into the run folder.

Leaves out what the settings do. `algorithm` names a published combination of advantage, loss, normalisation
and bounds; each of them can be set on its own as well. Sources: see advantages.py, losses.py and batch.py.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple, get_args

from groschen.errors import BadRequest
from groschen.ranges import Range, check_ranges
from groschen.tasks.task_process import DEFAULT_SECONDS, VerdictSeconds
from groschen.train.advantages import Advantage
from groschen.train.alarms import AlarmSettings
from groschen.train.batch import Normalisation
from groschen.train.losses import Bounds, Divergence, Loss, check_divergence
from groschen.train.optimizer import OptimizerSettings
from groschen.train.rewards import RewardSettings

Algorithm = Literal["groschen", "grpo", "dr_grpo", "dapo", "rloo", "gspo", "cispo"]
Recompute = Literal["auto", "always", "never"]
RECOMPUTES: tuple[str, ...] = get_args(Recompute)
_MANY = 1_000_000_000  # far beyond what anybody waits for, and no number that overflows anywhere
_WHOLE = "the trainer would score another distribution than the one that was sampled"


class Published(NamedTuple):
    """What the name of an algorithm stands for."""

    advantage: Advantage
    loss: Loss
    normalisation: Normalisation
    bounds: Bounds = Bounds()  # those of DAPO
    counts_all: bool = False  # whether completions without signal are in the denominator: their loss is 0


PUBLISHED: dict[Algorithm, Published] = {
    "groschen": Published("leave_one_out", "clip", "constant"),
    "grpo": Published("group_std", "clip", "sequence", counts_all=True),
    "dr_grpo": Published("mean", "clip", "constant", counts_all=True),
    "dapo": Published("group_std", "clip", "token"),
    "rloo": Published("leave_one_out", "reinforce", "constant", counts_all=True),
    "gspo": Published("group_std", "sequence_clip", "sequence", Bounds(3e-4, 4e-4), counts_all=True),
    "cispo": Published("group_std", "cispo", "token"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """What is minimised."""

    algorithm: Algorithm = "groschen"
    advantage: Advantage | None = None  # None: the algorithm's
    loss: Loss | None = None
    normalisation: Normalisation | None = None
    clip_low: Annotated[float | None, Range(least=0)] = None
    clip_high: Annotated[float | None, Range(least=0)] = None
    divergence: Divergence = "none"  # from the base model: "k2", "ratio_k3" or "k1_reward"
    divergence_weight: Annotated[float, Range(least=0)] = 0.001
    # Mini-batches of a step's groups; more than one leaves the sampled policy behind.
    updates_per_step: Annotated[int, Range(least=1, most=10_000)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """How rollouts are drawn. Truncated sampling is refused: the trainer would score another distribution."""

    problems_per_step: Annotated[int, Range(least=1, most=100_000)] = 32
    group_size: Annotated[int, Range(least=2, most=10_000, because="an advantage compares siblings")] = 8
    # Completions of a group that are trained, those whose rewards differ most (PODS); 0: all of them.
    trained_per_group: Annotated[int, Range(least=2, most=10_000, zero="all")] = 0
    max_tokens: Annotated[int, Range(least=1, most=10_000_000)] = 512
    temperature: Annotated[float, Range(least=1e-4, most=100, because="greedy groups have no signal")] = 1.0
    # Groups in a row without signal, then the problem rests for some passes; 0: never.
    put_aside_after: Annotated[int, Range(least=0, most=1_000_000)] = 2
    top_p: Annotated[float, Range(least=1, most=1, because=_WHOLE)] = 1.0
    top_k: Annotated[int, Range(least=0, most=0, because=_WHOLE)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """What is measured. dev chooses the best checkpoint, test is looked at before and after and nowhere
    else.
    """

    every: Annotated[int, Range(least=1, most=_MANY)] = 20  # steps
    dev_problems: Annotated[int, Range(least=1, most=_MANY)] = 100
    dev_samples: Annotated[int, Range(least=1, most=10_000)] = 2
    test_problems: Annotated[int, Range(least=0, most=_MANY)] = 500
    test_samples: Annotated[int, Range(least=1, most=10_000)] = 4
    # Of dev, for each of the task's other wordings, to find the base's best prompt.
    prompt_problems: Annotated[int, Range(least=0, most=_MANY)] = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpoRecipe:
    """Everything that decides a run, but the weights and the task themselves."""

    model: str = "penny"
    task: str = "countdown"
    seed: Annotated[int, Range(least=-(2**63), most=2**63 - 1)] = 0
    num_steps: Annotated[int, Range(least=1, most=_MANY)] = 100
    policy: PolicySettings = field(default_factory=PolicySettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    rewards: RewardSettings = field(default_factory=RewardSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    max_rows: Annotated[int, Range(least=1, most=100_000)] = 64  # completions that decode together
    # Fed tokens of one micro-batch: bounds the memory of activations.
    tokens_at_once: Annotated[int, Range(least=1, most=10_000_000)] = 2048
    recompute_layers: Recompute = "auto"  # auto: if memory is too small otherwise
    verdict_seconds: VerdictSeconds = DEFAULT_SECONDS  # longer, and the verdict of a task.py is an error
    save_every: Annotated[int, Range(least=1, most=_MANY)] = 10
    keep_last: Annotated[int, Range(least=1, most=_MANY)] = 2
    budget: str = ""  # 10min, 5e14FLOP or 2EUR: stop there, whole
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would be wrong without a word. Raises BadRequest or Unsupported."""
        check_ranges(self)
        sampling = self.sampling
        if sampling.trained_per_group > sampling.group_size:
            raise BadRequest(
                f"sampling.trained_per_group = {sampling.trained_per_group} must be 0 (all), or from 2 to "
                f"sampling.group_size = {sampling.group_size}"
            )
        penalty, buffer = self.rewards.length_penalty, self.rewards.length_buffer
        if (penalty != 0) != (buffer > 0):
            raise BadRequest(
                f"rewards.length_penalty = {penalty} and rewards.length_buffer = {buffer}: one does nothing "
                "without the other; set both or neither"
            )
        if buffer > sampling.max_tokens:
            raise BadRequest(
                f"rewards.length_buffer = {buffer} must be at most sampling.max_tokens = "
                f"{sampling.max_tokens}: the shortest completion would be punished too"
            )
        if self.recompute_layers not in RECOMPUTES:
            raise BadRequest(
                f"recompute_layers = {self.recompute_layers!r} is not known; take one of "
                f"{', '.join(RECOMPUTES)}"
            )
        check_divergence(self.policy.divergence)

    @property
    def advantage(self) -> Advantage:
        """The advantage that is used."""
        return self.policy.advantage or PUBLISHED[self.policy.algorithm].advantage

    @property
    def loss(self) -> Loss:
        """The loss that is used."""
        return self.policy.loss or PUBLISHED[self.policy.algorithm].loss

    @property
    def normalisation(self) -> Normalisation:
        """The normalisation that is used."""
        return self.policy.normalisation or PUBLISHED[self.policy.algorithm].normalisation

    @property
    def bounds(self) -> Bounds:
        """The bounds that are used."""
        low, high = PUBLISHED[self.policy.algorithm].bounds
        return Bounds(
            low if self.policy.clip_low is None else self.policy.clip_low,
            high if self.policy.clip_high is None else self.policy.clip_high,
        )

    @property
    def has_reference(self) -> bool:
        """Whether the base stays in memory, frozen, for the divergence from it."""
        return self.policy.divergence != "none"

    @property
    def counts_all(self) -> bool:
        """Whether the denominator has every graded completion of a step, or those that are trained alone."""
        return PUBLISHED[self.policy.algorithm].counts_all
