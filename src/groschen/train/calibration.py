"""A short look at the model on the task before sizes are chosen: lengths, rates, a guess of accuracy.

Some completions of dev problems (of train where dev has too few; never of test) and the gradient of a few of
them, both cut off after seconds. What passes is a guess to plan with and never a result. Leaves out what is
made of it (sizing.py). Nothing of the model stays in memory.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from groschen import clock, heap, machine
from groschen.bill import Roofs
from groschen.engine.engine import Engine, EngineConfig
from groschen.errors import DoesNotFit, VerifierFailed
from groschen.model.checkpoint import Checkpoint
from groschen.model.flops import training_flops
from groschen.model.kvcache import KEYS_PER_BLOCK, KeyValueCache
from groschen.model.load import load_model
from groschen.model.transformer import Transformer
from groschen.plan_memory import Layout
from groschen.plan_time import Rates, RecipeFacts
from groschen.records import Completion, FinishReason, Problem, Request, SamplingParams, Split, Verdict
from groschen.tasks.splits import sample
from groschen.tasks.task import Task, judge
from groschen.text.bundle import Text
from groschen.train.batch import Scored, batch
from groschen.train.recipe import GrpoRecipe
from groschen.train.step import Objective, gradient

ANNOUNCEMENT = "a first look at the model on this task, about half a minute; no test problem is touched"
LONGEST = {"cpu": 512, "cuda": 2048}  # tokens of a completion that are waited for
_PROBLEMS, _SAMPLES = 16, 4  # 64 rows: as many as decode together in a run on a CPU
# Seconds of drawing, the second only while not even half have ended; then what has not ended is left open.
_DRAWING_S, _MOST_DRAWING_S = 30.0, 60.0
_FEWEST, _PROMPT_TOKENS = 2, 8000  # problems at least; tokens of all prompts: long ones would take minutes
_TRAINED_TOKENS = 600  # fed to the gradient: enough rows for the products' full rate, seconds on two cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was seen. Rates are seconds measured over seconds by the formula of plan_time.py."""

    lengths: tuple[int, ...]  # of completions that ended
    open_lengths: tuple[int, ...]  # of those that were cut or had not ended when the time was up
    limit: int  # tokens that a completion could have
    num_graded: int  # of those that ended, without those whose verifier broke
    num_passed: int
    tokens_per_s: float
    trained_tokens_per_s: float
    generation_factor: float
    training_factor: float
    gradient_overhead_s: float  # of each micro-batch, however few its tokens: every weight gets a gradient
    verify_s: float  # of one completion
    seconds: float  # that all of this took

    def mean_tokens(self, max_tokens: int) -> float:
        """The mean length of a completion of at most `max_tokens`.

        Completions that were left open go on to end as often per token as the others did.
        """
        if not self.lengths and not self.open_lengths:
            return max(1.0, 0.4 * max_tokens)
        drawn = sum(self.lengths) + sum(self.open_lengths)
        ends = len(self.lengths) / max(1, drawn)
        whole = [float(min(length, max_tokens)) for length in self.lengths]
        for length in self.open_lengths:
            left = max(0, max_tokens - length)
            more = min(left, 1 / ends) if ends else left
            whole.append(min(max_tokens, length + more))
        return max(1.0, sum(whole) / len(whole))

    def share_longer(self, tokens: int) -> float:
        """Which share of completions is longer than that, of those that can be told; 1.0 if none can."""
        told = [*self.lengths, *(length for length in self.open_lengths if length > tokens)]
        return sum(length > tokens for length in told) / len(told) if told else 1.0


