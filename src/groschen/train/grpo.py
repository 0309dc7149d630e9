"""The recipe: reinforcement learning with verifiable rewards, group-relative (GRPO and its successors).

    measure the base  ->  [ ask -> draw a group for each problem -> grade -> advantages -> update ] x steps
                      ->  measure the best checkpoint

One set of weights serves the engine and the trainer, so a step's log probabilities are the sampled ones,
bit for bit. Leaves out the formulas (advantages.py, losses.py), the update (step.py) and everything about
files (session.py). Sources: DeepSeekMath, arXiv 2402.03300; DeepSeek-R1, arXiv 2501.12948; Dr. GRPO, arXiv
2503.20783; DAPO, 2503.14476.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

from groschen import machine
from groschen.model.config import ModelConfig
from groschen.model.flops import scoring_flops
from groschen.records import Completion, Group, Split
from groschen.train.advantages import Rewards, advantages, has_signal
from groschen.train.alarms import best_of, check_step, has_fallen, is_silent
from groschen.train.batch import Groups, Scored, batch
from groschen.train.metrics import group_metrics, update_metrics
from groschen.train.optimizer import learning_rate
from groschen.train.recipe import GrpoRecipe
from groschen.train.reference import reference_logprobs
from groschen.train.rewards import most_varied, shaped_rewards
from groschen.train.session import Session, training_flops
from groschen.train.signals import undisturbed
from groschen.train.step import Objective, StepStats, gradient

T = TypeVar("T")


def train(session: Session) -> None:
    """Run the recipe from the session's last whole step to its end. Raises RunStopped if an alarm ends it."""
    recipe = session.recipe
    measure_base(session)
    measure_if_due(session)  # Ctrl-C or an alarm may have come between a step and its measurement
    while has_more(session):
        step, started = session.state.step + 1, machine.seconds()
        problems = session.curriculum.next(recipe.sampling.problems_per_step)
        groups, num_new_tokens = session.roll_out(problems, step)
        drawn = machine.seconds()
        rewards = [shaped_rewards(group, recipe.sampling.max_tokens, recipe.rewards) for group in groups]
        kept = [most_varied(own, recipe.sampling.trained_per_group) for own in rewards]
        trained = scored(session, groups, kept)
        share = trained_share(recipe, kept, trained)
        stats = [learn(session, part, share) for part in updates_of(recipe, trained)]
        with undisturbed():
            session.engine.weights_changed(policy_version=step)  # drops every cached prefix
            session.curriculum.observe(groups, rewards)
            session.end_step()
            metrics = group_metrics(groups, rewards, len(trained)) | update_metrics(stats)
            session.log_step(metrics | _times(num_new_tokens, started, drawn))
        check_step(metrics, session.state.steps_without_signal, recipe.alarms, first_error(groups))
        measure_if_due(session)
        if session.is_due(recipe.save_every):
            session.save()
    measure_best(session)


def first_error(groups: Sequence[Group]) -> str | None:
    """The first verdict that is an error, as the end of a sentence; None without one."""
    for group in groups:
        for error in (rollout.verdict.error for rollout in group.rollouts):
            if error is not None:
                return f"first on problem {group.problem.key!r}: {error}"
    return None


def has_more(session: Session) -> bool:
    """Whether another step follows: steps, budget and signal are left, and accuracy on dev has not rotted."""
    if session.state.step >= session.recipe.num_steps:
        return False
    if has_fallen(session.state.held, session.recipe.alarms):
        session.note("accuracy on dev fell and stayed below its best: training ends here")
        return False
    if session.state.is_solved and is_silent(session.state.steps_without_signal, session.recipe.alarms):
        session.note("nearly all completions pass, and no group has signal any more: training ends here")
        return False
    if session.is_budget_used():
        return False
    session.forget("best-test")  # of a run that had ended and now goes on, with a larger budget
    return True


def scored(session: Session, groups: Sequence[Group], rewards: Sequence[Rewards]) -> list[list[Scored]]:
    """The completions that are trained, group by group; groups without signal teach nothing and are left
    out.
    """
    recipe = session.recipe
    references = _references(session, groups)
    if references and recipe.policy.divergence == "k1_reward":
        rewards = [
            [_less_divergence(r, x.completion, ref, recipe.policy.divergence_weight) for r, x, ref in
             zip(own, group.rollouts, known, strict=True)]
            for own, group, known in zip(rewards, groups, references, strict=True)
        ]  # fmt: skip
    found = []
    for i, (group, own) in enumerate(zip(groups, advantages(rewards, recipe.advantage), strict=True)):
        if has_signal(rewards[i]):
            rows = references[i] if references else [()] * len(group.rollouts)
            triples = zip(group.rollouts, own, rows, strict=True)
            found.append([Scored(each.completion, a, row) for each, a, row in triples if a is not None])
    return found


