"""groschen's own side of the GRPO benchmark: steps of the recipe, without evaluation and checkpoints.

    cd benchmarks && python -m ours_grpo --model FOLDER --prompts STEPS.jsonl

The calls are those of `groschen.train.grpo`, in its order and with the recipe's defaults, the rollouts'
journal on the disk included. Two are missing: the verifier, in whose place stands the reward that all
programs share, and the test for signal, so that all completions are trained as the rivals do.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from grpo_steps import (
    BETAS,
    CLIP_HIGH,
    CLIP_LOW,
    EPS,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    WEIGHT_DECAY,
    Question,
    Taken,
    Turns,
    digest,
    parser,
    read_steps,
    reward,
)

from groschen import heap, machine
from groschen.engine.engine import Engine, EngineConfig
from groschen.model.kvcache import KEYS_PER_BLOCK, KeyValueCache
from groschen.model.load import load_model
from groschen.model.transformer import Transformer
from groschen.records import Completion, Problem, SamplingParams
from groschen.rollout import Drawn, Sampler, draw
from groschen.runs.rollouts import RolloutJournal
from groschen.text.load import load_text
from groschen.train.advantages import advantages
from groschen.train.batch import Scored, TrainBatch, batch
from groschen.train.optimizer import Optimizer, OptimizerSettings
from groschen.train.recipe import GrpoRecipe, PolicySettings, SamplingSettings
from groschen.train.step import Objective, StepStats, gradient

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Trainer:
    """One set of weights with what samples and what trains it."""

    recipe: GrpoRecipe
    model: Transformer
    optimizer: Optimizer
    sampler: Sampler


def recipe_of(arguments: argparse.Namespace) -> GrpoRecipe:
    """The recipe's defaults with the benchmark's sizes and its AdamW."""
    return GrpoRecipe(
        model=str(arguments.model),
        seed=arguments.seed,
        policy=PolicySettings(clip_low=CLIP_LOW, clip_high=CLIP_HIGH),
        sampling=SamplingSettings(group_size=arguments.group_size, max_tokens=arguments.max_tokens),
        optimizer=OptimizerSettings(
            learning_rate=LEARNING_RATE, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY,
            max_grad_norm=MAX_GRAD_NORM,
        ),
    )  # fmt: skip


def problems_of(questions: list[Question]) -> list[Problem]:
    return [Problem(key=each.key, messages=tuple(each.messages)) for each in questions]


def opened(arguments: argparse.Namespace, problems: list[Problem]) -> Trainer:
    """Weights, optimizer and engine, its cache as large as a run on these problems would make it."""
    recipe, text = recipe_of(arguments), load_text(str(arguments.model))
    template = text.chat_template()
    longest = max(len(template.encode(text.tokenizer, problem.messages)) for problem in problems)
    model = load_model(str(arguments.model), torch.bfloat16, CPU)
    optimizer = Optimizer(model, recipe.optimizer)
    num_blocks = recipe.max_rows * ((longest + arguments.max_tokens) // KEYS_PER_BLOCK + 2) * 5 // 4
    block_bytes = KeyValueCache.bytes_per_block(model.config, model.activation_dtype)
    config = EngineConfig(max_rows=recipe.max_rows, cache_bytes=num_blocks * block_bytes)
    sampling = SamplingParams(
        max_tokens=arguments.max_tokens, temperature=recipe.sampling.temperature, seed=recipe.seed
    )
    return Trainer(recipe, model, optimizer, Sampler(Engine(model, text.tokenizer, config), text, sampling))


def grouped(drawn: Drawn, problems: list[Problem]) -> list[list[Completion]]:
    """The completions of each problem, by sample."""
    return [[drawn.completions[each.key, i] for i in range(drawn.num_completions)] for each in problems]


def update(trainer: Trainer, groups: list[list[Completion]]) -> tuple[TrainBatch, StepStats]:
    """From completions to rounded weights."""
    recipe = trainer.recipe
    rewards = [[reward(each.token_ids) for each in group] for group in groups]
    scored = [
        [Scored(each, one) for each, one in zip(group, own, strict=True) if one is not None]
        for group, own in zip(groups, advantages(rewards, recipe.advantage), strict=True)
    ]
    made = batch(scored, recipe.normalisation, recipe.sampling.max_tokens, recipe.tokens_at_once, CPU)
    stats = gradient(trainer.model, made, Objective(loss=recipe.loss, bounds=recipe.bounds))
    stats.grad_norm = trainer.optimizer.step(recipe.optimizer.learning_rate)
    return made, stats


def take_step(trainer: Trainer, problems: list[Problem], number: int, journal: Path) -> Taken:
    """Rollout and update; the engine forgets its cache at the end, as after every update."""
    begun = time.perf_counter()
    lines = RolloutJournal(journal)
    size = trainer.recipe.sampling.group_size
    drawn = draw(trainer.sampler, problems, size, salt=number, journal=lines)
    lines.close()
    groups = grouped(drawn, problems)
    generated = time.perf_counter()
    made, stats = update(trainer, groups)
    trainer.sampler.engine.weights_changed(policy_version=number)
    ended = time.perf_counter()
    prompts = [group[0].prompt_ids for group in groups]
    return Taken(
        seconds=ended - begun,
        generation_seconds=generated - begun,
        prompt_tokens=[len(ids) for ids in prompts],
        completion_tokens=[[len(each.token_ids) for each in group] for group in groups],
        trained_tokens=made.num_trained_tokens,
        fed_tokens=made.num_fed_tokens,
        prompt_digest=digest(prompts),
        stop_ids=sorted(trainer.sampler.text.tokenizer.eos_ids),
        note=f"logprob_gap_max {stats.logprob_gap_max}, {len(made.micro_batches)} micro-batches, "
        f"gradient norm {stats.grad_norm:.3g}",
    )


def main(arguments: argparse.Namespace) -> None:
    """Loads, warms up, takes a step whenever it is asked for one."""
    turns = Turns(arguments)
    machine.prepare(CPU)
    heap.keep_freed_memory()
    machine.set_threads(arguments.threads)
    steps = [problems_of(step) for step in read_steps(arguments.prompts)]
    trainer = opened(arguments, [problem for step in steps for problem in step])
    with tempfile.TemporaryDirectory() as folder:
        for number, problems in enumerate(steps, start=1):
            turns.begin()
            turns.end(take_step(trainer, problems, number, Path(folder) / f"step-{number:06d}.jsonl"))


if __name__ == "__main__":
    main(parser("groschen").parse_args())
