"""What each benchmark mode asks for, and the line protocol that every measured program speaks.

A program (ours or a rival's) loads and warms up, prints `{"ready": true}`, then measures: one JSON line per
repeat on standard output, everything else on standard error. With `--wait` it starts a repeat only when a
line arrives on standard input, so that one run can measure several loaded programs in turn. Standard
library only: each rival imports this file with its own Python. No tokenizer, no timing of products.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

STOP_IDS = (151645, 151643)  # Qwen2.5: <|im_end|> and <|endoftext|>; both end a natural completion


@dataclass(frozen=True)
class Mode:
    """One workload: `prompts` x `samples` completions of at most `new_tokens` tokens."""

    prompts: int
    samples: int
    new_tokens: int
    greedy: bool = False
    stops: bool = False
    """Natural stops; without it the end token is ignored and all completions have `new_tokens` tokens."""
    logprobs: bool = False
    prompt_tokens: int | None = None
    """Exact prompt length, cut out of running text; None renders one question with the chat template."""

    @property
    def completions(self) -> int:
        """Completions of one repeat."""
        return self.prompts * self.samples


MODES = {
    "group64": Mode(prompts=8, samples=8, new_tokens=192, stops=True, logprobs=True),
    "fixed64": Mode(prompts=8, samples=8, new_tokens=128),
    "chat1": Mode(prompts=1, samples=1, new_tokens=128, greedy=True),
    "prefill": Mode(prompts=8, samples=1, new_tokens=1, greedy=True, prompt_tokens=512),
    "group256": Mode(prompts=32, samples=8, new_tokens=192, stops=True, logprobs=True),
}


@dataclass(frozen=True)
class Repeat:
    """One measurement. `tokens` are new tokens, in mode prefill prompt tokens.

    A repeat that was cut short (fewer new tokens or fewer rows than the mode asks for) carries in
    `full_seconds` what the whole would have taken: the start once, the later steps at the pace measured.
    Later steps see longer contexts, so this estimate favours the program measured.
    """

    tokens: int
    seconds: float
    full_tokens: int
    full_seconds: float
    cut: bool = False
    note: str = ""
    steps: tuple[tuple[int, int], ...] = ()
    """Ours only: (rows through the layers, rows through the head) of each step, for the roof."""
    roof_seconds: float | None = None

    @staticmethod
    def whole(tokens: int, seconds: float, note: str = "") -> "Repeat":
        """A repeat that did all that the mode asks for."""
        return Repeat(tokens, seconds, tokens, seconds, note=note)

    @property
    def tokens_per_second(self) -> float:
        """Rate over the whole work, estimated where the repeat was cut."""
        return self.full_tokens / self.full_seconds


def stretched(
    mode: Mode, tokens: int, seconds: float, first: float, new_tokens: int, note: str = ""
) -> Repeat:
    """A repeat of `new_tokens` instead of `mode.new_tokens` a row.

    `first`: seconds that had passed when all rows had their first token; they are not stretched.
    """
    if new_tokens >= mode.new_tokens:
        return Repeat.whole(tokens, seconds, note)
    step = (seconds - first) / max(1, new_tokens - 1)
    full_seconds = first + step * (mode.new_tokens - 1)
    full_tokens = mode.completions * mode.new_tokens
    cut = f"cut to {new_tokens} of {mode.new_tokens} new tokens"
    return Repeat(tokens, seconds, full_tokens, full_seconds, True, f"{cut}; {note}" if note else cut)


def fitting_new_tokens(mode: Mode, tokens_per_second: float, max_seconds: float | None) -> int:
    """New tokens of a row that fit into `max_seconds` at a known pace; 8 at least, the mode's at most."""
    if max_seconds is None:
        return mode.new_tokens
    fitting = int(max_seconds * tokens_per_second / mode.completions)
    return max(min(8, mode.new_tokens), min(mode.new_tokens, fitting))


def questions(data: Path, count: int) -> list[str]:
    """The first `count` GSM8K questions of a JSONL file."""
    with data.open(encoding="utf-8") as lines:
        found = [json.loads(line)["question"] for _, line in zip(range(count), lines, strict=False)]
    if len(found) < count:
        raise SystemExit(f"{data} has {len(found)} rows, this mode needs {count}")
    return found


def prompt_ids(
    mode: Mode, data: Path, render: Callable[[list[dict[str, str]]], str], encode: Callable[[str], list[int]]
) -> list[list[int]]:
    """Token ids of the prompts. `render` applies the chat template, `encode` keeps special tokens as such."""
    if mode.prompt_tokens is None:
        return [encode(render([{"role": "user", "content": text}])) for text in questions(data, mode.prompts)]
    running: list[int] = []
    for text in questions(data, 12 * mode.prompts):  # a question has about 60 tokens
        running += encode(text + "\n\n")
    size = mode.prompt_tokens
    blocks = [running[start : start + size] for start in range(0, mode.prompts * size, size)]
    if len(blocks[-1]) < size:
        raise SystemExit(f"{data} is too short for {mode.prompts} prompts of {size} tokens")
    return blocks


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that all measured programs share."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--model", required=True, type=Path, help="folder, or GGUF file for llama.cpp")
    made.add_argument("--data", required=True, type=Path, help="GSM8K rows, JSONL")
    made.add_argument("--mode", required=True, choices=sorted(MODES))
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--max-seconds", type=float, help="cut a repeat that would take longer, and say so")
    made.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    made.add_argument("--no-logprobs", action="store_true", help="without the mode's logprobs")
    made.add_argument("--wait", action="store_true", help="a line on standard input starts each repeat")
    return made


def turns(arguments: argparse.Namespace) -> Iterator[int]:
    """Says ready, then yields the number of each repeat when its turn has come."""
    print(json.dumps({"ready": True}), flush=True)
    for number in range(arguments.repeats):
        if arguments.wait and not sys.stdin.readline():
            return
        yield number


def emit(repeat: Repeat) -> None:
    """Prints one repeat as a JSON line, with its rate and the peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    line = {**asdict(repeat), "tokens_per_second": repeat.tokens_per_second, "peak_rss_gib": round(peak, 3)}
    print(json.dumps(line), flush=True)


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
