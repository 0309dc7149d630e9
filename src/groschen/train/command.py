"""`groschen train`: from what was typed to a run, its report, and how to go on if it stopped.

Leaves out parsing flags (cli.py) and the recipe itself.
"""

import importlib.resources
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TextIO

from rich.console import Console

from groschen import clock
from groschen import plan as plans
from groschen.commands import command
from groschen.config import build, read_toml
from groschen.errors import UsageError
from groschen.evals import wording
from groschen.evals.comparison import compare
from groschen.evals.report import write_report
from groschen.live_words import duration, money
from groschen.records import EvalRecord
from groschen.runs.budget import Spent, parse_budget
from groschen.runs.checkpoints import Checkpoints
from groschen.runs.disk import not_written
from groschen.runs.folder import RunPaths, refuse_used_folder
from groschen.runs.journal import read_journal
from groschen.train import advice
from groschen.train.advice import OFFERED, explain
from groschen.train.alarms import RunStopped
from groschen.train.grpo import train
from groschen.train.known import know
from groschen.train.opening import new_session, resumed_session
from groschen.train.planning import plan_of
from groschen.train.recipe import GrpoRecipe
from groschen.train.session import Session
from groschen.train.signals import ended_by_sigterm
from groschen.train.sizing import choose, default_budget, refuse_without_a_step

_RUNS = Path("runs")


def begin(
    source: str,
    model: str | None,
    out: Path | None,
    overrides: Sequence[str],
    stderr: TextIO,
    *,
    calibrates: bool = True,
) -> Path:
    """Train on a task or by a recipe file in a new run folder. Returns the report's path.

    calibrates: whether the model is tried for half a minute where no recipe says how large the run shall be.
    """
    started, recipe, calibration = clock.seconds(), recipe_of(source, model, overrides), None
    if not has_recipe(source, model):
        if out is not None:
            refuse_used_folder(out)  # now: not after a look at the model
        known = know(recipe, named_by(source, model), overrides, stderr, calibrates=calibrates)
        sized = choose(known, parse_budget(recipe.budget or default_budget(known.device)))
        refuse_without_a_step(sized)
        recipe, calibration = sized.recipe, known.calibration
        for line in explain(known, sized):
            print(line, file=stderr, flush=True)
    folder = out or _own_folder(recipe)
    try:
        session = new_session(recipe, folder, stderr, calibration=calibration, started_s=started)
    finally:
        if out is None:
            with suppress(OSError):  # it holds the run, unless that was refused
                folder.rmdir()
                _RUNS.rmdir()
    return _run(session, stderr)


def show_plan(
    source: str,
    model: str | None,
    overrides: Sequence[str],
    completion_tokens: int | None = None,
    *,
    calibrates: bool = True,
    json: bool = False,
) -> None:
    """Print the plan of a recipe; of a task without one the sizes on offer, or the one for the budget set.

    completion_tokens: the mean length that the user expects.
    """
    recipe, console = recipe_of(source, model, overrides), Console()
    if has_recipe(source, model):
        planned = plan_of(recipe, completion_tokens)
        print(plans.as_json(planned), end="") if json else console.print(plans.as_table(planned))
        return
    known = know(
        recipe, named_by(source, model), overrides, sys.stderr, calibrates=calibrates,
        completion_tokens=completion_tokens,
    )  # fmt: skip
    sizes = tuple(choose(known, parse_budget(b)) for b in ((recipe.budget,) if recipe.budget else OFFERED))
    if json:
        print(advice.as_json(known, sizes), end="")
    elif recipe.budget:
        refuse_without_a_step(sizes[0])
        print("\n".join(advice.explain(known, sizes[0])))
        console.print(plans.as_table(sizes[0].plan))
        print(advice.command_of(known, sizes[0]))
    else:
        print(advice.seen(known))
        console.print(advice.as_table(sizes))
        print("\n".join(advice.footnotes(known, sizes)))


def go_on(folder: Path, overrides: Sequence[str], stderr: TextIO) -> Path:
    """Go on with the run in `folder` from its last whole checkpoint. Returns the report's path."""
    return _run(resumed_session(folder, overrides, stderr), stderr)


