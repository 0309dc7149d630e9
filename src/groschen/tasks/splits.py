"""Put every problem of a task into train, dev or test, so that it never moves.

The place of a problem is a hash of its prompt. Its key is left out, so that renaming moves nothing, and so
is its answer: correcting one does not carry a problem from test into train, and two rows with one prompt are
never on two sides. Leaves out near duplicates (overlap.py).
"""

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from groschen.errors import BadRequest
from groschen.records import Problem, Split

# Fixed for ever: another salt would move the problems of every task.
_SALT = b"groschen splits 1\n"


@dataclass(frozen=True, slots=True)
class Shares:
    """Which shares of the problems go to dev and test, from 0 to 1; train takes the rest."""

    dev: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        if not (0 <= self.dev <= 1 and 0 <= self.test <= 1 and self.dev + self.test <= 1):
            raise BadRequest(
                f"the shares dev = {self.dev:g} and test = {self.test:g} are not possible; expected "
                "two numbers from 0 to 1 that add up to at most 1; train takes the rest"
            )


def shares_from(table: object, where: str) -> Shares:
    """Shares as a user writes them: an object with the keys dev and test, or one of them.

    Raises BadRequest, which begins with `where`, for anything else.
    """
    if not isinstance(table, Mapping):
        raise BadRequest(f'{where} is {table!r:.200}; expected shares, as in {{"dev": 0.1, "test": 0.1}}')
    for name, value in table.items():
        if name not in ("dev", "test"):
            near = difflib.get_close_matches(str(name), ["dev", "test"], n=1)
            hint = (
                f"did you mean '{near[0]}'?" if near else "known are 'dev' and 'test'; train takes the rest"
            )
            raise BadRequest(f"{where} names '{name}'; {hint}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadRequest(f"{where} has {name} = {value!r:.200}; expected a number from 0 to 1")
    return Shares(**table)


def content(problem: Problem) -> str:
    """The prompt as one text: equal for two problems that only differ in key, answer, white space or the
    Unicode form of a character.
    """
    turns = [{name: _plain(value) for name, value in message.items()} for message in problem.messages]
    return json.dumps(turns, sort_keys=True, default=str)


def position(problem: Problem) -> float:
    """A number in [0, 1) that only depends on the prompt."""
    digest = hashlib.sha256(_SALT + content(problem).encode()).digest()
    return int.from_bytes(digest[:4], "big") / (1 << 32)


def split_problems(
    problems: Sequence[Problem], shares: Shares | None = None
) -> dict[Split, tuple[Problem, ...]]:
    """The problems of each split, in their order.

    Test takes positions from 0 up, dev from 1 down and train what lies between, so a larger dev never takes
    from test. A problem whose author named a split stays there, and a split that any author named takes no
    others, except train, which always does. If dev is not named, it is cut from train as well.
    """
    named = {problem.split for problem in problems}
    parts: dict[Split, list[Problem]] = {split: [] for split in Split}
    for problem in problems:
        parts[_place(problem, named, shares or Shares())].append(problem)
    return {split: tuple(part) for split, part in parts.items()}


def sample(problems: Iterable[Problem], count: int | None) -> tuple[Problem, ...]:
    """At most `count` problems (None: all), the same ones whatever the order; in their order.

    Those with the lowest hash are taken, so a larger sample holds every smaller one.
    """
    listed = tuple(problems)
    if count is None or count >= len(listed):
        return listed
    # Another hash than `position`: there the lowest ones are those of test.
    hashes = [hashlib.sha256(b"sample\n" + content(problem).encode()).digest() for problem in listed]
    lowest = sorted(range(len(listed)), key=lambda index: (hashes[index], index))[:count]
    return tuple(listed[index] for index in sorted(lowest))


def _place(problem: Problem, named: set[Split | None], shares: Shares) -> Split:
    if problem.split in (Split.DEV, Split.TEST):
        return problem.split
    where = position(problem)
    if problem.split is None and Split.TEST not in named and where < shares.test:
        return Split.TEST
    if Split.DEV not in named and where >= 1 - shares.dev:
        return Split.DEV
    return Split.TRAIN


def _plain(value: object) -> object:
    """Texts with one form of each character and single spaces; other values as they are."""
    if isinstance(value, str):
        return re.sub(r"\s+", " ", unicodedata.normalize("NFC", value)).strip()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value
