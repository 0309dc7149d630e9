"""Whether a regular expression of a tokenizer takes bounded time, told from its form.

A backtracking matcher takes exponential time for nested repeats and for choices under a repeat, and time by a
high power of the length for several repeats that something must follow. The expressions of published
tokenizers have neither: their repeats stand over one character or class each, at most two in a branch, and
nothing has to match behind the second. What passes takes at worst time by the square of a run of like
characters. Leaves out whether it is valid: the library that compiles it says so.
"""

import re

_LONGEST = 4000  # characters; published ones have up to some hundred
_MOST_COUNT = 64  # of a counted repeat such as {1,3}
_ATOM = re.compile(
    r"""(?P<reference>\\[1-9kgRX])          # what is matched again, and what may be of any length
    |(?P<escape>\\(?:[pPxuo]\{[^}]*\}|.))   # one character or class
    |(?P<open>\((?:\?(?:<?[=!]|[a-zA-Z-]*:|>|<\w+>))?)
    |(?P<flags>\(\?[a-zA-Z-]+\))
    |(?P<close>\))
    |(?P<branch>\|)
    |(?P<assertion>[\^$])
    |(?P<character>[^\\\[(){}*+?|])""",
    re.VERBOSE | re.DOTALL,
)
_REPEAT = re.compile(r"(?:[*+?]|\{(\d*)(,?)(\d*)\})[?+]?")


class _Group:
    """What stands inside a pair of brackets so far, or in the whole expression."""

    def __init__(self) -> None:
        self.is_plain = True  # neither a repeat nor a choice in it
        self.unbounded = 0  # repeats without end in the current branch
        self.most_unbounded = 0  # in any branch
        self.is_closed = False  # the current branch has all the repeats that nothing may follow


def is_bounded(pattern: str) -> bool:
    """Whether matching `pattern` takes time by the square of the text's length at most."""
    if len(pattern) > _LONGEST:
        return False
    groups, at = [_Group()], 0
    while at < len(pattern):
        end, inner = _atom(pattern, at, groups)
        if end is None or not groups:
            return False
        repeat = _REPEAT.match(pattern, end)
        is_atom = inner is not None
        if repeat and not is_atom:
            return False
        if is_atom and not _add(groups[-1], inner, repeat):
            return False
        at = repeat.end() if repeat else end
    return len(groups) == 1


def _atom(pattern: str, at: int, groups: list[_Group]) -> tuple[int | None, _Group | None]:
    """End of the part at `at`, and what it holds if it can be repeated; None for an unknown one."""
    if pattern[at] == "[":
        return _end_of_class(pattern, at), _Group()
    found = _ATOM.match(pattern, at)
    if found is None or found.lastgroup == "reference":
        return None, None
    kind, group = found.lastgroup, groups[-1]
    if kind in ("escape", "character"):
        return found.end(), _Group()
    if kind == "open":
        groups.append(_Group())
    elif kind == "close":
        groups.pop()
        return found.end(), group
    elif kind == "branch":
        group.is_plain, group.is_closed = False, False
        group.most_unbounded, group.unbounded = max(group.most_unbounded, group.unbounded), 0
    return found.end(), None


def _add(group: _Group, inner: _Group | None, repeat: re.Match[str] | None) -> bool:
    """Take one part into its group; False if that is no longer bounded."""
    assert inner is not None
    is_optional = repeat is not None and repeat[0][0] in "?*"
    if group.is_closed and not is_optional:
        return False
    group.unbounded += max(inner.most_unbounded, inner.unbounded)
    if repeat is not None:
        is_exact = repeat[0][0] == "{" and not repeat[2]
        group.is_plain = group.is_plain and is_exact
        is_endless = repeat[0][0] in "*+" or (repeat[2] == "," and not repeat[3])
        counts = [int(count) for count in (repeat[1], repeat[3]) if count]
        if repeat[0][0] != "?" and not inner.is_plain:
            return False  # repeats of a repeat or of a choice
        if any(count > _MOST_COUNT for count in counts):
            return False
        group.unbounded += is_endless
    group.is_plain = group.is_plain and inner.is_plain
    group.is_closed = group.unbounded >= 2
    return group.unbounded <= 2


def _end_of_class(pattern: str, at: int) -> int | None:
    """Where the class in square brackets ends; brackets in it may nest."""
    depth, position = 0, at
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            position += 1
        elif character == "[":
            depth += 1
        elif character == "]" and position > at + 1:
            depth -= 1
            if depth == 0:
                return position + 1
        position += 1
    return None
