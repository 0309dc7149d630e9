"""TRL's GRPOTrainer on a CPU, run by a Python that has torch, transformers, datasets and trl.

    cd benchmarks && PYTHON -m rivals.trl_grpo --model FOLDER --prompts STEPS.jsonl [--dtype float32]

Its best settings for this work, as far as its documentation and source (1.16) say:
- Gradient checkpointing off, against its default: the activations of `--rows` completions fit into memory,
  and nothing is computed twice.
- One update for each rollout batch, in passes of `--rows` completions. It then takes the old log
  probabilities from the same forward and skips a second one. beta 0 loads no reference.
- 8 rows a pass: about 2,000 tokens, where products are at their peak. By arithmetic, in float32, 5 GB of
  activations beside 10 GB of weights, gradients and moments; 16 rows would need 20 GB.
- Its head computes log probabilities in chunks, without all logits: that is how TRL is, and not changed.
- Generation is one static batch of all rows. `--continuous` is its other way on a CPU, with a cache for just
  this batch, which left to itself takes most of the free memory. vLLM is not tried: TRL takes it up to
  0.31.0, the CPU build that was seen to run on such a processor is 0.32.
- float32, because a processor without bfloat16 products takes 3.5 times as long for one of 64 rows in
  bfloat16. `--dtype mixed` has weights, gradients and moments in float32 and multiplies in bfloat16
  (autocast): TRL's default, and what ours holds. `--dtype bfloat16` has all of them in bfloat16: leaner, but
  at this learning rate most of an update is rounded away.
- AdamW fused, its default. No logging, no saving. dr_grpo without scaled rewards is the loss nearest to
  ours; which one it is costs no time.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from grpo_steps import (
    BETAS,
    CLIP_HIGH,
    CLIP_LOW,
    EPS,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    WEIGHT_DECAY,
    Question,
    Taken,
    Turns,
    digest,
    parser,
    read_steps,
    reward,
)
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

PAGE = 64  # keys of one page of continuous batching


class Timed(GRPOTrainer):  # type: ignore[misc]
    """The trainer with a clock around its generation and a count of what its loss sees."""

    begun = 0.0
    generation_seconds = 0.0
    trained_tokens = 0
    fed_tokens = 0
    prompt_ids: Sequence[Sequence[int]] = ()
    completion_ids: Sequence[Sequence[int]] = ()

    def begin(self) -> None:
        """A step starts."""
        self.generation_seconds, self.trained_tokens, self.fed_tokens = 0.0, 0, 0
        self.begun = time.perf_counter()

    def _generate(self, prompts: list[object]) -> tuple[Any, ...]:
        start = time.perf_counter()
        found: tuple[Any, ...] = super()._generate(prompts)
        self.generation_seconds += time.perf_counter() - start
        self.prompt_ids, self.completion_ids = found[0], found[1]
        return found

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        self.trained_tokens += int(inputs["completion_mask"].sum())
        self.fed_tokens += inputs["prompt_ids"].numel() + inputs["completion_ids"].numel()
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        return loss

    def taken(self, group_size: int) -> Taken:
        """What the step that has just ended was."""
        seconds = time.perf_counter() - self.begun
        starts = range(0, len(self.prompt_ids), group_size)
        prompts = [self.prompt_ids[start] for start in starts]
        groups = [self.completion_ids[start : start + group_size] for start in starts]
        return Taken(
            seconds=seconds,
            generation_seconds=self.generation_seconds,
            prompt_tokens=[len(ids) for ids in prompts],
            completion_tokens=[[len(ids) for ids in group] for group in groups],
            trained_tokens=self.trained_tokens,
            fed_tokens=self.fed_tokens,
            prompt_digest=digest(prompts),
            stop_ids=sorted(self.eos_token_ids),
            note=f"{self.args.gradient_accumulation_steps} passes of "
            f"{self.args.per_device_train_batch_size} rows",
        )


class Gate(TrainerCallback):
    """Starts each step when its turn has come. Generation is inside: the trainer generates in its step."""

    def __init__(self, turns: Turns, group_size: int) -> None:
        self.turns, self.group_size = turns, group_size
        self.trainer: Timed | None = None

    def on_step_begin(self, *_: object, **__: object) -> None:
        """Before the first pass of a step."""
        assert self.trainer is not None
        self.turns.begin()
        self.trainer.begin()

    def on_step_end(self, *_: object, **__: object) -> None:
        """After the optimizer."""
        assert self.trainer is not None
        self.turns.end(self.trainer.taken(self.group_size))


def rewards(completion_ids: list[list[int]], **_: object) -> list[float]:
    """The reward that all programs share."""
    return [reward(ids) for ids in completion_ids]


def continuous(arguments: argparse.Namespace, completions: int, longest: int) -> dict[str, object]:
    """Continuous batching with a cache for one rollout batch."""
    pages_a_row = -(-(longest + arguments.max_tokens) // PAGE) + 1
    batching = {
        "page_size": PAGE,
        "num_blocks": completions * pages_a_row,
        "max_batch_tokens": 512,
        "max_requests_per_batch": completions,
    }
    return {
        "use_transformers_continuous_batching": True,
        "transformers_continuous_batching_config": batching,
    }


def settings(arguments: argparse.Namespace, steps: list[list[Question]], folder: str) -> GRPOConfig:
    """The benchmark's step in TRL's words."""
    completions = len(steps[0]) * arguments.group_size
    generation: dict[str, object] = {}
    if arguments.continuous:
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
        every = [question.messages for step in steps for question in step]
        texts = [
            str(tokenizer.apply_chat_template(each, tokenize=False, add_generation_prompt=True))
            for each in every
        ]
        longest = max(len(tokenizer(text).input_ids) for text in texts)
        generation = continuous(arguments, completions, longest)
    return GRPOConfig(
        output_dir=folder, use_cpu=True, seed=arguments.seed,
        bf16=arguments.dtype == "mixed",
        model_init_kwargs={"dtype": "bfloat16" if arguments.dtype == "bfloat16" else "float32"},
        num_generations=arguments.group_size, max_completion_length=arguments.max_tokens,
        temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, **generation,
        per_device_train_batch_size=arguments.rows, gradient_accumulation_steps=completions // arguments.rows,
        max_steps=len(steps), shuffle_dataset=False, num_iterations=1, beta=0.0,
        loss_type="dr_grpo", scale_rewards="none", epsilon=CLIP_LOW, epsilon_high=CLIP_HIGH,
        optim="adamw_torch_fused", learning_rate=LEARNING_RATE, adam_beta1=BETAS[0], adam_beta2=BETAS[1],
        adam_epsilon=EPS, weight_decay=WEIGHT_DECAY, max_grad_norm=MAX_GRAD_NORM,
        lr_scheduler_type="constant", warmup_steps=0,
        gradient_checkpointing=arguments.checkpointing,
        logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip


def main(arguments: argparse.Namespace) -> None:
    """Loads, then trains; the callback measures."""
    turns = Turns(arguments)
    torch.set_num_threads(arguments.threads)
    steps = read_steps(arguments.prompts)
    sizes = {len(step) * arguments.group_size for step in steps}
    if len(sizes) != 1 or min(sizes) % arguments.rows:
        raise SystemExit(
            f"steps of {sorted(sizes)} completions cannot be cut into passes of {arguments.rows}"
        )
    gate = Gate(turns, arguments.group_size)
    with tempfile.TemporaryDirectory() as folder:
        gate.trainer = Timed(
            model=str(arguments.model),
            reward_funcs=rewards,
            args=settings(arguments, steps, folder),
            train_dataset=Dataset.from_list([{"prompt": each.messages} for step in steps for each in step]),
            callbacks=[gate],
        )
        gate.trainer.remove_callback(PrinterCallback)
        gate.trainer.train()


if __name__ == "__main__":
    made = parser("TRL's GRPOTrainer")
    made.add_argument("--dtype", default="float32", choices=["float32", "mixed", "bfloat16"])
    made.add_argument("--rows", type=int, default=8, help="completions of one forward and backward")
    made.add_argument("--continuous", action="store_true", help="generate by continuous batching")
    made.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, to save memory")
    main(made.parse_args())
