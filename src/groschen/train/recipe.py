"""The settings of a GRPO run: one frozen dataclass, written whole into the run folder.

Leaves out what the settings do. `algorithm` names a published combination of advantage, loss, normalisation
and bounds; each of them can be set on its own as well. Sources: see advantages.py, losses.py and batch.py.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from groschen.errors import BadRequest
from groschen.train.advantages import Advantage
from groschen.train.alarms import AlarmSettings
from groschen.train.batch import Normalisation
from groschen.train.losses import Bounds, Divergence, Loss, check_divergence
from groschen.train.optimizer import OptimizerSettings
from groschen.train.rewards import RewardSettings

Algorithm = Literal["groschen", "grpo", "dr_grpo", "dapo", "rloo", "gspo", "cispo"]
Recompute = Literal["auto", "always", "never"]
RECOMPUTES: tuple[str, ...] = get_args(Recompute)


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
    clip_low: float | None = None
    clip_high: float | None = None
    divergence: Divergence = "none"  # from the base model: "k2", "ratio_k3" or "k1_reward"
    divergence_weight: float = 0.001
    updates_per_step: int = (
        1  # mini-batches of a step's groups; more than one leaves the sampled policy behind
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """How rollouts are drawn. Truncated sampling is refused: the trainer would score another distribution."""

    problems_per_step: int = 32
    group_size: int = 8
    # Completions of a group that are trained, those whose rewards differ most (PODS); 0: all of them.
    trained_per_group: int = 0
    max_tokens: int = 512
    temperature: float = 1.0
    put_aside_after: int = (
        2  # groups in a row without signal, then the problem rests for some passes; 0: never
    )
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """What is measured. dev chooses the best checkpoint, test is looked at before and after and nowhere
    else.
    """

    every: int = 20  # steps
    dev_problems: int = 100
    dev_samples: int = 2
    test_problems: int = 500
    test_samples: int = 4
    prompt_problems: int = 50  # of dev, for each of the task's other wordings, to find the base's best prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpoRecipe:
    """Everything that decides a run, but the weights and the task themselves."""

    model: str = "penny"
    task: str = "countdown"
    seed: int = 0
    num_steps: int = 100
    policy: PolicySettings = field(default_factory=PolicySettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    rewards: RewardSettings = field(default_factory=RewardSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    max_rows: int = 64  # completions that decode together
    tokens_at_once: int = 2048  # fed tokens of one micro-batch: bounds the memory of activations
    recompute_layers: Recompute = "auto"  # auto: if memory is too small otherwise
    save_every: int = 10
    keep_last: int = 2
    budget: str = ""  # 10min, 5e14FLOP or 2EUR: stop there, whole
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would be wrong without a word. Raises BadRequest or Unsupported."""
        sampling, evaluation = self.sampling, self.evaluation
        if sampling.top_p != 1.0 or sampling.top_k != 0:
            raise BadRequest(
                "sampling.top_p and sampling.top_k must stay 1 and 0 in training: the trainer would score "
                "another distribution than the one that was sampled"
            )
        if sampling.temperature <= 0:
            raise BadRequest("sampling.temperature must be above 0 in training: greedy groups have no signal")
        if sampling.group_size < 2:
            raise BadRequest("sampling.group_size must be 2 or more: an advantage compares siblings")
        if not (sampling.trained_per_group == 0 or 2 <= sampling.trained_per_group <= sampling.group_size):
            raise BadRequest(
                f"sampling.trained_per_group = {sampling.trained_per_group} must be 0 (all), or from 2 to "
                f"sampling.group_size = {sampling.group_size}"
            )
        for name, value in (
            ("num_steps", self.num_steps),
            ("save_every", self.save_every),
            ("keep_last", self.keep_last),
            ("max_rows", self.max_rows),
            ("tokens_at_once", self.tokens_at_once),
            ("sampling.problems_per_step", sampling.problems_per_step),
            ("sampling.max_tokens", sampling.max_tokens),
            ("policy.updates_per_step", self.policy.updates_per_step),
            ("evaluation.every", evaluation.every),
            ("evaluation.dev_problems", evaluation.dev_problems),
            ("evaluation.dev_samples", evaluation.dev_samples),
            ("evaluation.test_samples", evaluation.test_samples),
        ):
            if value < 1:
                raise BadRequest(f"{name} must be 1 or more, found {value}")
        if not (norm := self.optimizer.max_grad_norm) > 0:
            raise BadRequest(
                f"optimizer.max_grad_norm must be above 0, found {norm}: every gradient would become 0; "
                "to clip none of them take a large number such as 1e9"
            )
        penalty, buffer = self.rewards.length_penalty, self.rewards.length_buffer
        if (penalty != 0) != (buffer > 0):
            raise BadRequest(
                f"rewards.length_penalty = {penalty} and rewards.length_buffer = {buffer}: one does nothing "
                "without the other; set both or neither"
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
    def counts_all(self) -> bool:
        """Whether the denominator has every graded completion of a step, or those that are trained alone."""
        return PUBLISHED[self.policy.algorithm].counts_all