@dataclass(slots=True)
class _Row:
    """One completion as far as it came."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    completion: Completion | None = None  # None: it had not ended


def calibrate(
    task: Task,
    checkpoint: Checkpoint,
    text: Text,
    roofs: Roofs,
    recipe: GrpoRecipe,
    max_tokens: int | None = None,
) -> Calibration:
    """Load the recipe's model, draw and grade a few completions, take a gradient, let go of all of it.

    max_tokens: of a completion; None: as long as is waited for. Raises DoesNotFit where memory is too small.
    """
    started, device = clock.seconds(), machine.best_device()
    machine.prepare(device)
    sampling = SamplingParams(
        max_tokens=max_tokens or LONGEST.get(device.type, LONGEST["cpu"]),
        temperature=recipe.sampling.temperature,
        seed=recipe.seed,
    )
    try:
        model, limit = load_model(checkpoint, torch.bfloat16, device), recipe.alarms.max_error_share
        return _look(task, model, text, roofs, sampling, started, limit)
    finally:
        gc.collect()
        heap.give_back()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _look(
    task: Task, model: Transformer, text: Text, roofs: Roofs, sampling: SamplingParams, started: float,
    max_error_share: float,
) -> Calibration:  # fmt: skip
    rows, drawing_s = _draw(model, text, _prompts(task, text, model.config.max_context), sampling)
    begun = clock.seconds()
    ended = [(row.problem, row.completion) for row in rows if row.completion is not None]
    whole = [each for each in ended if each[1].finish_reason is not FinishReason.LENGTH]
    verdicts = _verdicts(task, whole, max_error_share)
    verify_s = (clock.seconds() - begun) / max(1, len(verdicts))
    num_cut, num_tokens = len(ended) - len(whole), sum(len(row.token_ids) for row in rows)
    rates = _rates(model, rows, roofs, sampling)
    training = _gradient(model, rows, rates)
    return Calibration(
        lengths=tuple(len(completion.token_ids) for _, completion in whole),
        open_lengths=tuple(
            len(row.token_ids)
            for row in rows
            if row.completion is None or row.completion.finish_reason is FinishReason.LENGTH
        ),
        limit=sampling.max_tokens or 0,
        num_graded=sum(verdict.error is None for verdict in verdicts) + num_cut,  # who is cut has not passed
        num_passed=sum(verdict.passed for verdict in verdicts if verdict.error is None),
        tokens_per_s=num_tokens / drawing_s,
        trained_tokens_per_s=training.num_tokens / training.seconds,
        generation_factor=drawing_s / rates.sampling(len(rows) / _SAMPLES, _SAMPLES)[1].expected,
        training_factor=training.factor,
        gradient_overhead_s=training.overhead_s,
        verify_s=verify_s,
        seconds=clock.seconds() - started,
    )


def _verdicts(
    task: Task, completions: Sequence[tuple[Problem, Completion]], max_error_share: float
) -> list[Verdict]:
    """Of all completions. Raises VerifierFailed where the run's alarm would: one that hangs takes its limit
    each time.
    """
    verdicts: list[Verdict] = []
    errors = 0
    for problem, completion in completions:
        verdicts.append(judge(task, problem, completion.text))
        error = verdicts[-1].error
        errors += error is not None
        if max_error_share and errors > max_error_share * len(completions):
            raise VerifierFailed(
                f"the verifier failed on {errors} of {len(verdicts)} completions of a first look (limit "
                f"{max_error_share:.0%} of {len(completions)}), at last on problem {problem.key!r}: {error}; "
                "try `groschen check`"
            )
    return verdicts


def _prompts(task: Task, text: Text, context: int) -> list[tuple[Problem, tuple[int, ...]]]:
    """Problems of dev, then of train, with their prompts' tokens; only those that leave room to answer."""
    dev = sample(task.of(Split.DEV), _PROBLEMS)
    problems = (*dev, *sample(task.of(Split.TRAIN), _PROBLEMS - len(dev)))
    template, found = text.chat_template(), list[tuple[Problem, tuple[int, ...]]]()
    for problem in problems:
        ids = tuple(template.encode(text.tokenizer, problem.messages))
        num_tokens = len(ids) + sum(len(others) for _, others in found)
        if len(ids) < context and (len(found) < _FEWEST or num_tokens <= _PROMPT_TOKENS):
            found.append((problem, ids))
    if not found:
        raise DoesNotFit(
            f"the prompts of task {task.name} are longer than the model's context of {context} tokens; take "
            "another model or shorten them"
        )
    return found


