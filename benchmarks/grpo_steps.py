"""What one step of the GRPO benchmark asks for, and the line protocol of the programs that take it.

The runner writes the prompts of all steps into one file, so that every program is asked the same. A program
loads, takes the warm-up steps, prints `{"ready": true}` and then takes one step for each line on standard
input, with one JSON line on standard output for each. Standard library only: a rival imports this file with
its own Python. Leaves out how a step is computed and what follows from its figures.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# The same update for all: one a step, the sum over tokens divided by a constant (Dr. GRPO), no divergence.
LEARNING_RATE = 1e-6
BETAS = (0.9, 0.99)
EPS = 1e-8
WEIGHT_DECAY = 0.0
MAX_GRAD_NORM = 1.0
CLIP_LOW, CLIP_HIGH = 0.2, 0.28


@dataclass(frozen=True)
class Question:
    """One problem: its name, and its prompt as chat messages."""

    key: str
    messages: list[dict[str, str]]


@dataclass(frozen=True)
class Taken:
    """One step as a program measured it; lists go by problem, in the order of the prompts' file."""

    seconds: float
    generation_seconds: float  # from prompts to completions; all the rest counts as training
    prompt_tokens: list[int]
    completion_tokens: list[list[int]]
    trained_tokens: int
    fed_tokens: int  # through the layers in training, padding and repeated prompts included
    prompt_digest: str
    stop_ids: list[int]
    note: str = ""


def write_steps(path: Path, steps: Sequence[Sequence[Question]]) -> None:
    """One line for each step."""
    lines = (json.dumps([asdict(question) for question in step]) for step in steps)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def read_steps(path: Path) -> list[list[Question]]:
    """The questions of each step."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [[Question(**question) for question in json.loads(line)] for line in lines]


def digest(prompts: Sequence[Sequence[int]]) -> str:
    """Tells whether two programs were asked the very same ids."""
    return hashlib.sha256(json.dumps([list(ids) for ids in prompts]).encode()).hexdigest()[:16]


def reward(token_ids: Sequence[int]) -> float:
    """A number from 0 to 1 that depends on every token.

    Within 128 tokens nearly every answer is cut, so true verdicts would leave most groups without signal.
    These are what ours skips and TRL trains in vain; here all programs train all tokens.
    """
    return sum(place * token for place, token in enumerate(token_ids, start=1)) % 1009 / 1009


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that all measured programs share."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--model", required=True, type=Path, help="Hugging Face folder with bf16 weights")
    made.add_argument("--prompts", required=True, type=Path, help="the file of the steps, see write_steps")
    made.add_argument("--group-size", type=int, default=8)
    made.add_argument("--max-tokens", type=int, default=128)
    made.add_argument("--warm-up", type=int, default=1, help="steps that are not measured")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    made.add_argument("--wait", action="store_true", help="a line on standard input starts each step")
    return made


class Turns:
    """Begins and ends steps as the protocol says. Standard output is its own: chatter of libraries goes to
    standard error, since a dictionary that one of them prints would look like a line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._warm_up, self._waits = arguments.warm_up, arguments.wait
        self._out, sys.stdout = sys.stdout, sys.stderr
        self._number = 0

    def begin(self) -> None:
        """Returns when the next step may start. Raises SystemExit when nobody will ask for it any more."""
        if self._number == self._warm_up:
            self._say({"ready": True})
        if self._waits and self._number >= self._warm_up and not sys.stdin.readline():
            raise SystemExit(0)

    def end(self, taken: Taken) -> None:
        """Says what was measured, unless it was a warm-up."""
        self._number += 1
        if self._number > self._warm_up:
            self._say({**asdict(taken), "peak_rss_gib": round(peak_rss_gib(), 3)})

    def _say(self, line: dict[str, object]) -> None:
        print(json.dumps(line), file=self._out, flush=True)


def peak_rss_gib() -> float:
    """The most memory that this process has had resident, loading included. Its own, which `getrusage` would
    not say: that figure begins with the parent's.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kibibytes) / 2**20