def _references(session: Session, groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
    """Logprobs of the frozen base, if the recipe has a divergence."""
    if session.reference is None:
        return []
    recipe = session.recipe
    completions = [[each.completion for each in group.rollouts] for group in groups]
    num_tokens = sum(len(each.token_ids) for group in completions for each in group)
    work = _scoring_flops(session.model.config, completions)
    with session.ledger.span("training", session.state.step + 1) as span:
        return reference_logprobs(
            session.reference, completions, recipe.tokens_at_once, recipe.sampling.temperature,
            lambda tokens: span.add(flops=work * tokens / num_tokens),
        )  # fmt: skip


def _scoring_flops(config: ModelConfig, groups: Sequence[Sequence[Completion]]) -> float:
    return sum(
        scoring_flops(config, len(group[0].prompt_ids), [len(each.token_ids) for each in group]).model
        for group in groups
    )


def _less_divergence(
    reward: float | None, completion: Completion, reference: tuple[float, ...], weight: float
) -> float | None:
    """The reward minus the k1 estimate of the completion's KL(policy || base), in nat."""
    if reward is None:
        return None
    return reward - weight * math.fsum(a - b for a, b in zip(completion.logprobs, reference, strict=True))


def updates_of(recipe: GrpoRecipe, groups: Sequence[T]) -> list[Sequence[T]]:
    """The groups of each update of a step: one update sees them all, unless the recipe wants several."""
    count = min(recipe.policy.updates_per_step, len(groups))
    return [groups[i::count] for i in range(count)]


def trained_share(recipe: GrpoRecipe, rewards: Sequence[Rewards], trained: Groups) -> float:
    """Which part of the completions that the denominator counts is trained: all of it, but where the paper
    averages over every graded completion, those of the groups with signal.
    """
    if not recipe.counts_all or not trained:
        return 1.0
    num_graded = sum(reward is not None for own in rewards for reward in own)
    return sum(map(len, trained)) / num_graded


def learn(session: Session, groups: Groups, share: float) -> StepStats:
    """One update of the policy: forward and backward of every micro-batch, then one step of the optimizer."""
    recipe, policy, step, done = session.recipe, session.recipe.policy, session.state.step, 0
    made = batch(
        groups, recipe.normalisation, recipe.sampling.max_tokens, recipe.tokens_at_once, session.model.device,
        share,
    )  # fmt: skip
    objective = Objective(
        loss=recipe.loss,
        bounds=recipe.bounds,
        divergence=policy.divergence,
        divergence_weight=policy.divergence_weight,
        temperature=recipe.sampling.temperature,
    )
    work = training_flops(session.model, groups)
    with session.ledger.span("training", step + 1) as span:

        def count(tokens: int) -> None:
            nonlocal done
            done += tokens
            part = work * (tokens / made.num_trained_tokens)
            span.add(trained_tokens=tokens, flops=part.model, recomputed_flops=part.recomputed)
            session.watch.progress("update", done, made.num_trained_tokens)

        stats = gradient(session.model, made, objective, count)
        with undisturbed():
            stats.learning_rate = learning_rate(recipe.optimizer, step, recipe.num_steps)
            stats.grad_norm = session.optimizer.step(stats.learning_rate)
    return stats


def measure_base(session: Session) -> None:
    """The base before the first step, under the harness of the trained one: on dev, on test, and by its
    best prompt.
    """
    if session.state.held:
        return
    evaluation = session.recipe.evaluation
    dev = session.evaluate("base-dev", Split.DEV, evaluation.dev_problems, evaluation.dev_samples)
    session.state.held = [session.log_evaluation(dev, Split.DEV, "base")]
    best = _best_instruction(session)
    if evaluation.test_problems:
        wanted = (Split.TEST, evaluation.test_problems, evaluation.test_samples)
        session.log_evaluation(session.evaluate("base-test", *wanted), Split.TEST, "base")
        if best is not None:
            words = session.task.instructions[best]
            records = session.evaluate("base-best-prompt-test", *wanted, instruction=words)
            session.log_evaluation(records, Split.TEST, "base-best-prompt", best)


def _best_instruction(session: Session) -> int | None:
    """Which of the task's other wordings serves the base best on dev; None if none beats the task's own."""
    count = session.recipe.evaluation.prompt_problems
    if not session.task.instructions or not count:
        return None
    plain = session.evaluate("base-prompts-dev", Split.DEV, count, 1)
    found = [session.log_evaluation(plain, Split.DEV, "base-prompts")]
    for index, words in enumerate(session.task.instructions):
        records = session.evaluate(f"base-prompt-{index}-dev", Split.DEV, count, 1, instruction=words)
        found.append(session.log_evaluation(records, Split.DEV, "base-prompts", index))
    best = found.index(best_of(found))
    return best - 1 if best else None


def measure_if_due(session: Session) -> None:
    """The policy on dev after every so many steps, once."""
    held, step = session.state.held, session.state.step
    if session.is_due(session.recipe.evaluation.every) and held[-1].step != step:
        measure_on_dev(session)


def measure_on_dev(session: Session) -> None:
    """Held-out accuracy of the policy as it is, its checkpoint, and whether it is the best so far."""
    evaluation, step = session.recipe.evaluation, session.state.step
    name = f"step-{step:06d}-dev"
    records = session.evaluate(name, Split.DEV, evaluation.dev_problems, evaluation.dev_samples)
    with undisturbed():  # the line of metrics.jsonl and what it says must not part
        session.state.held.append(session.log_evaluation(records, Split.DEV, "policy"))
    session.save()
    if session.best_step() == step:
        session.checkpoints.mark_best(step)


def measure_best(session: Session) -> None:
    """The checkpoint that was best on dev, on test, once."""
    if not session.state.step:
        session.note("no step was trained, so there is nothing to measure")
        return
    if session.state.held[-1].step != session.state.step:
        measure_on_dev(session)
    evaluation, step = session.recipe.evaluation, session.best_step()
    session.checkpoints.mark_best(step)
    if not evaluation.test_problems:
        return
    if step != session.state.step:
        session.take_weights_of(step)
    records = session.evaluate("best-test", Split.TEST, evaluation.test_problems, evaluation.test_samples)
    session.log_evaluation(records, Split.TEST, "best")


def _times(num_new_tokens: int, started: float, drawn: float) -> dict[str, float]:
    """num_new_tokens: drawn now; what an interrupted step had drawn before took none of these seconds."""
    now = machine.seconds()
    return {
        "time/rollout_s": drawn - started,
        "time/update_s": now - drawn,
        "time/step_s": now - started,
        "tokens/per_s": num_new_tokens / (drawn - started),
    }
