"""Open a run: a new one from a recipe, or one that goes on from its last whole checkpoint.

What can be known to be wrong is refused before there is a folder: a task that fails its own key or lacks a
split, a budget or a tracker that is not known, too little memory. Leaves out what only the first completions
show, such as verdicts without the part that `rewards.source` asks for, and the run itself (grpo.py).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import msgspec
import torch

from groschen import clock, heap, machine
from groschen.config import flatten
from groschen.energy import open_meter
from groschen.engine.engine import Engine, EngineConfig
from groschen.errors import DoesNotFit
from groschen.evals.report_data import CHECK, PLAN, PRICES, check_warnings, read_plan
from groschen.ledger import Ledger
from groschen.live import Facts, watch_for
from groschen.model.atomic import new_file
from groschen.model.checkpoint import Checkpoint, open_checkpoint
from groschen.model.config import ModelConfig
from groschen.model.kvcache import KEYS_PER_BLOCK, KeyValueCache
from groschen.model.load import load_model
from groschen.model.transformer import Transformer
from groschen.plan import Plan
from groschen.prices import load_prices
from groschen.records import Split
from groschen.runs.budget import Spent, parse_budget
from groschen.runs.folder import Run, create_run, open_run
from groschen.runs.journal import read_journal, whole_lines
from groschen.runs.manifest import Manifest, roofs_of
from groschen.tasks.check import check_task, refuse_broken
from groschen.tasks.identity import NAME as PROBLEMS
from groschen.tasks.identity import encoded, fingerprints
from groschen.tasks.load import load_task
from groschen.tasks.task import Task
from groschen.text.bundle import Text
from groschen.text.load import load_text
from groschen.trackers import Tracked, Tracker, check_tracker, open_tracker
from groschen.train.calibration import Calibration
from groschen.train.curriculum import Curriculum
from groschen.train.optimizer import Optimizer
from groschen.train.origin import describe, found_again, refuse_others
from groschen.train.planning import facts, plan_with
from groschen.train.prompt_length import longest_prompt
from groschen.train.recipe import GrpoRecipe
from groschen.train.session import Session
from groschen.train.state import TrainerState, read_state

_CHECKED = 20  # problems of each split on which the verifier is tried before anything is trained


def new_session(
    recipe: GrpoRecipe,
    folder: Path,
    stderr: TextIO,
    *,
    calibration: Calibration | None = None,
    started_s: float | None = None,
) -> Session:
    """A run in a new folder. Raises the errors of everything that it opens, each with one sentence.

    calibration: what the plan is made of. started_s: when the work for this run began, by the clock; None:
    now.
    """
    started_s = clock.seconds() if started_s is None else started_s
    task, checkpoint = load_task(recipe.task, recipe.verdict_seconds), open_checkpoint(recipe.model)
    _refuse_late_faults(recipe, task)
    checked = check_task(task, _CHECKED)
    refuse_broken(checked)
    manifest = describe(recipe, task, checkpoint)
    planned = _plan(recipe, task, checkpoint, manifest, calibration)
    run = create_run(folder, manifest, recipe)
    with ExitStack() as undo:
        undo.callback(run.close)
        # The prices too: a bill of today, whenever it is read.
        for name, content in ((PLAN, planned), (PRICES, load_prices()), (CHECK, checked)):
            with new_file(folder / name) as file:
                file.write(msgspec.json.encode(content))
        with new_file(folder / PROBLEMS) as file:
            file.write(encoded(fingerprints(task.problems)))
        undo.pop_all()
    session = _open(run, recipe, task, checkpoint, planned, stderr, started_s)
    for warning in checked.warnings:
        session.watch.note(warning)
    return session


def resumed_session(folder: Path, overrides: Sequence[str], stderr: TextIO) -> Session:
    """The run in `folder`, at its last whole checkpoint; `overrides` may change what changes no bit."""
    started_s, run = clock.seconds(), open_run(folder)
    with ExitStack() as undo:
        undo.callback(run.close)
        recipe = found_again(run.config(GrpoRecipe, overrides), run.manifest)
        task, checkpoint = load_task(recipe.task, recipe.verdict_seconds), open_checkpoint(recipe.model)
        _refuse_late_faults(recipe, task)
        warnings = refuse_others(run, describe(recipe, task, checkpoint), task)
        # Planned anew for the memory that is there now: whether layers are recomputed changes no bit.
        planned = _plan(recipe, task, checkpoint, run.manifest)
        if (folder / PLAN).exists():
            begun = read_plan(folder / PLAN)  # made of a calibration, perhaps
            planned = replace(begun, recomputes_layers=planned.recomputes_layers)
        session = _open(run, recipe, task, checkpoint, planned, stderr, started_s)
        for warning in warnings:
            session.watch.note(warning, is_alarm=True)
        for warning in check_warnings(folder):
            session.watch.note(warning)
        session.mark_best_again()  # a kill may have come between saving and marking
        undo.pop_all()
    return session


def _refuse_late_faults(recipe: GrpoRecipe, task: Task) -> None:
    """Raise now what would otherwise come up after the model was loaded, or after the base was measured."""
    if recipe.budget:
        parse_budget(recipe.budget).share(Spent(currency=load_prices().currency))
    for name in recipe.trackers:
        check_tracker(name)
    task.of(Split.DEV)
    if recipe.evaluation.test_problems:
        task.of(Split.TEST)


def _plan(
    recipe: GrpoRecipe,
    task: Task,
    checkpoint: Checkpoint,
    manifest: Manifest,
    calibration: Calibration | None = None,
) -> Plan:
    """What the run will take, for the report to compare with. Raises DoesNotFit before anything is begun."""
    config = ModelConfig.from_json(checkpoint.config)
    found = facts(recipe, task, load_text(checkpoint.source), None, calibration=calibration)
    return plan_with(found, recipe, config, machine.best_device(), roofs_of(manifest))


def _open(
    run: Run, recipe: GrpoRecipe, task: Task, checkpoint: Checkpoint, planned: Plan, stderr: TextIO,
    started_s: float,
) -> Session:  # fmt: skip
    device = machine.best_device()
    machine.prepare(device)
    if device.type == "cpu":
        heap.keep_freed_memory()
    with ExitStack() as undo:
        undo.callback(run.close)
        ledger = Ledger(run.paths.ledger, open_meter(device), since_s=started_s)
        with ledger.span("loading"):
            text = load_text(checkpoint.source)
            text.chat_template()
            model = load_model(checkpoint, torch.bfloat16, device)
            model.recomputes_layers = planned.recomputes_layers
            optimizer = Optimizer(model, recipe.optimizer)
            checkpoints = run.checkpoints(keep_last=recipe.keep_last)
            found, warnings = checkpoints.latest_whole()
            state = TrainerState() if found is None else read_state(found.folder, optimizer)
            engine = Engine(model, text.tokenizer, _engine_config(recipe, model, task, text))
            engine.weights_changed(policy_version=state.step)
            reference = load_model(checkpoint, torch.bfloat16, device) if recipe.has_reference else None
        metrics = run.journal(run.paths.metrics)
        undo.callback(metrics.close)
        metrics.truncate_after(_beyond(state.num_lines))
        warnings += _missing_lines(run.paths.metrics, state)
        watch = watch_for(stderr)
        undo.callback(watch.finish)
        watch.start(_known_before(run, recipe, task, state, planned))
        for warning in warnings:
            watch.note(warning, is_alarm=True)
        trackers = _trackers(run, recipe, state.step, undo)
        undo.pop_all()
    return Session(
        recipe=recipe,
        run=run,
        task=task,
        model=model,
        engine=engine,
        text=text,
        model_config=checkpoint.config,
        optimizer=optimizer,
        curriculum=Curriculum(
            task.of(Split.TRAIN), recipe.seed, recipe.sampling.put_aside_after, state.curriculum
        ),
        state=state,
        checkpoints=checkpoints,
        metrics=metrics,
        ledger=ledger,
        prices=load_prices(),
        budget=parse_budget(recipe.budget) if recipe.budget else None,
        watch=watch,
        trackers=trackers,
        reference=reference,
        planned=planned,
    )


def _missing_lines(path: Path, state: TrainerState) -> tuple[str, ...]:
    """A sentence if metrics.jsonl is shorter than when the checkpoint was written; from here on the state
    counts the lines that are there, or a later resume would cut in the wrong place.
    """
    before, state.num_lines = state.num_lines, sum(1 for _ in whole_lines(path))
    if state.num_lines >= before:
        return ()
    sentence = (
        f"{path} has {state.num_lines} of the {before} lines that it had at step {state.step}; what they "
        "said is missing in the report unless you restore the file"
    )
    return (sentence,)


def _known_before(run: Run, recipe: GrpoRecipe, task: Task, state: TrainerState, planned: Plan) -> Facts:
    """What people are told at the start."""
    return Facts(
        task=task.name,
        model=recipe.model,
        num_steps=recipe.num_steps,
        start_step=state.step,
        run=str(run.paths.folder),
        budget=recipe.budget,
        planned_s=planned.total.seconds.expected,
        evaluations=_evaluations(run),
    )


def _trackers(run: Run, recipe: GrpoRecipe, start_step: int, undo: ExitStack) -> list[Tracker]:
    """What was asked for on top of the run folder's own files; `undo` closes what was opened."""
    folder = run.paths.folder
    tracked = Tracked(folder=folder, name=folder.name, settings=flatten(recipe), start_step=start_step)
    opened: list[Tracker] = []
    for name in recipe.trackers:
        opened.append(open_tracker(name, tracked))
        undo.callback(opened[-1].close)
    return opened


