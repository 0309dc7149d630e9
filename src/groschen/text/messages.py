"""Messages, tools and settings as plain values that a template may see, with every content passed through a
mark.

Leaves out: what the values mean. Only JSON's kinds of values are let in, so a template can't reach an object
of ours.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from groschen.errors import BadRequest

Message = Mapping[str, object]
Mark = Callable[[str], str]

ROLES = ("system", "developer", "user", "assistant", "model", "tool", "function", "ipython")
# Names under which a message's reasoning is given. transformers 5 shows it to a template under the first two.
_REASONING = ("reasoning_content", "thinking", "reasoning")


def plain_messages(
    messages: Sequence[Message], mark: Mark, trusted_roles: frozenset[str]
) -> list[dict[object, object]]:
    """Copies of the messages, every text marked but for the roles and the messages of trusted roles.

    Raises BadRequest for no messages, one that is no object, or a role that no template knows.
    """
    if not messages:
        raise BadRequest("there are no messages; give at least one")
    return [_plain_message(message, index, mark, trusted_roles) for index, message in enumerate(messages)]


def plain(value: object, mark: Mark, where: str) -> object:
    """A copy of a value with every text marked; BadRequest names where a value is not one of JSON's."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return mark(value)
    if isinstance(value, Mapping):
        return {
            plain(name, mark, where): plain(item, mark, f"{where}.{name}") for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain(item, mark, f"{where}[{index}]") for index, item in enumerate(value)]
    raise BadRequest(
        f"{where} is of the type {type(value).__name__}, which a chat template can't read; use texts, "
        "numbers, booleans, null, lists and objects"
    )


def texts(value: object) -> Iterator[str]:
    """Every text in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from texts(list(value.keys()))
        yield from texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)


def _plain_message(
    message: Message, index: int, mark: Mark, trusted_roles: frozenset[str]
) -> dict[object, object]:
    where = f"messages[{index}]"
    if not isinstance(message, Mapping):
        raise BadRequest(
            f"{where} is of the type {type(message).__name__}; expected an object with role and content"
        )
    role = message.get("role")
    if role not in ROLES:
        raise BadRequest(f"{where} has the role {role!r}; expected one of {', '.join(ROLES)}")
    if role in trusted_roles:
        mark = str
    copy = {
        plain(name, mark, where): plain(item, str if name == "role" else mark, f"{where}.{name}")
        for name, item in message.items()
    }
    reasoning = next((copy[name] for name in _REASONING if copy.get(name) is not None), None)
    if reasoning is not None:
        copy = {"thinking": reasoning, **copy, "reasoning_content": reasoning}
    return copy
