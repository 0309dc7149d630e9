"""Problems that stand twice: word for word, or nearly, in train and in a held-out split.

Texts are compared by the runs of eight words that they share, numbers included. Runs that many problems share
are a template's wording and count for nothing, and two texts with other numbers are other problems: so tasks
made from templates are not reported wholesale. Leaves out paraphrases and translations.
Source: runs of words as in the contamination check of GPT-3 (arXiv 2005.14165, appendix C; there 13 words).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groschen.errors import BadRequest
from groschen.records import Problem, Split
from groschen.tasks.splits import content

WORDS_IN_A_RUN = 8
NEAR = 0.6  # share of the runs of the text with fewer runs; one changed word in fifty leaves 0.8, two 0.6
NUMBERS_IN_COMMON = 0.8  # share of the numbers of the text with fewer numbers
# A run in more different texts than this, and than one in fifty of them, is a template's wording. Of fewer
# than ten texts, one in more than half of them is; always in more than two, since two make a pair.
TEMPLATE_TEXTS = 5
_WORD = re.compile(r"\d+(?:[.,]\d+)*|\w+|[-+*/^=<>%$€(){}\[\]|\\]")
_ROWS_AT_ONCE = 64  # held-out problems; bounds the memory to 64 scores for each training problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two problems that are the same, or nearly."""

    key: str
    split: Split
    other_key: str
    other_split: Split
    similarity: float  # shared runs over the runs of the text that has fewer; 1 for the same text


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What stands twice in a task."""

    copies: tuple[Pair, ...]  # the same text in two splits
    near: tuple[Pair, ...]  # nearly the same text in train and in dev or test, the most similar first
    repeated: tuple[Pair, ...]  # the same text twice in one split


def find_overlap(problems: Mapping[Split, Sequence[Problem]]) -> Overlap:
    """Copies, near copies and repetitions among the problems of a task.

    A text with several copies makes one pair for each copy, always with its first place.
    """
    copies, repeated = _equal_texts(problems)
    if not problems[Split.TRAIN] or not (problems[Split.DEV] or problems[Split.TEST]):
        return Overlap(copies=copies, near=(), repeated=repeated)
    held_out = [(split, problem) for split in (Split.DEV, Split.TEST) for problem in problems[split]]
    known = {(pair.key, pair.other_key) for pair in copies}
    near = [
        pair for pair in _near(problems[Split.TRAIN], held_out) if (pair.key, pair.other_key) not in known
    ]
    return Overlap(
        copies=copies, near=tuple(sorted(near, key=lambda pair: -pair.similarity)), repeated=repeated
    )


def refuse_copies(problems: Mapping[Split, Sequence[Problem]], name: str) -> None:
    """Raises BadRequest, with keys, if the same text stands in two splits of the task `name`."""
    copies, _ = _equal_texts(problems)
    if copies:
        shown = "; ".join(
            f"{pair.other_key!r} ({pair.other_split}) is {pair.key!r} ({pair.split})" for pair in copies[:3]
        )
        raise BadRequest(
            f"task {name}: {len(copies)} problem(s) of one split stand word for word in another: {shown}; "
            "remove one of each pair, or leave the split open so that both go to one side"
        )


def _equal_texts(problems: Mapping[Split, Sequence[Problem]]) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    first: dict[str, tuple[Split, Problem]] = {}
    across: list[Pair] = []
    within: list[Pair] = []
    for split in Split:
        for problem in problems[split]:
            other_split, other = first.setdefault(content(problem), (split, problem))
            if other is problem:
                continue
            pair = Pair(
                key=other.key, split=other_split, other_key=problem.key, other_split=split, similarity=1.0
            )
            (within if split == other_split else across).append(pair)
    return tuple(across), tuple(within)


@dataclass(frozen=True, slots=True)
class _Runs:
    """The different runs of words of some texts: one entry for each run of each text."""

    text: NDArray[np.int64]  # [N] index of the text
    run: NDArray[np.int64]  # [N] id of the run
    per_text: NDArray[np.int64]  # [texts] how many runs each has


def _near(train: Sequence[Problem], held_out: Sequence[tuple[Split, Problem]]) -> list[Pair]:
    problems = [*train, *(problem for _, problem in held_out)]
    words = [_WORD.findall(_text(problem).casefold()) for problem in problems]
    runs = _without_templates(_runs(words), words)
    numbers = [Counter(word for word in each if word[0].isdigit()) for each in words]
    found = []
    for row, column, similarity in _similar(runs, len(train)):
        if _numbers_agree(numbers[row], numbers[column]):
            split, problem = held_out[row - len(train)]
            found.append(
                Pair(
                    key=train[column].key,
                    split=Split.TRAIN,
                    other_key=problem.key,
                    other_split=split,
                    similarity=round(similarity, 4),
                )
            )
    return found


def _text(problem: Problem) -> str:
    """All that people wrote in the prompt. The system message is the same for all and left out."""
    return "\n".join(
        str(message.get("content")) for message in problem.messages if message.get("role") != "system"
    )


def _runs(words: Sequence[Sequence[str]]) -> _Runs:
    """A text with fewer than eight words is one run, filled up with nothing."""
    ids: defaultdict[str, int] = defaultdict(lambda: len(ids) + 1)
    numbered = [[ids[word] for word in each] + [0] * (WORDS_IN_A_RUN - len(each)) for each in words]
    flat = np.array([number for each in numbered for number in each], dtype=np.int64)
    lengths = np.array([len(each) for each in numbered])
    text = np.repeat(np.arange(len(words)), lengths)
    windows = np.lib.stride_tricks.sliding_window_view(flat, WORDS_IN_A_RUN)
    inside = text[: len(windows)] == text[WORDS_IN_A_RUN - 1 :]  # the others reach into the next text
    text, run = text[: len(windows)][inside], _numbered(windows[inside])
    num_runs = int(run.max()) + 1
    text, run = np.divmod(np.unique(text * num_runs + run), num_runs)  # each run of a text once
    return _Runs(text, run, np.bincount(text, minlength=len(words)))


def _numbered(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """An id for each different row; two get the same one by accident with odds of 1e-7 in a million rows."""
    weights = np.array(
        [pow(0x9E3779B97F4A7C15, power + 1, 1 << 64) for power in range(rows.shape[1])], np.uint64
    )
    hashes = (rows.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
    hashes ^= hashes >> np.uint64(29)
    return np.unique(hashes, return_inverse=True)[1].astype(np.int64)


def _without_templates(runs: _Runs, words: Sequence[Sequence[str]]) -> _Runs:
    first_of_its_text = {tuple(each): index for index, each in reversed(list(enumerate(words)))}
    different = np.zeros(len(words), dtype=bool)
    different[list(first_of_its_text.values())] = True
    num_texts = np.bincount(runs.run[different[runs.text]], minlength=int(runs.run.max()) + 1)
    num_different = len(first_of_its_text)
    keep = num_texts[runs.run] <= max(2, min(TEMPLATE_TEXTS, num_different // 2), num_different // 50)
    text, run = runs.text[keep], runs.run[keep]
    return _Runs(text, run, np.bincount(text, minlength=len(words)))


def _similar(runs: _Runs, num_train: int) -> list[tuple[int, int, float]]:
    """(held-out text, training text, similarity) of each pair that is near."""
    in_train = runs.text < num_train
    order = np.argsort(runs.run[in_train], kind="stable")
    run_of, text_of = runs.run[in_train][order], runs.text[in_train][order]
    found = []
    for start in range(num_train, len(runs.per_text), _ROWS_AT_ONCE):
        here = (runs.text >= start) & (runs.text < start + _ROWS_AT_ONCE)
        low = np.searchsorted(run_of, runs.run[here], side="left")
        count = np.searchsorted(run_of, runs.run[here], side="right") - low
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        columns = text_of[np.repeat(low, count) + within]
        rows = np.repeat(runs.text[here] - start, count)
        size = min(_ROWS_AT_ONCE, len(runs.per_text) - start)
        shared = np.bincount(rows * num_train + columns, minlength=size * num_train).reshape(size, num_train)
        fewer = np.minimum(runs.per_text[start : start + size, None], runs.per_text[None, :num_train])
        similarity = shared / np.maximum(fewer, 1)
        found += [
            (int(row) + start, int(column), float(similarity[row, column]))
            for row, column in np.argwhere(similarity >= NEAR)
        ]
    return found


def _numbers_agree(first: Counter[str], second: Counter[str]) -> bool:
    fewer = min(first.total(), second.total())
    return fewer == 0 or (first & second).total() >= NUMBERS_IN_COMMON * fewer