def recipe_of(source: str, model: str | None, overrides: Sequence[str]) -> GrpoRecipe:
    """The settings of a recipe file, or of a task by itself: its built-in recipe, else the defaults.

    overrides: `key=value`, the last one counts. Raises UsageError, BadRequest or BadFile.
    """
    given: dict[str, object] = {}
    named = source
    if source.endswith(".toml"):
        given = dict(read_toml(Path(source)))
        _resolve(given, Path(source).parent)
    else:
        shipped = _shipped(source)
        if shipped.is_file() and model in (None, "penny"):
            with importlib.resources.as_file(shipped) as path:
                given, named = dict(read_toml(path)), shipped.name
        given["task"] = source
    if model is not None:
        given["model"] = model
    if "model" not in given:
        raise UsageError(
            f"which model shall learn {source}? Give --model: a Hugging Face folder, a hub id or a .gguf file"
        )
    return build(GrpoRecipe, given, overrides, source=named)


def has_recipe(source: str, model: str | None) -> bool:
    """Whether a file says how large the run is: the one that was named, or one that ships with the task."""
    return source.endswith(".toml") or (model in (None, "penny") and _shipped(source).is_file())


def named_by(source: str, model: str | None) -> dict[str, object]:
    """Task and model of a run without a recipe."""
    return {"task": source, "model": model}


def _shipped(source: str) -> Traversable:
    """Where the recipe of a built-in task would lie."""
    return importlib.resources.files("groschen") / "recipes" / f"{source.partition('?')[0]}.toml"


def _resolve(given: dict[str, object], folder: Path) -> None:
    """A task or model named by a path is looked for beside the recipe file."""
    for name in ("task", "model"):
        value = given.get(name)
        if isinstance(value, str) and (folder / value).exists():
            given[name] = str(folder / value)


def _own_folder(recipe: GrpoRecipe) -> Path:
    """runs/TASK-MODEL, or with the first number behind it that is free; made empty at once, so that a second
    command that starts meanwhile takes the next one.
    """
    name = f"{_short(recipe.task)}-{_short(recipe.model)}"
    number = 1
    while True:
        folder = _RUNS / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError as error:
            if not _RUNS.is_dir():  # a link to nowhere
                raise not_written(_RUNS, error) from error
            number += 1
        except OSError as error:
            raise not_written(folder, error) from error


def _short(source: str) -> str:
    """A task's or a model's name for a folder: of task.py its folder's name, of a path or hub id the last
    part.
    """
    path = Path(source.partition("?")[0])
    if path.name == "task.py":
        path = path.resolve().parent
    name = path.name
    for suffix in (".py", ".jsonl", ".gguf"):
        name = name.removesuffix(suffix)
    return name.replace(":", "-")


def _run(session: Session, stderr: TextIO) -> Path:
    folder = session.run.paths.folder
    try:
        with ended_by_sigterm():
            train(session)
    except RunStopped as stopped:
        session.save_if_whole()
        session.note(str(stopped), is_alarm=True)
        raise RunStopped(f"{stopped} The run is kept in {folder}.") from stopped
    except KeyboardInterrupt as stop:
        session.save_if_whole()
        raise Interrupted(
            f"stopped by {str(stop) or 'Ctrl-C'} and saved; go on with: "
            f"{command('train', '--resume', folder)}"
        ) from None
    finally:
        session.close()
    report = write_report(folder)
    for line in conclusion(folder, session.spent()):
        print(line, file=stderr)
    return report


def conclusion(folder: Path, spent: Spent) -> list[str]:
    """What a run came to, in lines for people: gain, cost, and what can be done with it now."""
    base, trained = (
        read_journal(RunPaths(folder).evaluation(name), EvalRecord) for name in ("base-test", "best-test")
    )
    lines = []
    if base and trained:
        found = compare(base, trained)
        before, after, count = found.base.pass_at_1, found.trained.pass_at_1, found.paired.num_problems
        lines.append(
            f"accuracy on {count} held-out problem{'s' if count != 1 else ''}: {wording.share(before.value)} "
            f"before, {wording.share(after.value)} after; {wording.gain(found.paired)}; mean length "
            f"{found.base.mean_tokens:.0f} before, {found.trained.mean_tokens:.0f} tokens after"
        )
    lines.append(
        f"it took {duration(spent.seconds)}, {spent.flops:.2g} FLOP and "
        f"{money(spent.money, spent.currency)}; what one may conclude is in the report"
    )
    if Checkpoints(folder).all():
        lines.append(f"talk to it: {command('chat', folder)}")
    return lines


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after everything was saved; its text says how to go on."""
