"""Load the task that a user names: a built-in one, a task.py, a JSONL file, or one of reasoning-gym.

Every task passes the same gate: unique keys, prompts that are not empty, problems that can be written as
JSON, no text in two splits. Leaves out how each source is read.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

import msgspec

from groschen.errors import BadFile, BadRequest
from groschen.records import Problem, Split
from groschen.tasks import countdown
from groschen.tasks.jsonl_task import load_jsonl
from groschen.tasks.overlap import refuse_copies
from groschen.tasks.reasoning_gym import load_reasoning_gym
from groschen.tasks.splits import split_problems
from groschen.tasks.task import Draft, Task
from groschen.tasks.user_file import load_user_file
from groschen.text.messages import ROLES

BUILT_IN = ("countdown",)
_GYM = "reasoning-gym"
_KINDS = f"a built-in name ({', '.join(BUILT_IN)}), a task.py, a .jsonl file, or {_GYM}:NAME"


def load_task(source: str) -> Task:
    """The task that `source` names, checked and split.

    source: `countdown`, `countdown?numbers=4&seed=1`, a .py or .jsonl file, a folder with a task.py in it, or
    `reasoning-gym:NAME?key=value&...`. Raises BadFile or BadRequest with one sentence on what is wrong.
    """
    return _finished(_draft(source))


def _draft(source: str) -> Draft:
    path = Path(source)
    if path.suffix in (".py", ".jsonl") or path.exists():
        return _from_path(path)
    name, _, query = source.partition("?")
    if name == "countdown":
        return _countdown(_settings(query, source))
    kind, _, generator = name.partition(":")
    if kind == _GYM:
        return load_reasoning_gym(generator, _settings(query, source))
    near = difflib.get_close_matches(name, (*BUILT_IN, _GYM), n=1)
    hint = f"did you mean {near[0]}?" if near else f"a task is {_KINDS}"
    raise BadRequest(f"there is no task {source!r}, and no file of this name; {hint}")


def _from_path(path: Path) -> Draft:
    if path.is_dir():
        path = path / "task.py"
    if not path.is_file():
        fault = "is no regular file" if path.exists() else "is not there"
        raise BadFile(f"{path} {fault}; a task is {_KINDS}")
    if path.suffix == ".py":
        return load_user_file(path)
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
    problems = [_sound(problem, draft.name) for problem in draft.problems]
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


def _sound(problem: Problem, task: str) -> Problem:
    """The problem with a tuple of messages, if it has a key, a prompt and nothing but JSON."""
    key: object = problem.key
    where = f"task {task}: problem {key!r}"
    if not isinstance(key, str) or not key:
        raise BadRequest(f"{where}: expected a text as key, the same one for ever, not {key!r}")
    messages = _messages(problem.messages, where)
    if problem.split is not None and problem.split not in tuple(Split):
        raise BadRequest(f"{where} has the split {problem.split!r}; expected train, dev, test or None")
    try:
        msgspec.json.encode(problem)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequest(f"{where} can't be written as JSON: {error}; keep answer and meta plain") from error
    split = None if problem.split is None else Split(problem.split)
    return replace(problem, messages=messages, split=split)


def _messages(messages: object, where: str) -> tuple[Mapping[str, object], ...]:
    if not isinstance(messages, list | tuple) or not all(isinstance(one, Mapping) for one in messages):
        raise BadRequest(
            f'{where}: messages are no list of objects; expected [{{"role": "user", "content": ...}}]'
        )
    roles = [message.get("role") for message in messages]
    if unknown := [role for role in roles if role not in ROLES]:
        raise BadRequest(
            f"{where} has a message of the role {unknown[0]!r}; expected one of {', '.join(ROLES)}"
        )
    if roles.count("system") > 1:
        raise BadRequest(f"{where} has two system messages; expected at most one, at the beginning")
    contents = [message.get("content") for message in messages if message.get("role") != "system"]
    if not contents or not contents[-1] or not str(contents[-1]).strip():
        raise BadRequest(f"{where} has an empty prompt; expected a last message with a text")
    if messages[-1].get("role") == "assistant":
        raise BadRequest(f"{where} ends with the assistant's message; a prompt ends with the user's")
    return tuple(messages)


def _refuse_equal_keys(problems: Sequence[Problem], task: str) -> None:
    seen: set[str] = set()
    for problem in problems:
        if problem.key in seen:
            raise BadRequest(f"task {task} has two problems with the key {problem.key!r}; each needs its own")
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
