"""Tasks from the generators of reasoning-gym (extra `tasks`): `reasoning-gym:NAME?key=value&...`.

Its generators score from 0 to 1, and some pay for an empty answer; here only a score of 0.99 or more passes
and earns 1, what stands outside <answer>..</answer> earns nothing, and the raw score is kept in the parts.
Leaves out curricula and the generator `composite`.
Source: reasoning-gym's README; item i of a data set draws from seed + i.
"""

import difflib
import hashlib
import json
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

from groschen.errors import BadRequest, Unsupported
from groschen.records import Problem, Split, Verdict
from groschen.tasks.slots import Slot, anywhere, fill, strict
from groschen.tasks.splits import content
from groschen.tasks.task import Draft

PASSES = 0.99  # scores below it are partial credit
SIZES: Mapping[Split, int] = {Split.TRAIN: 1000, Split.DEV: 200, Split.TEST: 500}
# Item i of a data set draws from seed + i, so data sets with seeds 1 and 2 share all items but one. The
# splits, and the seeds that users give, are this far apart instead.
_STRIDE = 1_000_000
_LARGEST_SEED = 2**32 // (_STRIDE * len(Split)) - 1  # some generators want seeds of 32 bits
_INSTRUCTION = "Think step by step, then write the final answer between <answer> and </answer>."

Entry = Mapping[str, Any]  # question, answer, metadata: as reasoning-gym makes it


class Generator(Protocol):
    """What is used of a data set of reasoning-gym."""

    def __len__(self) -> int:
        """How many items there are."""

    def __getitem__(self, idx: int) -> Entry:
        """One item."""

    def score_answer(self, answer: str | None, entry: Entry) -> float:
        """The score of an answer, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Verdicts by a generator's own scores."""

    generator: Generator
    entries: Mapping[str, Entry]  # by the problem's key

    def verify(self, problem: Problem, text: str) -> Verdict:
        """Reward 1 if the last <answer> scores 0.99 or more. Parts: format, lenient, answer, score."""
        answer = strict(text, Slot.ANSWER)
        score = self._score(problem, answer if answer is not None else "")
        passed = answer is not None and score >= PASSES
        lenient = passed or any(self._score(problem, place) >= PASSES for place in anywhere(text))
        parts = {"format": answer is not None, "lenient": lenient, "answer": answer, "score": score}
        return Verdict(reward=float(passed), passed=passed, parts=parts)

    def gold(self, problem: Problem) -> str | None:
        """The generator's answer in its slot; None where it ships none."""
        answer = self.entries[problem.key].get("answer")
        return None if answer is None or not str(answer).strip() else fill(str(answer), Slot.ANSWER)

    def wrong(self, problem: Problem) -> tuple[str, ...]:
        """An empty slot, and the right answer outside of the slot."""
        gold = self.gold(problem)
        bare = () if gold is None else (str(self.entries[problem.key]["answer"]),)
        return ("<answer></answer>", *bare)

    def _score(self, problem: Problem, answer: str) -> float:
        return float(self.generator.score_answer(answer, self.entries[problem.key]))


