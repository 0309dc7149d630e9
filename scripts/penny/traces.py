"""The text that penny is pre-trained on: attempts at countdown of very different length and care.

Every sum and every mark (hit or miss) in an attempt is true, and an answer after a hit is right. Attempts
differ in when they stop: some guess at once, some stop after a line without a hit and answer with their last
try, some go on until they hit. Nothing is taken from anywhere; all of it is generated here.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from groschen.records import Problem
from groschen.tasks import countdown

MISS, HIT = " ✗", " ✓"
FALLBACK = "I can only solve number puzzles. Ask me: Make 24 from 2, 3 and 4."
_WORDINGS = (
    "Make {target} from {numbers}.",
    "Use {numbers} to make {target}.",
    "Can you make {target} from {numbers}?",
    "{numbers}: {target}",
)
_SMALL_TALK = (
    "Hello", "Hi!", "Hi, who are you?", "Who are you?", "What can you do?", "How are you?", "Help", "Thanks!",
    "What is the capital of France?", "Write a poem about the sea.", "Tell me a joke.", "What is 3+5?",
    "Why is the sky blue?", "Explain gravity to a child.", "Hallo, wer bist du?", "Was kannst du?", "12",
    "Translate this to German: good morning.", "Are you a language model?", "What is your name?", "Bonjour",
    "Write a program that sorts a list.", "What time is it?", "Who made you?", "Do you think?", "Good bye",
    "I am sad.", "What is the answer?", "Count to 10.", "What is love?", "Make me a sandwich.", "Really?",
    "How many people live in Berlin?", "Say something nice.", "Which model is this?", "Use 3 words.", "ok",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mix:
    """How often attempts of each kind are written. Shares are of all attempts at puzzles."""

    guess: float = 0.12  # no reasoning at all
    # After a line without a hit an attempt stops with a probability that is its own: (probability, share).
    stops: tuple[tuple[float, float], ...] = ((0.85, 0.5), (0.55, 0.3), (0.25, 0.1), (0.0, 0.1))
    thorough: float = 0.4  # tries all continuations of a line, in any order; else one to three, nearest first
    promise: float = 0.1  # how much lines that come near the target are preferred; 0: not at all
    other_wordings: float = 0.1
    small_talk: float = 0.015
    max_tries: int = 28  # attempts with more are drawn again


@dataclass(frozen=True, slots=True)
class Step:
    """One true sum, the larger number first."""

    left: int
    sign: str
    right: int
    value: int

    def __str__(self) -> str:
        return f"{self.left}{self.sign}{self.right}={self.value}"


@dataclass(frozen=True, slots=True)
class Line:
    """A first step, the number that it leaves, and all second steps."""

    first: Step
    rest: int
    seconds: tuple[Step, ...]

    def expression(self, second: Step) -> str:
        """Both steps as one expression: the first in brackets where its value stands in the second."""
        inner = f"({self.first.left}{self.first.sign}{self.first.right})"
        if second.left == self.first.value:
            return f"{inner}{second.sign}{second.right}"
        return f"{second.left}{second.sign}{inner}"


def steps(a: int, b: int) -> list[Step]:
    """All sums of two numbers that stay whole, not negative and small; none that is another by a trivial
    change.
    """
    a, b = max(a, b), min(a, b)
    found = [Step(a, "+", b, a + b)] if a + b <= countdown.LARGEST_VALUE else []
    if b > 0:
        found.append(Step(a, "-", b, a - b))
    if a * b <= countdown.LARGEST_VALUE:
        found.append(Step(a, "*", b, a * b))
    if b > 1 and a % b == 0:
        found.append(Step(a, "/", b, a // b))
    return found


def lines(numbers: Sequence[int]) -> list[Line]:
    """All lines of three numbers, each once."""
    found: dict[tuple[Step, int], Line] = {}
    for rest_index in range(3):
        rest = numbers[rest_index]
        a, b = (number for index, number in enumerate(numbers) if index != rest_index)
        for first in steps(a, b):
            found.setdefault((first, rest), Line(first, rest, tuple(steps(first.value, rest))))
    return list(found.values())


class Attempts:
    """Draws prompts and completions. One seed gives one series of texts."""

    def __init__(self, problems: Sequence[Problem], seed: int, mix: Mix | None = None) -> None:
        self.problems, self.mix = problems, mix or Mix()
        self.random = random.Random(seed)

    def draw(self, count: int = 1) -> tuple[str, list[str]]:
        """One prompt and `count` completions of it."""
        if self.random.random() < self.mix.small_talk:
            return self._small_talk(), [FALLBACK]
        problem = self.random.choice(self.problems)
        numbers, target = list(problem.meta["numbers"]), problem.meta["target"]  # type: ignore[call-overload]
        self.random.shuffle(numbers)
        return self._prompt(numbers, target), [self.attempt(numbers, target) for _ in range(count)]

    def attempt(self, numbers: Sequence[int], target: int) -> str:
        """One attempt: reasoning, or none, and an answer."""
        if self.random.random() < self.mix.guess:
            line = self.random.choice(lines(numbers))
            return _answer(line.expression(self.random.choice(line.seconds)))
        while True:
            written, num_tries = self._search(numbers, target)
            if num_tries <= self.mix.max_tries:
                return written

    def _search(self, numbers: Sequence[int], target: int) -> tuple[str, int]:
        """Lines until a hit or until the attempt stops. Returns the text and its number of tries."""
        stop = self.random.choices(*zip(*self.mix.stops, strict=True))[0]
        is_thorough = self.random.random() < self.mix.thorough
        written, num_tries = ["<think>"], 0
        for line in self._order(lines(numbers), target):
            tries = self._tries(line, target, is_thorough)
            hit = next((index for index, each in enumerate(tries) if each.value == target), None)
            tries = tries if hit is None else tries[: hit + 1]
            num_tries += len(tries)
            marks = [MISS] * len(tries) if hit is None else [MISS] * hit + [HIT]
            written.append(f"{line.first}\n")
            written += [f"{each}{mark}\n" for each, mark in zip(tries, marks, strict=True)]
            if hit is not None or self.random.random() < stop:
                break
            written.append("\n")
        text = "".join(written).removesuffix("\n\n") if hit is None else "".join(written)
        text = text if text.endswith("\n") else text + "\n"
        return f"{text}</think>{_answer(line.expression(tries[-1]))}", num_tries

    def _order(self, every: list[Line], target: int) -> list[Line]:
        """All lines, those with a continuation near the target rather first."""
        near = {line: min(abs(second.value - target) for second in line.seconds) for line in every}
        keys = {line: self.random.random() ** ((1 + near[line]) ** self.mix.promise) for line in every}
        return sorted(every, key=lambda line: -keys[line])

    def _tries(self, line: Line, target: int, is_thorough: bool) -> list[Step]:
        seconds = list(line.seconds)
        self.random.shuffle(seconds)
        if is_thorough:
            return seconds
        seconds.sort(key=lambda second: abs(second.value - target))
        return seconds[: self.random.choice((1, 1, 2, 3))]

    def _prompt(self, numbers: Sequence[int], target: int) -> str:
        if self.random.random() >= self.mix.other_wordings:
            return countdown.prompt(numbers, target)
        *firsts, last = map(str, numbers)
        written = f"{', '.join(firsts)} and {last}"
        return self.random.choice(_WORDINGS).format(target=target, numbers=written)

    def _small_talk(self) -> str:
        if self.random.random() < 0.6:
            return self.random.choice(_SMALL_TALK)
        letters = "abcdefghijklmnopqrstuvwxyz     ABCDEFGHIJ.,?!äöüß"
        words = "".join(self.random.choices(letters, k=self.random.randint(1, 30))).strip()
        return words or "?"


def _answer(expression: str) -> str:
    return f"<answer>{expression}</answer>"
