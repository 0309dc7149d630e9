"""What a problem must be, whatever source it comes from: a key, a prompt, and nothing but JSON."""

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from groschen.errors import BadRequest
from groschen.records import Problem, Split
from groschen.text.messages import ROLES


def sound(problem: Problem, task: str) -> Problem:
    """The problem with a tuple of messages, if it has a key, a prompt and nothing but JSON.

    task: its name, for the message. Raises BadRequest.
    """
    key: object = problem.key
    where = f"task {task}: problem {key!r}"
    if not isinstance(key, str) or not key:
        raise BadRequest(f"{where}: expected a text as key, the same one for ever, not {key!r}")
    messages = _messages(problem.messages, where)
    if problem.split is not None and problem.split not in tuple(Split):
        raise BadRequest(f"{where} has the split {problem.split!r}; expected train, dev, test or None")
    try:
        msgspec.json.encode(problem)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
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
