"""transformers' continuous batching (`generate_batch`), run by a Python that has torch and transformers.

    cd benchmarks && PYTHON -m rivals.transformers_continuous --model FOLDER --data ROWS --mode group64

Groups are `num_return_sequences`, so that a prompt is computed once; logprobs by its own `return_logprobs`.
The manager is made anew for each repeat, as `generate_batch` does; that start is inside the time. The cache
is sized for the mode: left to itself it takes 60 % of the free memory.
"""

import argparse
import time

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    ContinuousBatchingConfig,
    GenerationConfig,
    PreTrainedModel,
)
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

PAGE = 64


def one_repeat(
    model: PreTrainedModel,
    prompts: list[list[int]],
    mode: Mode,
    new_tokens: int,
    arguments: argparse.Namespace,
    first: float = 0.0,
) -> Repeat:
    """One `generate_batch` over all prompts with `new_tokens` at most."""
    sampling: dict[str, object] = {"do_sample": False}
    if not mode.greedy:
        sampling = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
    config = GenerationConfig(
        max_new_tokens=new_tokens,
        num_return_sequences=mode.samples,
        eos_token_id=list(STOP_IDS) if mode.stops else -1,
        pad_token_id=STOP_IDS[-1],
        **sampling,
    )
    pages_a_row = -(-(max(map(len, prompts)) + mode.new_tokens) // PAGE) + 1
    batching = ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=min(mode.completions, arguments.rows) * pages_a_row,
        max_batch_tokens=512,
        max_requests_per_batch=arguments.rows,
        return_logprobs=mode.logprobs and not arguments.no_logprobs,
        seed=0,
    )
    start = time.perf_counter()
    results = model.generate_batch(
        prompts,
        generation_config=config,
        continuous_batching_config=batching,
        warmup=False,
    )
    seconds = time.perf_counter() - start
    outputs = list(results.values())
    errors = [output.error for output in outputs if output.error]
    if errors or len(outputs) != len(prompts) * mode.samples:
        raise SystemExit(
            f"{len(outputs)} of {len(prompts) * mode.samples} completions came back; errors: {errors[:1]}"
        )
    if mode.prompt_tokens is not None:
        return Repeat.whole(sum(map(len, prompts)), seconds)
    tokens = sum(len(output.generated_tokens) for output in outputs)
    return stretched(mode, tokens, seconds, first, new_tokens)


def main(arguments: argparse.Namespace) -> None:
    """Loads, warms up, measures."""
    mode = MODES[arguments.mode]
    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=getattr(torch, arguments.dtype), attn_implementation="sdpa"
    ).eval()
    prompts = prompt_ids(
        mode,
        arguments.data,
        lambda messages: tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True),
        lambda text: tokenizer(text).input_ids,
    )
    new_tokens = arguments.new_tokens or mode.new_tokens
    warm = one_repeat(model, [prompts[0][:64]], mode, min(new_tokens, 8), arguments)
    if mode.prompt_tokens is None:
        new_tokens = min(
            new_tokens, fitting_new_tokens(mode, warm.tokens / warm.seconds, arguments.max_seconds)
        )
    is_cut = new_tokens < mode.new_tokens
    first = one_repeat(model, prompts, mode, 1, arguments).seconds if is_cut else 0.0
    for _ in turns(arguments):
        emit(one_repeat(model, prompts, mode, new_tokens, arguments, first))


if __name__ == "__main__":
    made = parser("transformers continuous batching")
    made.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    made.add_argument("--rows", type=int, default=64, help="requests in one step at most")
    made.add_argument("--new-tokens", type=int, help="measure on fewer new tokens, and say so")
    main(made.parse_args())
