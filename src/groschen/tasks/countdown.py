"""The built-in task: make a target from three (or four) numbers, each used once, with + - * / and brackets.

Every problem can be solved without leaving the whole numbers from 0 to 150. A problem's split hangs on a hash
of its numbers alone, so no test problem shares its numbers with a training problem, whatever the seed. Leaves
out: the search traces that the built-in model is pre-trained on (`scripts/penny/`).
The game is that of the television programmes Des chiffres et des lettres and Countdown.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import combinations_with_replacement
from pathlib import Path
from typing import TypeVar

from groschen.errors import BadRequest
from groschen.records import Problem, Split, Verdict
from groschen.tasks import arithmetic, slots
from groschen.tasks.arithmetic import Expression, read_expression
from groschen.tasks.slots import Slot

LARGEST_NUMBER = 15
LARGEST_VALUE = 150  # of targets and of what is computed on the way
COUNTS = (3, 4)  # how many numbers a problem may have
HELD_OUT = 500  # problems of the dev and of the test split
TRAIN_OF_FOUR = 8000  # of some 200,000 that there are
_TARGETS_PER_FOUR = 8  # taken of the targets that four numbers reach: more sets instead of more of one set
# What may hold an expression inside a text. Its ends are cut off by `strip`: a pattern that also says how an
# expression starts and ends takes quadratic time in 30,000 brackets.
_STRETCH = re.compile(r"[-+*/×·÷−–()\[\] 0-9]+")
_NO_START, _NO_END = "-+*/×·÷−–)] ", "-+*/×·÷−–([ "
_PROMPT = (
    "Make {target} from {numbers}. Use each number once, with + - * / and brackets. "
    "End with <answer>expression</answer>."
)

_Value = tuple[int, str]  # a value and how it is written
_Item = TypeVar("_Item")


def problems(seed: int = 0, numbers: int = 3) -> dict[Split, tuple[Problem, ...]]:
    """All problems of one seed, which decides their order, the order of the numbers in the text, and which
    of the held-out ones are taken.

    numbers: how many a problem has. Raises BadRequest for another count than 3 or 4.
    """
    if numbers not in COUNTS:
        raise BadRequest(f"countdown has problems of 3 or 4 numbers, found numbers={numbers}; choose 3 or 4")
    most = {Split.TRAIN: None if numbers == 3 else TRAIN_OF_FOUR, Split.DEV: HELD_OUT, Split.TEST: HELD_OUT}
    found: dict[Split, list[Problem]] = {split: [] for split in Split}
    for numbers_sorted in _ordered(
        combinations_with_replacement(range(1, LARGEST_NUMBER + 1), numbers), seed
    ):
        split = split_of(numbers_sorted)
        limit = most[split]
        if numbers == 4 and limit is not None and len(found[split]) >= limit:
            continue
        solutions = solve(numbers_sorted)
        targets = list(solutions) if numbers == 3 else _ordered(solutions, seed)[:_TARGETS_PER_FOUR]
        found[split] += [make_problem(numbers_sorted, each, solutions[each], seed) for each in targets]
    return {split: tuple(_ordered_problems(every, seed)[: most[split]]) for split, every in found.items()}


def split_of(numbers: tuple[int, ...]) -> Split:
    """Where problems of these sorted numbers belong: a tenth each to dev and test."""
    digest_of = hashlib.sha256(f"countdown {numbers}".encode()).digest()
    return {0: Split.TEST, 1: Split.DEV}.get(int.from_bytes(digest_of) % 10, Split.TRAIN)


def make_problem(numbers: tuple[int, ...], target: int, solution: str, seed: int) -> Problem:
    """The problem of sorted numbers and a target that `solution` reaches."""
    key = f"countdown:{'-'.join(map(str, numbers))}={target}"
    shown = _ordered(enumerate(numbers), f"{seed} {key}")
    return Problem(
        key=key,
        messages=({"role": "user", "content": prompt([number for _, number in shown], target)},),
        answer=solution,
        meta={"numbers": list(numbers), "target": target},
        split=split_of(numbers),
    )


def prompt(numbers: Iterable[int], target: int) -> str:
    """The text that asks for `target` from `numbers`, in the order given."""
    *firsts, last = map(str, numbers)
    return _PROMPT.format(target=target, numbers=f"{', '.join(firsts)} and {last}")


@cache
def solve(numbers: tuple[int, ...]) -> Mapping[int, str]:
    """Every target from 1 to LARGEST_VALUE that sorted numbers reach, with one shortest way to write it."""
    found: dict[int, str] = {}
    for value, text in _reach(tuple((number, str(number)) for number in numbers)):
        if value > 0 and (value not in found or (len(text), text) < (len(found[value]), found[value])):
            found[value] = text
    return dict(sorted(found.items()))


def verify(problem: Problem, text: str) -> Verdict:
    """Whether the last `<answer>...</answer>` holds an expression of the problem's numbers, each used once,
    with the target as its value.

    Parts: "format" (the last slot holds an expression), "lenient" (some expression behind the reasoning
    solves it), "answer" (what stands in the last slot; None without one).
    """
    answer = slots.strict(text, Slot.ANSWER)
    expression = None if answer is None else read_expression(answer)
    passed = expression is not None and _solves(problem, expression)
    lenient = passed or any(_solves(problem, each) for each in _expressions(text))
    parts: dict[str, float | bool | str | None] = {
        "format": expression is not None, "lenient": lenient, "answer": answer,
    }  # fmt: skip
    return Verdict(reward=float(passed), passed=passed, parts=parts)


def gold(problem: Problem) -> str:
    """A completion that must pass."""
    return f"<answer>{problem.answer}</answer>"


def wrong(problem: Problem) -> tuple[str, ...]:
    """Completions that must fail: each a way in which a careless verifier would be content."""
    numbers, target = _numbers(problem), _target(problem)
    one_more, twice = (*numbers[:-1], numbers[-1] + 1), (*numbers, numbers[0])
    sums = ["+".join(map(str, each)) for each in (one_more, twice)]
    hedge = f"{problem.answer}+0"
    return (
        "",
        "<answer></answer>",
        f"<answer>{target}</answer>",  # the right value, of no number
        f"<answer>{target}+0*({sums[0]})</answer>",  # the right value, of other numbers
        f"<answer>{problem.answer}+0*({sums[1]})</answer>",  # the right value, numbers used again
        f"<answer>{problem.answer}={target}</answer>",  # an equation is no expression
        f"<answer>{problem.answer}</answer> or <answer>{hedge}</answer>",  # the last one counts
        f"The answer is {problem.answer}.",  # right, but not where it was asked for
        f"<think><answer>{problem.answer}</answer>",  # still thinking
        f"<answer>{problem.answer}",
        f"<answer>__import__('builtins').int({target})</answer>",
        "<answer>" + "(" * 5000 + str(problem.answer) + ")" * 5000 + "</answer>",
    )


def digest(seed: int, numbers: int) -> str:
    """SHA-256 of what decides about problems and verdicts: these three source files and the settings."""
    content = hashlib.sha256(f"countdown seed={seed} numbers={numbers}".encode())
    for path in (Path(__file__), Path(arithmetic.__file__), Path(slots.__file__)):
        content.update(path.read_bytes())
    return content.hexdigest()


def _solves(problem: Problem, expression: Expression) -> bool:
    return expression.value == _target(problem) and sorted(expression.numbers) == _numbers(problem)


def _expressions(text: str) -> Iterator[Expression]:
    """Every stretch of a text behind its reasoning that is an expression."""
    for stretch in _STRETCH.findall(slots.after_thinking(text) or text):
        expression = read_expression(stretch.lstrip(_NO_START).rstrip(_NO_END))
        if expression is not None:
            yield expression


def _numbers(problem: Problem) -> list[int]:
    numbers = problem.meta["numbers"]
    assert isinstance(numbers, list | tuple)
    return sorted(numbers)


def _target(problem: Problem) -> int:
    target = problem.meta["target"]
    assert isinstance(target, int)
    return target


def _reach(values: tuple[_Value, ...]) -> Iterator[_Value]:
    """All values that come of joining two values until one is left."""
    if len(values) == 1:
        yield values[0]
        return
    seen = set()
    for i, first in enumerate(values):
        for j, second in enumerate(values[:i]):
            if (first[0], second[0]) in seen:
                continue
            seen.add((first[0], second[0]))
            rest = tuple(value for k, value in enumerate(values) if k not in (i, j))
            for joined in _join(*sorted((first, second), reverse=True)):
                yield from _reach((*rest, joined))


def _join(larger: _Value, smaller: _Value) -> Iterator[_Value]:
    """The four operations on two values where the result is whole, not negative and not too large."""
    (a, left), (b, right) = (
        (value, text if text.isdigit() else f"({text})") for value, text in (larger, smaller)
    )
    if a + b <= LARGEST_VALUE:
        yield a + b, f"{left}+{right}"
    yield a - b, f"{left}-{right}"
    if a * b <= LARGEST_VALUE:
        yield a * b, f"{left}*{right}"
    if b > 1 and a % b == 0:
        yield a // b, f"{left}/{right}"


def _ordered(items: Iterable[_Item], seed: object) -> list[_Item]:
    """Items in an order that hangs on the seed alone: by the hash of seed and item."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed} {item}".encode()).digest())


def _ordered_problems(every: list[Problem], seed: int) -> list[Problem]:
    return sorted(every, key=lambda each: hashlib.sha256(f"{seed} {each.key}".encode()).digest())
