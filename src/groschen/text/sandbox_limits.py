"""How much a chat template may do, how large a value of it is, and the refusal of more.

Leaves out: what is charged when (`groschen.text.sandbox`).
"""

from collections.abc import Collection, ItemsView, Iterable, KeysView, ValuesView
from typing import Any

from jinja2.runtime import LoopContext, Macro
from jinja2.utils import Cycler, Joiner, Namespace

MAX_STEPS = 2_000_000  # one to two microseconds each
MAX_CHARS = 8_000_000  # of a prompt, and of any text on the way to it: some two million tokens
MAX_ITEMS = 1_000_000  # of a list
MAX_SOURCE = 262_144  # characters of a template
STEP_CHARS = 128  # characters that are searched, copied or compared in at most a microsecond
STEP_COMPARISONS = 512  # of single characters, as many in at most a microsecond
MAX_NUMBER = 100_000  # for arguments such as a width or a number of repeats


class TemplateLimit(Exception):
    """A template needed more steps or more room than any honest one does."""


def require(condition: bool, what: str) -> None:
    """Raises TemplateLimit with what the template does."""
    if not condition:
        raise TemplateLimit(what)


def require_small(values: Iterable[object], *, limit: int = MAX_NUMBER) -> None:
    """Raises TemplateLimit if one of the numbers among the values is a huge one."""
    for value in values:
        require(not isinstance(value, int) or abs(value) <= limit, "asks for a huge width or count")


def require_short_replacement(text: str, args: tuple[object, ...]) -> None:
    """Raises TemplateLimit if `text.replace(*args)` would be huge. args: sized before, for they are written
    out.
    """
    if len(args) >= 2:
        found, put = str(args[0]), str(args[1])
        require(len(text) + text.count(found) * len(put) <= MAX_CHARS, "replaces into a huge text")


def size(value: object) -> int:
    """Characters of a value with everything below it written out, however often it is shared; 16 more for
    each part. Raises TemplateLimit beyond MAX_CHARS.
    """
    waiting: list[Any] = [value]
    total = 16
    while waiting:  # the exact types first: 0.2 microseconds a part, five times as much without
        item = waiting.pop()
        kind = type(item)
        if kind is str:
            total += len(item)
        elif kind is int:
            total += item.bit_length() // 3
        else:
            parts = item if kind is list or kind is tuple else _inside(item)
            total += 16 * len(parts)
            waiting += parts if total <= MAX_CHARS else ()
        if total > MAX_CHARS:
            raise TemplateLimit(f"handles more than {MAX_CHARS} characters at once")
    return total


def _inside(item: object) -> Collection[object]:
    """What a value shows of itself; an object of jinja2 to `join(attribute=...)`, for example."""
    if item is None or isinstance(item, bool | float):
        return ()
    if isinstance(item, dict):
        return [*item.keys(), *item.values()]
    if isinstance(item, str):
        return (str(item),)  # of a Markup
    if isinstance(item, list | tuple | set | frozenset | KeysView | ValuesView | ItemsView):
        return item
    if isinstance(item, Namespace):
        return (object.__getattribute__(item, "__dict__"),)
    if isinstance(item, Cycler):
        return item.items
    if isinstance(item, Joiner):
        return (item.sep,)
    if isinstance(item, Macro):
        return (item.name,)
    if isinstance(item, LoopContext):
        return (item._before, item._current, item._peek_next())
    return ()
