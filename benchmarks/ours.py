"""groschen's own side of the engine benchmark, with the same line protocol as the rivals.

    cd benchmarks && python -m ours --model FOLDER --data ROWS --mode group64 --repeats 3

The rows of each step are seen by two hooks, one at the embedding and one at the head, so that the bare
products can be timed at the very same numbers of rows after each repeat.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from roofs import Step, product_seconds, read_seconds
from workload import (
    MODES,
    STOP_IDS,
    Mode,
    Repeat,
    emit,
    fitting_new_tokens,
    parser,
    prompt_ids,
    stretched,
    turns,
)

from groschen.engine.engine import Engine, EngineConfig
from groschen.model.load import load_model
from groschen.model.transformer import Linear, Transformer
from groschen.records import Completion, Request, SamplingParams
from groschen.roofs import measure_read_roof
from groschen.text.load import load_text


def requests_of(mode: Mode, prompts: list[list[int]], new_tokens: int) -> list[Request]:
    """One request for each prompt, with a fixed seed. The engine keeps logprobs in every mode."""
    return [
        Request(
            prompt_ids=tuple(ids),
            num_completions=mode.samples,
            sampling=SamplingParams(
                max_tokens=new_tokens,
                temperature=0.0 if mode.greedy else 1.0,
                stop_token_ids=STOP_IDS if mode.stops else (),
                ignore_end=not mode.stops,
                seed=index,
            ),
        )
        for index, ids in enumerate(prompts)
    ]


@contextmanager
def watched_steps(model: Transformer) -> Iterator[list[Step]]:
    """Collects the rows of every step that the block runs."""
    steps: list[Step] = []

    def layer_ran(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        steps.append(Step(len(inputs[0]), 0))

    def head_ran(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        steps[-1] = steps[-1]._replace(head_rows=steps[-1].head_rows + len(inputs[0]))

    hooks = [
        model.embed_tokens.register_forward_pre_hook(layer_ran),
        model.lm_head.register_forward_pre_hook(head_ran),
    ]
    try:
        yield steps
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def bare_products(model: Transformer, step: Step) -> None:
    """Every product of one step, inputs already in place: one buffer per width and number of rows."""
    inputs: dict[tuple[int, int], torch.Tensor] = {}
    for module in model.modules():
        if not isinstance(module, Linear):
            continue
        rows = step.head_rows if module is model.lm_head else step.rows
        width = module.weight.shape[1]
        if rows:
            key = rows, width
            if key not in inputs:
                inputs[key] = torch.ones(rows, width, dtype=model.activation_dtype, device=model.device)
            module(inputs[key])


def weight_bytes(model: Transformer) -> int:
    """Bytes of weights that one decode step reads: every product's, the head's included, no embedding."""
    return sum(m.weight.numel() * m.weight.element_size() for m in model.modules() if isinstance(m, Linear))


def measure_ours(
    mode: Mode, engine: Engine, requests: list[Request], new_tokens: int, first: float = 0.0
) -> Repeat:
    """One repeat from a cold prefix cache, with the rows of its steps. `first`: see `workload.stretched`."""
    engine.weights_changed(engine.policy_version + 1)
    with watched_steps(engine.model) as steps:
        start = time.perf_counter()
        completions: list[list[Completion]] = engine.generate(requests)
        seconds = time.perf_counter() - start
    if mode.prompt_tokens is not None:
        repeat = Repeat.whole(sum(len(request.prompt_ids) for request in requests), seconds)
    else:
        tokens = sum(len(one.token_ids) for group in completions for one in group)
        repeat = stretched(mode, tokens, seconds, first, new_tokens)
    return replace(repeat, steps=tuple(steps))


def with_roof(repeat: Repeat, mode: Mode, model: Transformer) -> Repeat:
    """The repeat with the least time its steps could have taken: by products, but a step of one row by
    reading.
    """
    steps = [Step(*step) for step in repeat.steps]
    singles = sum(step.rows == 1 for step in steps) if mode.completions == 1 else 0
    roof = 0.0
    if singles:
        roof = singles * read_seconds(weight_bytes(model), measure_read_roof(repeats=9).best)
        steps = [step for step in steps if step.rows > 1]
    roof += product_seconds(steps, lambda step: bare_products(model, step))
    return replace(repeat, roof_seconds=roof)


def main(arguments: argparse.Namespace) -> None:
    """Loads, warms up, measures."""
    mode = MODES[arguments.mode]
    torch.set_num_threads(arguments.threads)
    text = load_text(str(arguments.model))
    if text.template is None:
        raise SystemExit(f"{arguments.model} has no chat template; this benchmark renders questions with it")
    engine = Engine(load_model(str(arguments.model)), text.tokenizer, EngineConfig(max_rows=arguments.rows))
    prompts = prompt_ids(mode, arguments.data, text.template.render, text.tokenizer.encode)
    count = min(8, mode.new_tokens)
    warm = measure_ours(mode, engine, requests_of(mode, prompts, count), count)
    new_tokens = mode.new_tokens
    if mode.prompt_tokens is None:
        new_tokens = fitting_new_tokens(mode, warm.tokens / warm.seconds, arguments.max_seconds)
    requests = requests_of(mode, prompts, new_tokens)
    is_cut = new_tokens < mode.new_tokens
    first = measure_ours(mode, engine, requests_of(mode, prompts, 1), 1).seconds if is_cut else 0.0
    for _ in turns(arguments):
        repeat = measure_ours(mode, engine, requests, new_tokens, first)
        emit(repeat if arguments.no_roof else with_roof(repeat, mode, engine.model))


if __name__ == "__main__":
    made = parser("groschen")
    made.add_argument("--rows", type=int, default=64, help="rows that decode together")
    made.add_argument("--no-roof", action="store_true", help="do not time the bare products")
    main(made.parse_args())
