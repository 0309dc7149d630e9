"""A GRPO recipe as the numbers that a plan needs, and the plan of one.

Leaves out the arithmetic of plans (plan.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from groschen import machine
from groschen.bill import Roofs
from groschen.errors import DoesNotFit
from groschen.model.checkpoint import open_checkpoint
from groschen.model.config import ModelConfig
from groschen.model.operations import kit_for
from groschen.plan import Plan, plan
from groschen.plan_memory import Layout
from groschen.plan_time import RecipeFacts
from groschen.prices import load_prices
from groschen.records import Problem, Split
from groschen.tasks.load import load_task
from groschen.tasks.splits import sample
from groschen.tasks.task import Task
from groschen.text.bundle import Text
from groschen.text.load import load_text
from groschen.train.calibration import Calibration
from groschen.train.measuring import measured_roofs
from groschen.train.prompt_length import longest_prompt
from groschen.train.recipe import GrpoRecipe
from groschen.work_sizes import work_sizes

_COUNTED = 2000  # problems whose prompts are counted for their mean, about half a second
_EXPECTED_SHARE = 0.4  # of max_tokens that a completion takes, where nothing was measured


def plan_of(recipe: GrpoRecipe, completion_tokens: int | None = None) -> Plan:
    """Time, memory and cost of the recipe on this machine. Raises DoesNotFit if its memory is too small.

    completion_tokens: the mean that is expected; None: a share of sampling.max_tokens.
    """
    device = machine.best_device()
    machine.prepare(device)
    checkpoint = open_checkpoint(recipe.model)
    config = ModelConfig.from_json(checkpoint.config)
    task = load_task(recipe.task, recipe.verdict_seconds)
    found = facts(recipe, task, load_text(checkpoint.source), completion_tokens)
    return plan_with(found, recipe, config, device, measured_roofs(config, device))


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """How long the prompts of a task are, over all splits."""

    mean: float
    longest: int  # with the longest of the task's other wordings


def prompt_tokens(task: Task, text: Text) -> PromptTokens:
    """Lengths in tokens; the mean of very many is that of a sample."""
    template = text.chat_template()

    def count(problem: Problem) -> int:
        return len(template.encode(text.tokenizer, problem.messages))

    problems = [problem for split in Split for problem in task.problems[split]]
    counted = [count(each) for each in sample(problems, _COUNTED)]
    return PromptTokens(mean=sum(counted) / len(counted), longest=longest_prompt(task, text))


def plan_with(
    found: RecipeFacts,
    recipe: GrpoRecipe,
    config: ModelConfig,
    device: torch.device,
    roofs: Mapping[str, float],
) -> Plan:
    """The plan of a recipe's facts, with roofs that were measured already; layers are computed again for the
    gradient if the recipe leaves that open and the memory asks for it. Raises DoesNotFit.
    """
    try:
        return _plan(found, config, device, roofs)
    except DoesNotFit:
        if recipe.recompute_layers != "auto":
            raise
    return _plan(replace(found, recomputes_layers=True), config, device, roofs)


def as_roofs(measured: Mapping[str, float]) -> Roofs:
    """What measured_roofs found, as plans take it."""
    return Roofs(flops_per_s=1e9 * measured["bf16_gflops"], read_bytes_per_s=1e9 * measured["read_gbps"])


def _plan(found: RecipeFacts, config: ModelConfig, device: torch.device, roofs: Mapping[str, float]) -> Plan:
    layout = Layout.of(kit_for(device, torch.bfloat16), torch.bfloat16)
    return plan(
        config, found, as_roofs(roofs), load_prices(), layout,
        available_bytes=machine.free_memory_bytes(device), cpus=machine.usable_cores(),
    )  # fmt: skip


def facts(
    recipe: GrpoRecipe,
    task: Task,
    text: Text,
    completion_tokens: int | None,
    *,
    prompts: PromptTokens | None = None,
    calibration: Calibration | None = None,
) -> RecipeFacts:
    """What decides the cost of a recipe. What is not known yet is counted (prompts) or guessed (the rest)."""
    sampling, evaluation = recipe.sampling, recipe.evaluation
    prompts = prompts or prompt_tokens(task, text)
    expected = _EXPECTED_SHARE * sampling.max_tokens
    if calibration is not None:
        expected = calibration.mean_tokens(sampling.max_tokens)
    found = RecipeFacts(
        steps=recipe.num_steps,
        problems_per_step=min(sampling.problems_per_step, len(task.problems[Split.TRAIN])),
        group_size=sampling.group_size,
        trained_per_group=sampling.trained_per_group,
        prompt_tokens=max(1, round(prompts.mean)),
        completion_tokens=completion_tokens or min(sampling.max_tokens, max(1, round(expected))),
        max_completion_tokens=sampling.max_tokens,
        evaluations=-(-recipe.num_steps // evaluation.every) + 1,  # of the base, every so often, at the end
        evaluation_problems=min(evaluation.dev_problems, len(task.problems[Split.DEV])),
        evaluation_samples=evaluation.dev_samples,
        wordings=len(task.instructions),
        wording_problems=min(evaluation.prompt_problems, len(task.problems[Split.DEV])),
        final_problems=min(evaluation.test_problems, len(task.problems[Split.TEST])),
        final_samples=evaluation.test_samples,
        checkpoints=recipe.num_steps // min(recipe.save_every, evaluation.every) + 1,
        max_rows=recipe.max_rows,
        micro_batch_tokens=recipe.tokens_at_once,
        scored_tokens=work_sizes(machine.best_device()).scored_at_once,
        recomputes_layers=recipe.recompute_layers == "always",
        has_reference=recipe.policy.divergence != "none",
    )
    if calibration is None:
        return found
    return replace(
        found,
        verify_s=max(0.0001, calibration.verify_s),
        generation_factor=calibration.generation_factor,
        training_factor=calibration.training_factor,
        gradient_overhead_s=calibration.gradient_overhead_s,
        is_measured=completion_tokens is None,
    )
