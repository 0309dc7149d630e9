"""transformers' static batched `generate`, run by a Python that has torch and transformers.

    cd benchmarks && PYTHON -m rivals.transformers_generate --model FOLDER --data ROWS --mode group64

Rows go through in batches of `--rows`, left-padded; a batch ends when its last row has ended. Sampling is
plain temperature 1 (top_p 1, top_k off). Logprobs: the raw logits of each step are kept by `generate` and
the sampled token's logprob is gathered from them step by step, inside the time. No compilation, no static
cache.
"""

import argparse
import time
from dataclasses import dataclass, field

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    StoppingCriteria,
)
from workload import MODES, STOP_IDS, Mode, Repeat, emit, parser, prompt_ids, turns

PACE_STEPS = 4  # a batch is not cut before: the pace of its later steps must be known


@dataclass
class Clock(StoppingCriteria):  # type: ignore[misc]
    """Ends a batch at its deadline, notes the first token's time, keeps the sampled tokens' logprobs."""

    deadline: float
    logprobs: bool
    start: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    kept: list[torch.Tensor] = field(default_factory=list)
    calls: int = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        """Called after each step with ids [B, T] and, if kept, the tuple of logits [B, V] so far."""
        self.calls += 1
        if self.calls == 1:
            self.first = time.perf_counter() - self.start
        if self.logprobs:
            logits = scores[-1].float()
            picked = logits.gather(1, input_ids[:, -1:]) - logits.logsumexp(1, keepdim=True)
            self.kept.append(picked)
        late = self.calls >= PACE_STEPS and time.perf_counter() > self.deadline
        return torch.full((len(input_ids),), late, dtype=torch.bool)


def padded(prompts: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask [B, T], padded on the left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
    return ids, mask


def settings(mode: Mode, logprobs: bool, pad: int) -> GenerationConfig:
    """The mode as a GenerationConfig; without stops there is no end token at all."""
    sampling: dict[str, object] = {"do_sample": False}
    if not mode.greedy:
        sampling = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=mode.new_tokens,
        num_return_sequences=mode.samples,
        eos_token_id=list(STOP_IDS) if mode.stops else None,
        pad_token_id=pad,
        output_scores=logprobs,
        return_dict_in_generate=logprobs,
        **sampling,
    )


def new_token_count(rows: torch.Tensor, stops: bool) -> int:
    """Generated tokens in rows [B, T], the end token included, what follows it not."""
    if not stops:
        return rows.numel()
    ended = torch.isin(rows, torch.tensor(STOP_IDS)).int().cumsum(1)
    return int(((ended - torch.isin(rows, torch.tensor(STOP_IDS)).int()) == 0).sum())


def one_repeat(
    model: PreTrainedModel,
    prompts: list[list[int]],
    mode: Mode,
    config: GenerationConfig,
    rows: int,
    limit: float,
) -> Repeat:
    """Runs batches of `rows` rows until all are done or `limit` seconds are over."""
    size = max(1, rows // mode.samples)
    batches = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    begin = time.perf_counter()
    tokens, seconds, full_tokens, full_seconds, done = 0, 0.0, 0, 0.0, 0
    short = mode.new_tokens
    for batch in batches:
        if done and time.perf_counter() - begin > limit:
            break
        ids, mask = padded(batch, config.pad_token_id)
        clock = Clock(begin + limit, config.output_scores)
        out = model.generate(ids, attention_mask=mask, generation_config=config, stopping_criteria=[clock])
        took = time.perf_counter() - clock.start
        made = (out.sequences if config.output_scores else out)[:, ids.shape[1] :]
        count = new_token_count(made, mode.stops)
        all_ended = mode.stops and bool(torch.isin(made, torch.tensor(STOP_IDS)).any(1).all())
        whole = clock.calls == mode.new_tokens or all_ended
        step = (took - clock.first) / max(1, clock.calls - 1)
        tokens, seconds, done = tokens + count, seconds + took, done + len(batch)
        full_tokens += count if whole else made.shape[0] * mode.new_tokens
        full_seconds += took if whole else clock.first + step * (mode.new_tokens - 1)
        short = short if whole else clock.calls
    share = done / len(prompts)
    cut = share < 1 or short < mode.new_tokens
    note = (
        f"{done} of {len(prompts)} prompts, {short} of {mode.new_tokens} new tokens, {rows} rows a batch"
        if cut
        else ""
    )
    if mode.prompt_tokens is not None:
        tokens, full_tokens = done * mode.prompt_tokens, done * mode.prompt_tokens
    return Repeat(tokens, seconds, round(full_tokens / share), full_seconds / share, cut, note)


def main(arguments: argparse.Namespace) -> None:
    """Loads, warms up, measures."""
    mode = MODES[arguments.mode]
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=getattr(torch, arguments.dtype)
    ).eval()
    prompts = prompt_ids(
        mode,
        arguments.data,
        lambda messages: tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True),
        lambda text: tokenizer(text).input_ids,
    )
    config = settings(mode, mode.logprobs and not arguments.no_logprobs, tokenizer.pad_token_id)
    model.generate(torch.tensor([prompts[0][:16]]), max_new_tokens=2, do_sample=False)
    limit = arguments.max_seconds if arguments.max_seconds is not None else float("inf")
    for _ in turns(arguments):
        emit(one_repeat(model, prompts, mode, config, arguments.rows, limit))


if __name__ == "__main__":
    made = parser("transformers generate, static batches")
    made.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    made.add_argument("--rows", type=int, default=64, help="rows in one static batch")
    main(made.parse_args())