def _draw(
    model: Transformer,
    text: Text,
    prompts: Sequence[tuple[Problem, tuple[int, ...]]],
    sampling: SamplingParams,
) -> tuple[list[_Row], float]:
    """The rows as they stand when all have ended or the time is up, and the seconds."""
    longest = max(len(ids) for _, ids in prompts)
    sampling = replace(sampling, max_tokens=min(sampling.max_tokens or 1, model.config.max_context - longest))
    num_rows = len(prompts) * _SAMPLES
    num_blocks = num_rows * ((longest + (sampling.max_tokens or 1)) // KEYS_PER_BLOCK + 2)
    block_bytes = KeyValueCache.bytes_per_block(model.config, model.activation_dtype)
    config = EngineConfig(max_rows=num_rows, cache_bytes=num_blocks * block_bytes)
    engine, rows = Engine(model, text.tokenizer, config), dict[tuple[int, int], _Row]()
    _warm_up(engine, prompts[0][1], sampling)
    started = clock.seconds()
    for index, (problem, ids) in enumerate(prompts):
        own = replace(sampling, seed=(sampling.seed or 0) + index)
        number = engine.add(Request(prompt_ids=ids, sampling=own, num_completions=_SAMPLES))
        rows.update({(number, i): _Row(problem, ids) for i in range(_SAMPLES)})
    num_ended, seconds = 0, 0.0
    while not engine.is_idle and (
        seconds < (_DRAWING_S if 2 * num_ended >= num_rows else _MOST_DRAWING_S)
        or not all(row.token_ids for row in rows.values())
    ):
        for news in engine.step():
            row = rows[news.request, news.sample]
            row.token_ids += news.token_ids
            row.logprobs += news.logprobs
            row.completion = news.completion
            num_ended += row.completion is not None
        seconds = clock.seconds() - started
    for request in {request for request, _ in rows}:
        engine.abort(request)
    return list(rows.values()), seconds


def _warm_up(engine: Engine, prompt_ids: tuple[int, ...], sampling: SamplingParams) -> None:
    """A few tokens that are not timed: the first steps of an engine take its memory for the first time."""
    backwards = prompt_ids[::-1]  # as long, and no prefix of what is timed
    engine.add(Request(prompt_ids=backwards, sampling=replace(sampling, max_tokens=4), num_completions=1))
    while not engine.is_idle:
        engine.step()


def _rates(model: Transformer, rows: Sequence[_Row], roofs: Roofs, sampling: SamplingParams) -> Rates:
    """The formula for what was drawn."""
    mean_tokens = max(1, round(sum(len(row.token_ids) for row in rows) / len(rows)))
    facts = RecipeFacts(
        steps=1,
        problems_per_step=1,
        group_size=_SAMPLES,
        prompt_tokens=round(sum(len(row.prompt_ids) for row in rows) / len(rows)),
        completion_tokens=mean_tokens,
        max_completion_tokens=max(mean_tokens, sampling.max_tokens or 1),
    )
    return Rates(model.config, facts, roofs, Layout.of(model.kit, torch.bfloat16))


@dataclass(frozen=True, slots=True)
class _Training:
    """What a gradient takes: seconds over the formula's for each further token, and seconds for none."""

    num_tokens: int  # that were trained
    seconds: float
    factor: float
    overhead_s: float


def _gradient(model: Transformer, rows: Sequence[_Row], rates: Rates) -> _Training:
    """The gradient of the first tokens of a few rows beside that of a few tokens. Only their difference grows
    with a run's tokens: of 2.6 s for 600 tokens of a 0.5B model, more than a second was there for 120.
    """
    model.requires_grad_(True)
    for parameter in model.parameters():
        parameter.grad_dtype = torch.float32  # as in training
    chosen, fed = list[Scored](), 0
    for row in rows:
        length = min(len(row.token_ids), _TRAINED_TOKENS - fed - len(row.prompt_ids))
        if chosen and length < 2:
            break
        chosen.append(Scored(_completion(row, max(1, length)), 1.0))
        fed += len(row.prompt_ids) + length
    few = [Scored(_completion(rows[0], min(8, max(1, len(rows[0].token_ids)))), 1.0)]
    _timed_gradient(model, few)  # takes the memory
    few_s, seconds = _timed_gradient(model, few), _timed_gradient(model, chosen)
    model.zero_grad(set_to_none=True)

    def formula_s(scored: Sequence[Scored]) -> float:
        lengths = ((len(each.completion.prompt_ids), len(each.completion.token_ids)) for each in scored)
        return sum(
            rates.gradient_s(training_flops(model.config, prompt, [length], recomputes_head=False))
            for prompt, length in lengths
        )

    more_s = formula_s(chosen) - formula_s(few)
    # Where both are of about one size, or noise turned them around, one factor has to do for all.
    factor = (seconds - few_s) / more_s if more_s > formula_s(few) and seconds > few_s else None
    return _Training(
        num_tokens=sum(len(each.completion.token_ids) for each in chosen),
        seconds=seconds,
        factor=seconds / formula_s(chosen) if factor is None else factor,
        overhead_s=0.0 if factor is None else max(0.0, few_s - factor * formula_s(few)),
    )


def _timed_gradient(model: Transformer, rows: Sequence[Scored]) -> float:
    made = batch([[row] for row in rows], "token", 1, 2 * _TRAINED_TOKENS, model.device)
    started = clock.seconds()
    gradient(model, made, Objective())
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return clock.seconds() - started


def _completion(row: _Row, length: int) -> Completion:
    """The first tokens of a row."""
    return Completion(
        token_ids=tuple(row.token_ids[:length]), logprobs=tuple(row.logprobs[:length]), text="",
        finish_reason=FinishReason.LENGTH, policy_version=0, seed=0, sample=0, prompt_ids=row.prompt_ids,
        cached_tokens=0,
    )  # fmt: skip