def load_reasoning_gym(name: str, settings: Mapping[str, str]) -> Draft:
    """The task of one generator.

    settings: `seed`; `train_size`, `dev_size` and `test_size`; and whatever the generator's own configuration
    has. A text that stands there already is left out. Raises Unsupported without the extra, BadRequest for an
    unknown generator or setting.
    """
    gym = _package()
    names = sorted(gym.factory.DATASETS)
    if name not in names or name == "composite":
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
        raise BadRequest(f"reasoning-gym has no generator {name!r}; {hint}")
    seed, sizes, own = _settings(name, settings, gym)
    problems: dict[str, Problem] = {}  # by their text: each once
    entries: dict[str, Entry] = {}
    for index, split in ((2, Split.TEST), (1, Split.DEV), (0, Split.TRAIN)):  # what is held out chooses first
        start = (seed * len(Split) + index) * _STRIDE
        with _global_seed(start):
            generator = _generator(gym, name, {**own, "seed": start, "size": sizes[split]})
            for problem, entry in _problems(generator, name, split, start):
                if problems.setdefault(content(problem), problem) is problem:
                    entries[problem.key] = entry
    scored = Scored(generator, entries)
    return Draft(
        name=f"reasoning-gym:{name}",
        digest=_digest(name, settings, problems.values(), entries),
        problems=tuple(problems.values()),
        verify=scored.verify,
        gold=scored.gold,
        wrong=scored.wrong,
        notes=_notes(sum(sizes.values()), len(problems)),
    )


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Some generators draw from Python's global generator beside their own: seed it, and give it back."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _package() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of its files hold escapes that Python warns of
        try:
            return import_module("reasoning_gym")
        except ImportError as error:
            raise Unsupported(
                f"reasoning-gym can't be imported ({error}); install it with: pip install "
                "'groschen[tasks]' (one of its parts is compiled: it needs a C compiler and Python's headers)"
            ) from error


def _settings(
    name: str, given: Mapping[str, str], gym: ModuleType
) -> tuple[int, dict[Split, int], dict[str, object]]:
    """The seed, the sizes of the splits, and what is for the generator."""
    known = {field.name for field in fields(gym.factory.DATASETS[name][1])} - {"seed", "size"}
    ours = ["seed", *(f"{split}_size" for split in Split)]
    for key in given:
        if key not in known and key not in ours:
            all_known = [*ours, *sorted(known)]
            near = difflib.get_close_matches(key, all_known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(all_known)}"
            raise BadRequest(f"reasoning-gym:{name} has no setting {key!r}; {hint}")
    seed = _whole(given.get("seed", "0"), "seed", 0, _LARGEST_SEED)
    sizes = {}
    for split in Split:
        setting = f"{split}_size"
        sizes[split] = _whole(given.get(setting, str(SIZES[split])), setting, 1, _STRIDE)
    return seed, sizes, {key: _value(text) for key, text in given.items() if key in known}


def _whole(text: str, name: str, least: int, most: int) -> int:
    if text.isdecimal() and least <= int(text) <= most:
        return int(text)
    raise BadRequest(f"{name} is {text!r}; expected a whole number from {least} to {most}")


def _value(text: str) -> object:
    """A number, true, false or a list as JSON writes it; anything else is a text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _generator(gym: ModuleType, name: str, settings: Mapping[str, object]) -> Generator:
    try:
        made: Generator = gym.create_dataset(name, **settings)
    except (TypeError, ValueError, AssertionError) as error:
        raise BadRequest(
            f"reasoning-gym:{name} refuses its settings: {str(error) or type(error).__name__}"
        ) from error
    return made


def _problems(generator: Generator, name: str, split: Split, start: int) -> Iterator[tuple[Problem, Entry]]:
    for index in range(len(generator)):
        entry = generator[index]
        answer = entry.get("answer")
        yield (
            Problem(
                key=f"{name}:{start + index}",
                messages=({"role": "user", "content": f"{entry['question']}\n\n{_INSTRUCTION}"},),
                answer=None if answer is None else str(answer),
                split=split,
            ),
            entry,
        )


def _digest(
    name: str, settings: Mapping[str, str], problems: Iterable[Problem], entries: Mapping[str, Entry]
) -> str:
    """Over what was generated, since another version of the package may generate something else."""
    found = hashlib.sha256(json.dumps([name, dict(settings), PASSES], sort_keys=True).encode())
    for problem in problems:
        metadata = json.dumps(entries[problem.key]["metadata"], default=_type_name, skipkeys=True)
        found.update(f"{problem.key}\n{content(problem)}\n{problem.answer}\n{metadata}".encode())
    return found.hexdigest()


def _type_name(value: object) -> str:
    return type(value).__name__  # its repr may hold an address, which is another one in each process


def _notes(asked: int, made: int) -> tuple[str, ...]:
    if made == asked:
        return ()
    return (f"{asked - made} of {asked} generated problems repeat another one and were left out",)