def _beyond(count: int) -> Callable[[Mapping[str, object]], bool]:
    """True for every line after the first `count`."""
    seen = 0

    def is_beyond(_line: Mapping[str, object]) -> bool:
        nonlocal seen
        seen += 1
        return seen > count

    return is_beyond


def _engine_config(recipe: GrpoRecipe, model: Transformer, task: Task, text: Text) -> EngineConfig:
    """A cache for `max_rows` of the longest completions behind the longest prompt, and as much again as a
    quarter of it for prompts that groups share. Raises DoesNotFit if the model's context is too short for
    that.
    """
    longest = longest_prompt(task, text) + recipe.sampling.max_tokens
    if longest > model.config.max_context:
        raise DoesNotFit(
            f"the longest prompt and sampling.max_tokens are {longest} tokens together, the model's context "
            f"has {model.config.max_context}; lower sampling.max_tokens or leave the longest problems out"
        )
    num_blocks = recipe.max_rows * (longest // KEYS_PER_BLOCK + 2) * 5 // 4
    block_bytes = KeyValueCache.bytes_per_block(model.config, model.activation_dtype)
    return EngineConfig(max_rows=recipe.max_rows, cache_bytes=num_blocks * block_bytes)


def _evaluations(run: Run) -> tuple[dict[str, object], ...]:
    """What was measured before, by a run that goes on."""
    lines: list[dict[str, object]] = read_journal(run.paths.metrics)
    return tuple(line for line in lines if line.get("kind") == "evaluation")
