"""groschen with weights of one kind, for run_quantized.py: speeds, or what the rounding costs in quality.

    cd benchmarks && python -m ours_quantized --model FILE --data ROWS --weights int8 --what speed --repeats 3
    cd benchmarks && python -m ours_quantized --model FILE --data ROWS --weights int4 --what quality

One JSON line for each repeat. Quality: the negative log likelihood of each token of the gold answers after
the chat prompt (teacher forcing), the token that the model itself would have written there, and greedy
answers to questions, right if the last number in a box is the gold one.
"""

import argparse
import json
import re
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import torch
from ours import requests_of
from workload import Mode, prompt_ids, turns

from groschen import machine
from groschen.engine.engine import EngineConfig
from groschen.engine.open import Opened, open_engine
from groschen.model.kvcache import KEYS_PER_BLOCK, Rows
from groschen.model.quantized import weights_of
from groschen.records import Request, SamplingParams

SPEEDS = {
    "one stream": Mode(prompts=1, samples=1, new_tokens=128, greedy=True),
    "8 rows": Mode(prompts=8, samples=1, new_tokens=64),
    "64 rows": Mode(prompts=8, samples=8, new_tokens=32),
    "prefill": Mode(prompts=2, samples=1, new_tokens=1, greedy=True, prompt_tokens=512),
}
INSTRUCTION = "\nReason step by step and put the final answer in \\boxed{}."
_BOX = re.compile(r"\\boxed\{([^{}]*)\}")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def speeds(opened: Opened, data: Path) -> dict[str, float]:
    """New tokens a second of each kind of work after its first token; prompt tokens a second for prefill."""
    template, tokenizer, found = opened.text.chat_template(), opened.text.tokenizer, {}
    for name, mode in SPEEDS.items():
        prompts = prompt_ids(mode, data, template.render, tokenizer.encode)
        opened.engine.weights_changed(opened.engine.policy_version + 1)  # a cold prefix cache
        for request in requests_of(mode, prompts, mode.new_tokens):
            opened.engine.add(request)
        start, first, tokens, begun = time.perf_counter(), 0.0, 0, set[tuple[int, int]]()
        while not opened.engine.is_idle:
            progress = opened.engine.step()
            if len(begun) == mode.completions:
                tokens += len(progress)
                continue
            begun |= {(each.request, each.sample) for each in progress}
            first = time.perf_counter()
        end = time.perf_counter()
        if mode.prompt_tokens is not None:
            found[name] = sum(map(len, prompts)) / (end - start)
        else:
            found[name] = tokens / (end - first)
    return found


@torch.inference_mode()
def likelihoods(opened: Opened, data: Path, count: int) -> tuple[list[list[float]], list[list[int]]]:
    """For each row the negative log likelihoods (nat) of its answer's tokens, and the likeliest tokens."""
    model, tokenizer = opened.engine.model, opened.text.tokenizer
    losses, preferred = [], []
    for question, answer in rows_of(data, count):
        prompt = opened.text.chat_template().encode(tokenizer, [{"role": "user", "content": question}])
        ids = torch.tensor([*prompt, *tokenizer.encode(answer)])
        cache = model.new_cache(-(-len(ids) // KEYS_PER_BLOCK))
        hidden_TD = model(ids, Rows.of_sequences([len(ids)], torch.device("cpu")), cache)
        logprobs_TV = model.logits(hidden_TD[len(prompt) - 1 : -1]).log_softmax(-1)
        losses.append((-logprobs_TV.gather(1, ids[len(prompt) :, None])[:, 0]).tolist())
        preferred.append(logprobs_TV.argmax(-1).tolist())
    return losses, preferred


def rows_of(data: Path, count: int) -> Iterator[tuple[str, str]]:
    """Question and gold answer of the first `count` rows."""
    with data.open(encoding="utf-8") as lines:
        for _, line in zip(range(count), lines, strict=False):
            row = json.loads(line)
            yield row["question"], row["answer"]


def right_answers(opened: Opened, data: Path, count: int, new_tokens: int) -> list[bool]:
    """Whether each of the first `count` questions is answered rightly, greedily."""
    rows = list(rows_of(data, count))
    template, tokenizer = opened.text.chat_template(), opened.text.tokenizer
    sampling = SamplingParams(max_tokens=new_tokens, temperature=0.0)
    requests = [
        Request(
            prompt_ids=tuple(
                template.encode(tokenizer, [{"role": "user", "content": question + INSTRUCTION}])
            ),
            sampling=sampling,
        )
        for question, _ in rows
    ]
    answers = [group[0].text for group in opened.engine.generate(requests)]
    return [
        value_of(_BOX.findall(answer)[-1:]) == value_of([gold.rpartition("####")[2]])
        for answer, (_, gold) in zip(answers, rows, strict=True)
    ]


def value_of(texts: list[str]) -> Fraction | None:
    """The last number in the text, if there is a text and a number in it."""
    found = _NUMBER.findall(texts[0]) if texts else []
    return Fraction(found[-1].replace(",", "")) if found else None


def main() -> None:
    """Load, then one line for each repeat."""
    made = argparse.ArgumentParser(description="groschen with weights of one kind")
    made.add_argument("--model", required=True)
    made.add_argument("--data", required=True, type=Path)
    made.add_argument("--weights", default="bf16")
    made.add_argument("--what", choices=["speed", "quality"], required=True)
    made.add_argument("--repeats", type=int, default=1)
    made.add_argument("--rows", type=int, default=200, help="gold answers to score")
    made.add_argument("--questions", type=int, default=0, help="questions to answer greedily")
    made.add_argument("--new-tokens", type=int, default=400, help="at most, of an answer")
    made.add_argument("--wait", action="store_true")
    given = made.parse_args()
    start = time.perf_counter()
    config = EngineConfig(cache_bytes=600_000_000)
    opened = open_engine(given.model, config=config, weights=weights_of(given.weights))
    facts = {
        "load_seconds": time.perf_counter() - start,
        "resident_gb": machine.resident_bytes() / 1e9,
        "peak_gb": machine.peak_memory_bytes() / 1e9,
    }
    if given.what == "speed":
        speeds(opened, given.data)  # warm
    for _ in turns(given):
        if given.what == "speed":
            line: dict[str, object] = {**speeds(opened, given.data), **facts}
        else:
            losses, preferred = likelihoods(opened, given.data, given.rows)
            line = {"losses": losses, "preferred": preferred, "right": []}
            if given.questions:
                line["right"] = right_answers(opened, given.data, given.questions, given.new_tokens)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
