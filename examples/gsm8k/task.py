"""GSM8K: grade-school word problems whose answer is one number (Cobbe et al., arXiv 2110.14168).

The rows of the test file are the test split. Every 25th row of the training file is held out as dev; of the
others those are trained whose solution has at most three steps. README.md says where the files are from.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from groschen import Problem, Verdict, read_jsonl, verifiers

FOLDER = Path(os.environ.get("GSM8K_DIR", Path(__file__).parent / "data")).absolute()
TEST_FILES = ("test.jsonl", "test_first_660.jsonl")  # the first one that is there
DEV_EVERY = 25  # 298 of 7,473 rows: enough to choose a checkpoint, and cheap to look at often
# A 0.5B model solves 4 % of the longer ones, and a group without a right answer teaches little.
MOST_STEPS = 3
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."

# Other wordings, tried on dev to find the base's best prompt. Two of them ask for another slot.
INSTRUCTIONS = (
    "Let's think step by step.",
    "Keep the steps short, and check the result before you write it down.",
    "Do not use a box. End with a line that holds #### and then only the number.",
    "Do not use a box. End with <answer>the number</answer>.",
)
SLOTS = ("boxed", "hashes", "answer")  # the first that is filled decides; the others are not looked at
CHECKERS = [verifiers.from_settings("number", {"slot": slot, "percent": "ignore"}) for slot in SLOTS]
CALCULATOR_NOTE = re.compile(r"<<.*?>>")


def load() -> Iterator[Problem]:
    """All rows that are there."""
    for number, problem in enumerate(problems("train.jsonl", "train"), start=1):
        if number % DEV_EVERY == 0:
            yield replace(problem, split="dev")
        elif problem.meta["steps"] <= MOST_STEPS:
            yield problem
    test_file = next((name for name in TEST_FILES if (FOLDER / name).exists()), TEST_FILES[0])
    yield from problems(test_file, "test")


def problems(file: str, split: str) -> Iterator[Problem]:
    """The rows of one file. The reference stands after ####, the author's solution before it."""
    for number, row in enumerate(read_jsonl(FOLDER / file), start=1):
        solution, _, answer = row["answer"].rpartition("####")
        yield Problem(
            key=f"{split}-{number}",
            messages=[{"role": "user", "content": f"{row['question']}\n\n{BOXED}"}],
            answer=answer.strip(),
            meta={
                "solution": CALCULATOR_NOTE.sub("", solution).strip(),
                "steps": len(CALCULATOR_NOTE.findall(solution)),
            },
            split=split,
        )


def verify(problem: Problem, text: str) -> Verdict:
    """The verdict of the first slot that is filled; of the box if none is."""
    for checker in CHECKERS:
        verdict = checker(problem, text)
        if verdict.parts["format"]:
            return verdict
    return CHECKERS[0](problem, text)


def gold(problem: Problem) -> str:
    """The author's solution, with the answer in a box."""
    return f"{problem.meta['solution']}\n{CHECKERS[0].gold(problem)}"


def wrong(problem: Problem) -> tuple[str, ...]:
    """Wrong numbers in each slot, and a right one behind a wrong box."""
    boxed, hashes, tagged = (checker.wrong(problem) for checker in CHECKERS)
    return (*boxed, *hashes, *tagged, f"\\boxed{{-1234567}} or rather {CHECKERS[1].gold(problem)}")
