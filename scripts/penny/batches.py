"""Attempts as token ids, in batches of about equal size.

Most rows are one prompt with several attempts that do not see each other, so that the prompt is computed
once; the others are conversations.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groschen.text.bundle import Text
from penny.traces import Attempts

_POOL = 16  # batches whose rows are sorted by length together, so that little is padding
_ATTEMPTS = 4  # of one row
_CONVERSATIONS = 0.1  # share of the rows
_NOT_LEARNED = -100


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows padded at the end, each [R, T] int64, as `network.hidden` takes them.

    targets: the next token, negative where nothing is learned (prompts, padding).
    """

    inputs: Tensor
    targets: Tensor
    positions: Tensor
    branches: Tensor

    @property
    def num_learned(self) -> int:
        """Targets that are learned."""
        return int((self.targets >= 0).sum())


@dataclass(slots=True)
class _Row:
    inputs: list[int]
    targets: list[int]
    positions: list[int]
    branches: list[int]

    def add(self, ids: Sequence[int], *, start: int, branch: int, is_learned: bool) -> None:
        """Tokens from position `start` on, each of which but the last is followed by the next."""
        self.inputs += ids[:-1]
        self.targets += ids[1:] if is_learned else [_NOT_LEARNED] * (len(ids) - 1)
        self.positions += range(start, start + len(ids) - 1)
        self.branches += [branch] * (len(ids) - 1)


class Batches:
    """An endless, seeded series of batches of at most `num_tokens` tokens, padding included."""

    def __init__(self, attempts: Attempts, text: Text, num_tokens: int, seed: int) -> None:
        self.attempts, self.text, self.num_tokens = attempts, text, num_tokens
        self.random = random.Random(seed)
        control = text.tokenizer.control
        self._user, self._assistant = control["<|user|>"], control["<|assistant|>"]
        self._end, self._pad = text.tokenizer.eos_ids[0], text.tokenizer.pad_id

    def __iter__(self) -> Iterator[Batch]:
        while True:
            rows: list[_Row] = []
            while sum(len(row.inputs) for row in rows) < _POOL * self.num_tokens:
                rows += [self._row() for _ in range(100)]
            rows.sort(key=lambda row: len(row.inputs))
            batches = list(self._cut(rows))
            self.random.shuffle(batches)
            yield from batches

    def _row(self) -> _Row:
        row = _Row([], [], [], [])
        if self.random.random() < _CONVERSATIONS:
            for turn in range(self.random.randint(2, 4)):
                prompt, completions = self.attempts.draw()
                asked = self._asked(prompt)
                # the end of the answer before it was only a target so far
                row.add(
                    [self._end, *asked] if turn else asked, start=len(row.inputs), branch=0, is_learned=False
                )
                row.add(self._answered(completions[0]), start=len(row.inputs), branch=0, is_learned=True)
            return row
        prompt, completions = self.attempts.draw(_ATTEMPTS)
        stem = self._asked(prompt)
        row.add(stem, start=0, branch=0, is_learned=False)  # its last token opens every branch
        for branch, completion in enumerate(completions, 1):
            row.add(self._answered(completion), start=len(stem) - 1, branch=branch, is_learned=True)
        return row

    def _asked(self, prompt: str) -> list[int]:
        return [self._user, *self.text.tokenizer.encode(prompt), self._end, self._assistant]

    def _answered(self, completion: str) -> list[int]:
        return [self._assistant, *self.text.tokenizer.encode(completion), self._end]

    def _cut(self, rows: list[_Row]) -> Iterator[Batch]:
        """Batches of rows that are sorted by length."""
        batch: list[_Row] = []
        for row in rows:
            if batch and (len(batch) + 1) * len(row.inputs) > self.num_tokens:
                yield self._pack(batch)
                batch = []
            batch.append(row)

    def _pack(self, rows: list[_Row]) -> Batch:
        length = max(len(row.inputs) for row in rows)

        def padded(name: str, filler: int) -> Tensor:
            lists: list[list[int]] = [getattr(row, name) for row in rows]
            return torch.tensor([each + [filler] * (length - len(each)) for each in lists])

        return Batch(
            padded("inputs", self._pad),
            padded("targets", _NOT_LEARNED),
            padded("positions", 0),
            padded("branches", 0),
        )
