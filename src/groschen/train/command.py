"""`groschen train`: from what was typed to a run, its report, and how to go on if it stopped.

Leaves out parsing flags (cli.py) and the recipe itself.
"""

import importlib.resources
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from groschen.commands import command
from groschen.config import build, read_toml
from groschen.errors import UsageError
from groschen.evals import wording
from groschen.evals.comparison import compare
from groschen.evals.report import write_report
from groschen.live_words import duration, money
from groschen.records import EvalRecord
from groschen.runs.budget import Spent
from groschen.runs.checkpoints import Checkpoints
from groschen.runs.disk import not_written
from groschen.runs.folder import RunPaths
from groschen.runs.journal import read_journal
from groschen.train.alarms import RunStopped
from groschen.train.grpo import train
from groschen.train.opening import new_session, resumed_session
from groschen.train.recipe import GrpoRecipe
from groschen.train.session import Session
from groschen.train.signals import ended_by_sigterm

_RUNS = Path("runs")


def begin(source: str, model: str | None, out: Path | None, overrides: Sequence[str], stderr: TextIO) -> Path:
    """Train on a task or by a recipe file in a new run folder. Returns the report's path."""
    recipe = recipe_of(source, model, overrides)
    if out is not None:
        return _run(new_session(recipe, out, stderr), stderr)
    folder = _own_folder(recipe)
    try:
        session = new_session(recipe, folder, stderr)
    finally:
        with suppress(OSError):  # it holds the run, unless that was refused
            folder.rmdir()
            _RUNS.rmdir()
    return _run(session, stderr)


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
        shipped = importlib.resources.files("groschen") / "recipes" / f"{source.partition('?')[0]}.toml"
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
