"""Load the task that a user names: a built-in one, a task.py, a JSONL file, or one of reasoning-gym.

Every task passes the same gate: unique keys, prompts that are not empty, problems that can be written as
JSON, no text in two splits. Leaves out how each source is read.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

from groschen.errors import BadFile, BadRequest
from groschen.records import Problem, Split
from groschen.tasks import countdown
from groschen.tasks.gate import sound
from groschen.tasks.jsonl_task import load_jsonl
from groschen.tasks.overlap import refuse_copies
from groschen.tasks.splits import split_problems
from groschen.tasks.task import Draft, Task
from groschen.tasks.task_process import DEFAULT_SECONDS, TaskProcess

BUILT_IN = ("countdown",)
_GYM = "reasoning-gym"
_KINDS = f"a built-in name ({', '.join(BUILT_IN)}), a task.py, a .jsonl file, or {_GYM}:NAME"


def load_task(source: str, verdict_seconds: float = DEFAULT_SECONDS) -> Task:
    """The task that `source` names, checked and split.

    verdict_seconds: that one verdict may take of code that is not groschen's own.
    source: `countdown`, `countdown?numbers=4&seed=1`, a .py or .jsonl file, a folder with a task.py in it, or
    `reasoning-gym:NAME?key=value&...`. Raises BadFile or BadRequest with one sentence on what is wrong.
    """
    draft = _draft(source, verdict_seconds)
    task = _finished(draft)
    if not draft.is_foreign:
        return task
    return replace(task, made_again=lambda: _finished(_draft(source, verdict_seconds)).problems)


def _draft(source: str, seconds: float) -> Draft:
    path = Path(source)
    if path.suffix in (".py", ".jsonl") or path.exists():
        return _from_path(path, seconds)
    name, _, query = source.partition("?")
    if name == "countdown":
        return _countdown(_settings(query, source))
    kind, _, generator = name.partition(":")
    if kind == _GYM:
        settings = _settings(query, source)
        return TaskProcess({"generator": generator, "settings": settings}, source, seconds).load()
    near = difflib.get_close_matches(name, (*BUILT_IN, _GYM), n=1)
    hint = f"did you mean {near[0]}?" if near else f"a task is {_KINDS}"
    raise BadRequest(f"there is no task {source!r:.200}, and no file of this name; {hint}")


def _from_path(path: Path, seconds: float) -> Draft:
    if path.is_dir():
        path = path / "task.py"
    if not path.is_file():
        fault = "is no regular file" if path.exists() else "is not there"
        raise BadFile(f"{path} {fault}; a task is {_KINDS}")
    if path.suffix == ".py":
        return TaskProcess({"file": str(path.absolute())}, str(path), seconds).load()
    if path.suffix == ".jsonl":
        return load_jsonl(path)
    raise BadFile(f"{path} is no task: expected a name that ends in .py or .jsonl; a task is {_KINDS}")


def _countdown(settings: Mapping[str, str]) -> Draft:
    values = {"seed": 0, "numbers": 3}
    for name, text in settings.items():
        if name not in values or not text.isdecimal() or len(text) > 18:
            raise BadRequest(
                f"countdown has no setting {name}={text}; it takes seed=N and numbers=3 or 4, as in "
                "countdown?numbers=4"
            )
        values[name] = int(text)
    problems = countdown.problems(**values)
    return Draft(
        name="countdown",
        digest=countdown.digest(**values),
        problems=tuple(problem for split in Split for problem in problems[split]),
        verify=countdown.verify,
        gold=countdown.gold,
        wrong=countdown.wrong,
    )


def _settings(query: str, source: str) -> dict[str, str]:
    """The settings after the question mark."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise BadRequest(f"{source}: expected ?name=value&name=value after the task's name") from error
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise BadRequest(f"{source}: {name} is set {names.count(name)} times; set it once")
    return dict(pairs)


def _finished(draft: Draft) -> Task:
    """The task of a draft. Raises BadRequest for what no task may have."""
    problems = [sound(problem, draft.name) for problem in draft.problems]
    if not problems:
        raise BadRequest(f"task {draft.name} has no problems")
    _refuse_equal_keys(problems, draft.name)
    splits = split_problems(problems, draft.shares)
    _refuse_empty_splits(splits, draft)
    refuse_copies(splits, draft.name)
    return Task(
        name=draft.name,
        digest=draft.digest,
        problems={split: tuple(map(draft.complete, part)) for split, part in splits.items()},
        verify=draft.verify,
        gold=draft.gold,
        wrong=draft.wrong,
        instructions=draft.instructions,
        notes=draft.notes,
    )


def _refuse_equal_keys(problems: Sequence[Problem], task: str) -> None:
    seen: set[str] = set()
    for problem in problems:
        if problem.key in seen:
            raise BadRequest(
                f"task {task} has two problems with the key {problem.key!r:.200}; each needs its own"
            )
        seen.add(problem.key)


def _refuse_empty_splits(splits: Mapping[Split, Sequence[Problem]], draft: Draft) -> None:
    """A task whose author named every split may leave one out, for instance to evaluate only."""
    if all(problem.split is not None for problem in draft.problems):
        return
    wanted = {Split.TRAIN: 1 - draft.shares.dev - draft.shares.test, Split.DEV: draft.shares.dev}
    wanted[Split.TEST] = draft.shares.test
    for split in Split:
        if wanted[split] > 0 and not splits[split]:
            raise BadRequest(
                f"task {draft.name} has {len(draft.problems)} problem(s), and none of them falls into "
                f"{split}; bring more, or give each problem a split"
            )
