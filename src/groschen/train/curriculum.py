"""Which problems a step gets: a shuffled pass over the train split, without problems that teach nothing now.

A problem whose groups all passed or all failed several times in a row, with one reward for all, is put aside
for a few passes: its group would carry no signal. Everything is a function of (seed, pass, what was
measured), so a run can be repeated and resumed. Leaves out sampling from models.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from groschen.records import Group, Problem
from groschen.train.advantages import Rewards, has_signal


@dataclass(slots=True)
class Measured:
    """What groups of one problem have shown so far."""

    streak: int = 0  # groups in a row without signal, all passed (> 0) or all failed (< 0)
    until: int = 0  # first pass in which it is asked again


@dataclass(slots=True)
class CurriculumState:
    """What a checkpoint keeps."""

    num_passes: int = 0
    position: int = 0
    measured: dict[str, Measured] = field(default_factory=dict)


class Curriculum:
    """Hands out problems step by step."""

    def __init__(
        self,
        problems: Sequence[Problem],
        seed: int,
        put_aside_after: int,
        state: CurriculumState | None = None,
    ) -> None:
        self._problems = {problem.key: problem for problem in problems}
        self._seed, self._limit = seed, put_aside_after
        self.state = state or CurriculumState()
        self._order = self._shuffled()

    def next(self, count: int) -> list[Problem]:
        """`count` different problems; fewer only if the split has fewer."""
        chosen: dict[str, Problem] = {}
        for _ in range(3 * len(self._problems) + count):  # a pass may have everything put aside but a few
            if len(chosen) == min(count, len(self._problems)):
                break
            key = self._advance()
            if key not in chosen and not self._is_aside(key):
                chosen[key] = self._problems[key]
        for (
            key
        ) in self._order:  # all the rest is put aside: better a problem without signal than a smaller step
            if len(chosen) < min(count, len(self._problems)):
                chosen.setdefault(key, self._problems[key])
        return list(chosen.values())

    def observe(self, groups: Sequence[Group], rewards: Sequence[Rewards]) -> None:
        """Take note of what the groups of a step have shown. rewards: those of training, group by group."""
        if not self._limit:
            return
        for group, own in zip(groups, rewards, strict=True):
            graded = [each.verdict for each in group.rollouts if each.verdict.error is None]
            measured = self.state.measured.setdefault(group.problem.key, Measured())
            num_passed = sum(verdict.passed for verdict in graded)
            if not graded or 0 < num_passed < len(graded) or has_signal(own):
                measured.streak = 0
            else:
                way = 1 if num_passed else -1
                measured.streak = measured.streak + way if measured.streak * way > 0 else way
            if abs(measured.streak) >= self._limit:
                measured.until = self.state.num_passes + 1 + abs(measured.streak)

    @property
    def num_aside(self) -> int:
        """Problems that are put aside at present."""
        return sum(self._is_aside(key) for key in self.state.measured)

    def _is_aside(self, key: str) -> bool:
        measured = self.state.measured.get(key)
        return measured is not None and measured.until > self.state.num_passes

    def _advance(self) -> str:
        if self.state.position == len(self._order):
            self.state.num_passes += 1
            self.state.position = 0
            self._order = self._shuffled()
        key = self._order[self.state.position]
        self.state.position += 1
        return key

    def _shuffled(self) -> list[str]:
        """Keys by a hash of (seed, pass, key): the order of one problem to another never depends on a
        third.
        """

        def place(key: str) -> bytes:
            return hashlib.sha256(f"{self._seed}/{self.state.num_passes}/{key}".encode()).digest()

        return sorted(self._problems, key=place)
