"""What is known of a task, a model and a machine before the sizes of a run are chosen.

Leaves out the choosing (sizing.py) and how each of them is measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

import torch

from groschen import machine
from groschen.evals.power import WORST_RATE, careful_rate
from groschen.model.checkpoint import open_checkpoint
from groschen.model.config import ModelConfig
from groschen.records import Split
from groschen.tasks.load import load_task
from groschen.tasks.task import Task
from groschen.text.bundle import Text
from groschen.text.load import load_text
from groschen.train.calibration import ANNOUNCEMENT, Calibration, calibrate
from groschen.train.measuring import measured_roofs
from groschen.train.planning import PromptTokens, as_roofs, prompt_tokens
from groschen.train.recipe import GrpoRecipe

_AROUND_S = 15.0  # a run's checks before its ledger begins, and its report


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What sizes are chosen for."""

    named: Mapping[str, object]  # task and model, as in a recipe
    overrides: Sequence[str]  # key=value of the user
    task: Task
    text: Text
    config: ModelConfig
    device: torch.device
    roofs: Mapping[str, float]
    prompts: PromptTokens
    calibration: Calibration | None
    completion_tokens: int | None = None  # the mean that the user expects

    @property
    def base(self) -> float:
        """The base's rate to plan a test with: the worst one that a calibration leaves possible."""
        if self.calibration is None:
            return WORST_RATE
        return careful_rate(self.calibration.num_passed, self.calibration.num_graded)

    @property
    def spent_s(self) -> float:
        """What the command takes besides what a plan has."""
        return _AROUND_S + (self.calibration.seconds if self.calibration else 0.0)


def know(
    recipe: GrpoRecipe,
    named: Mapping[str, object],
    overrides: Sequence[str],
    stderr: TextIO,
    *,
    calibrates: bool = True,
    completion_tokens: int | None = None,
) -> Known:
    """Count, measure and, if `calibrates`, try the model. Raises the errors of everything that it opens.

    recipe: with the settings that the user made. completion_tokens: the mean length that the user expects.
    """
    device = machine.best_device()
    machine.prepare(device)
    task, checkpoint = load_task(recipe.task, recipe.verdict_seconds), open_checkpoint(recipe.model)
    task.of(Split.DEV)
    if not is_set(overrides, "evaluation.test_problems"):
        task.of(Split.TEST)
    text = load_text(checkpoint.source)
    config = ModelConfig.from_json(checkpoint.config)
    roofs = measured_roofs(config, device)
    calibration = None
    if calibrates:
        print(ANNOUNCEMENT, file=stderr, flush=True)
        own = recipe.sampling.max_tokens if is_set(overrides, "sampling.max_tokens") else None
        calibration = calibrate(task, checkpoint, text, as_roofs(roofs), recipe, own)
    return Known(
        named=named,
        overrides=overrides,
        task=task,
        text=text,
        config=config,
        device=device,
        roofs=roofs,
        prompts=prompt_tokens(task, text),
        calibration=calibration,
        completion_tokens=completion_tokens,
    )


def is_set(overrides: Sequence[str], name: str) -> bool:
    """Whether one of these flags, key=value, sets it."""
    return any(flag.partition("=")[0].strip() == name for flag in overrides)
