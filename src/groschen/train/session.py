"""An open run: its folder, model, engine, task, optimizer and ledger, and the verbs that the loop is
written in.

Leaves out the order of the verbs (grpo.py) and how a run is opened (opening.py).
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from groschen.engine.engine import Engine
from groschen.errors import BadFile
from groschen.evals.comparison import summarise, summary_json
from groschen.evals.evaluate import EVALUATION_SALT, records_of, verifier_fault
from groschen.files import is_there
from groschen.ledger import Ledger
from groschen.live import Watch
from groschen.model import flops
from groschen.model.transformer import Transformer
from groschen.plan import Plan
from groschen.prices import Prices
from groschen.records import EvalRecord, Group, Problem, SamplingParams, Split, Verdict
from groschen.rollout import Drawn, Journal, Sampler, draw, verify
from groschen.runs.budget import Budget, Spent
from groschen.runs.checkpoints import Checkpoints, find_fault
from groschen.runs.folder import Run
from groschen.runs.journal import Journal as Lines
from groschen.runs.journal import read_journal
from groschen.runs.rollouts import Expected, RolloutJournal
from groschen.tasks.splits import sample
from groschen.tasks.task import Task, with_instruction
from groschen.text.bundle import Text
from groschen.trackers import Tracker
from groschen.train.alarms import Held, RunStopped, best_of, is_solved
from groschen.train.batch import Groups
from groschen.train.curriculum import Curriculum
from groschen.train.optimizer import Optimizer
from groschen.train.recipe import GrpoRecipe
from groschen.train.remaining import Counts, Remaining, spent_on
from groschen.train.state import TrainerState, read_state, write_state


@dataclass(slots=True, kw_only=True)
class Session:
    """Everything of a run that is open in this process."""

    recipe: GrpoRecipe
    run: Run
    task: Task
    model: Transformer
    engine: Engine
    text: Text
    model_config: dict[str, object]  # config.json of the base
    optimizer: Optimizer
    curriculum: Curriculum
    state: TrainerState  # as of the last whole step
    checkpoints: Checkpoints
    metrics: Lines
    ledger: Ledger
    prices: Prices
    budget: Budget | None
    watch: Watch
    trackers: Sequence[Tracker]
    planned: Plan  # of all that the run takes
    reference: Transformer | None = None

    # -- sampling

    def roll_out(self, problems: Sequence[Problem], step: int) -> tuple[list[Group], int]:
        """The groups of a step, taken up from its journal where it was begun before, and how many tokens were
        drawn for them now.
        """
        sampling = self.recipe.sampling
        journal = self._rollouts(self.run.paths.rollouts(step), problems, sampling.group_size)
        try:
            drawn = self._draw(
                problems, sampling.group_size, self._sampling(), step, journal, "generation", f"step {step}"
            )
            groups = self._verify(problems, drawn, step, journal, f"step {step}")
            return groups, drawn.num_new_tokens
        except RunStopped:
            path = self.run.paths.rollouts(step)  # so that a resume asks the verifier again
            path.replace(path.with_suffix(".failed.jsonl"))
            raise
        finally:
            journal.close()

    def evaluate(
        self, name: str, split: Split, num_problems: int, num_samples: int, instruction: str | None = None
    ) -> list[EvalRecord]:
        """The records of evaluations/NAME.jsonl, made now unless they are there, whole, already.

        Raises RunStopped if the verifier fails on more of them than the alarm allows.
        """
        path = self.run.paths.evaluation(name)
        problems = sample(self.task.of(split), num_problems)
        if is_there(path) and (whole := self._measured(path, problems, num_samples)) is not None:
            return whole
        if instruction is not None:
            problems = tuple(with_instruction(problem, instruction) for problem in problems)
        partial = path.with_suffix(".rollouts.jsonl")
        journal = self._rollouts(partial, problems, num_samples)
        try:
            drawn = self._draw(
                problems, num_samples, self._sampling(), EVALUATION_SALT, journal, "evaluation", name
            )
            words = f"the evaluation {name}"
            records = records_of(self._verify(problems, drawn, self.state.step, journal, words))
        except RunStopped:
            self.forget(name)  # so that a resume asks the verifier again
            raise
        finally:
            journal.close()
        _write_whole(path, records)
        partial.unlink()
        limit = self.recipe.alarms.max_error_share
        if limit and (fault := verifier_fault(records, limit, words)):
            self.forget(name)  # so that a resume asks the verifier again
            raise RunStopped(fault)
        return records

    def _rollouts(self, path: Path, problems: Sequence[Problem], num_samples: int) -> RolloutJournal:
        """What was drawn and graded of these problems before; what is not as it was written is said."""

        def expected() -> Expected:
            sampler, config = Sampler(self.engine, self.text, self._sampling()), self.model.config
            prompts = {problem.key: sampler.prompt_ids(problem) for problem in problems}
            return Expected(
                prompts=prompts, num_samples=num_samples, max_tokens=self.recipe.sampling.max_tokens,
                vocab_size=config.vocab_size,
            )  # fmt: skip

        journal = RolloutJournal(path, expected)
        if journal.fault is not None:
            self.note(journal.fault, is_alarm=True)
        return journal

    def _measured(self, path: Path, problems: Sequence[Problem], num_samples: int) -> list[EvalRecord] | None:
        """The records of an evaluation that ended before; None if they are not those of these problems: then
        the file is set aside.
        """
        wanted = sorted((problem.key, number) for problem in problems for number in range(num_samples))
        try:
            records = read_journal(path, EvalRecord)
            if sorted((record.key, record.sample) for record in records) == wanted:
                return records
            fault = f"{path} does not hold the {len(wanted)} answers that were asked for"
        except BadFile as error:
            fault = str(error)
        path.replace(path.with_suffix(".damaged"))
        self.note(f"{fault}; it was set aside and is measured again", is_alarm=True)
        return None

    def forget(self, name: str) -> None:
        """Set an evaluation aside that no longer belongs to the run's end; nothing is deleted."""
        path = self.run.paths.evaluation(name)
        for each in (path, path.with_suffix(".rollouts.jsonl")):  # whole, or begun by other weights
            if each.exists():
                each.replace(each.with_suffix(f".until-step-{self.state.step:06d}.jsonl"))

    def _sampling(self) -> SamplingParams:
        return SamplingParams(
            max_tokens=self.recipe.sampling.max_tokens,
            temperature=self.recipe.sampling.temperature,
            seed=self.recipe.seed,
        )

    def _draw(
        self, problems: Sequence[Problem], num_samples: int, sampling: SamplingParams, salt: int,
        journal: Journal, phase: str, words: str,
    ) -> Drawn:  # fmt: skip
        sampler, done, total = Sampler(self.engine, self.text, sampling), 0, len(problems) * num_samples
        step = self.state.step + 1 if phase == "generation" else self.state.step
        with self.ledger.span(phase, step) as span:

            def count(_: object) -> None:
                nonlocal done
                done += 1
                self.watch.progress(words, done, total)

            return draw(
                sampler, problems, num_samples, salt=salt, journal=journal, on_completion=count, span=span
            )

    def _verify(
        self, problems: Sequence[Problem], drawn: Drawn, step: int, journal: Journal, words: str
    ) -> list[Group]:
        done, errors, total = 0, 0, len(problems) * drawn.num_completions
        limit = self.recipe.alarms.max_error_share

        def count(verdict: Verdict) -> None:
            nonlocal done, errors
            done, errors = done + 1, errors + (verdict.error is not None)
            self.watch.progress(f"verdicts of {words}", done, total)
            if limit and errors > limit * total:  # for sure: the rest may take the limit of a verdict, each
                raise RunStopped(
                    f"the verifier failed on {errors} of {done} completions of {words} (limit {limit:.0%} of "
                    f"{total}), at last so: {verdict.error}; try `groschen check`"
                )

        with self.ledger.span("verification", step) as span:
            return verify(self.task, problems, drawn, journal=journal, on_verdict=count, span=span)

    # -- what is written down

    def log_step(self, metrics: Mapping[str, float]) -> None:
        """One line of metrics.jsonl, one row of the live table, and what an alarm remembers."""
        spent = self.spent()
        costs = {
            "cost/total": spent.money,
            "cost/currency": spent.currency,
            "time/total_s": spent.seconds,
            "time/left_s": self.left_s(),
        }
        line = {"kind": "step", "step": self.state.step, **metrics, **costs}
        self._append(line)
        self.watch.step(line)
        for tracker in self.trackers:
            tracker.log(self.state.step, line)
        silent = self.state.steps_without_signal + 1
        self.state.steps_without_signal = 0 if metrics["update/trained_groups"] else silent
        self.state.is_solved = is_solved(metrics)

    def log_evaluation(
        self, records: Sequence[EvalRecord], split: Split, model: str, prompt: int = -1
    ) -> Held:
        """One line of metrics.jsonl of the kind "evaluation"."""
        summary = summarise(records)
        numbers = summary_json(summary)
        about = {"kind": "evaluation", "step": self.state.step, "split": split.value, "model": model}
        line = {**about, "prompt": prompt, **numbers}
        self._append(line)
        self.watch.evaluation(line)
        for tracker in self.trackers:
            tracker.log(self.state.step, {f"{model}/{split.value}/{key}": numbers[key] for key in numbers})
        found = summary.pass_at_1
        return Held(self.state.step, _known(found.value), _known(found.se))

    def note(self, text: str, *, is_alarm: bool = False) -> None:
        """A sentence for people, kept in metrics.jsonl as an event."""
        self._append({"kind": "event", "step": self.state.step, "message": text})
        self.watch.note(text, is_alarm=is_alarm)

    def _append(self, line: Mapping[str, object]) -> None:
        self.metrics.append(line)
        self.state.num_lines += 1

    def spent(self) -> Spent:
        """What all attempts of this run have taken so far."""
        return spent_on(self.ledger.lines, self.prices)

    def is_budget_used(self) -> bool:
        """Whether another step would leave too little of the budget for what has to follow: the last
        measurements on dev and test, and the report.
        """
        if self.budget is None:
            return False
        left = self.remaining()
        used = self.budget.share(self.spent() + left.next_step() + left.dev() + left.end()) > 1.0
        if used:
            self.note(
                f"the budget of {self.budget} has no room for another step and the last measurement: "
                f"training ends after step {self.state.step}"
            )
        return used

    def remaining(self) -> Remaining:
        """What is still to be paid, by what was paid so far."""
        recipe, evaluation, task = self.recipe, self.recipe.evaluation, self.task

        def count(split: Split, wanted: int) -> int:
            return min(wanted, len(task.problems[split]))

        dev = count(Split.DEV, evaluation.dev_problems) * evaluation.dev_samples
        test = count(Split.TEST, evaluation.test_problems) * evaluation.test_samples
        tries = len(task.instructions) + 1 if task.instructions else 0
        wordings = tries * count(Split.DEV, evaluation.prompt_problems)
        tested = 2 if self.run.paths.evaluation("base-best-prompt-test").exists() else 1
        counts = Counts(
            step=count(Split.TRAIN, recipe.sampling.problems_per_step) * recipe.sampling.group_size,
            dev=dev,
            test=test,
            base=dev + wordings + tested * test,
        )
        return Remaining(self.ledger.lines, self.state.step, counts, self.planned, self.prices)

    def left_s(self) -> float:
        """Seconds to the end of the run, if all goes on as it goes now; no more than the budget has."""
        recipe, step, left = self.recipe, self.state.step, self.remaining()
        num_steps = recipe.num_steps - step
        measured = -(-recipe.num_steps // recipe.evaluation.every) - step // recipe.evaluation.every
        seconds = num_steps * left.mean_step_s() + measured * left.dev().seconds + left.end().seconds
        if self.budget is not None and self.budget.kind == "time":
            seconds = min(seconds, max(0.0, self.budget.amount - self.spent().seconds))
        return seconds

    # -- steps and checkpoints

    def is_due(self, every: int) -> bool:
        """Whether the step that just ended is one of every so many."""
        return self.state.step % every == 0

    def end_step(self) -> None:
        """The step is whole: from here on a checkpoint would have it."""
        self.state.step += 1
        self.state.num_updates = self.optimizer.num_steps
        self.state.curriculum = copy.deepcopy(self.curriculum.state)

    def save(self) -> None:
        """A checkpoint of the last whole step, unless there is one."""
        if any(each.step == self.state.step for each in self.checkpoints.all()):
            return
        with self.ledger.span("checkpoint", self.state.step):
            self.metrics.sync()
            self.checkpoints.save(self.state.step, self._write)

    def save_if_whole(self) -> None:
        """A checkpoint, unless the weights have moved on from the last whole step or nothing was trained
        yet.
        """
        if self.state.step and self.optimizer.num_steps == self.state.num_updates:
            self.save()

    def best_step(self) -> int:
        """The step with the highest accuracy on dev, the earliest of equals. The base itself is no
        candidate: what was trained is what is measured, and a report says so if it is no better.
        """
        trained = [held for held in self.state.held if held.step]
        return best_of(trained).step if trained else 0

    def mark_best_again(self) -> None:
        """Let `best` name what the evaluations so far say, if that checkpoint is there."""
        if self.checkpoints.path(step := self.best_step()).is_dir():
            self.checkpoints.mark_best(step)

    def take_weights_of(self, step: int) -> None:
        """Let the model be that of a checkpoint, for measuring; the trainer's state stays where it is."""
        folder = self.checkpoints.path(step)
        with self.ledger.span("checkpoint", self.state.step):
            if (fault := find_fault(folder)) is not None:
                raise BadFile(
                    f"the best checkpoint {folder} is damaged ({fault}), so it cannot be measured on test; "
                    "restore it from a copy and go on"
                )
            read_state(folder, self.optimizer)
            self.engine.weights_changed(policy_version=self.engine.policy_version + 1)

    def _write(self, folder: Path) -> None:
        write_state(folder, self.model, self.text, self.model_config, self.optimizer, self.state)

    def close(self) -> None:
        """Let go of files and of the run's lock."""
        for tracker in self.trackers:
            tracker.close()
        self.watch.finish()
        self.metrics.close()
        self.run.close()


def training_flops(model: Transformer, groups: Groups) -> flops.Flops:
    """FLOPs of forward and backward of groups that share their prompt, with what the model does again."""
    parts = (
        flops.training_flops(
            model.config,
            len(group[0].completion.prompt_ids),
            [len(each.completion.token_ids) for each in group],
            recomputes_layers=model.recomputes_layers,
            recomputes_head=False,
        )
        for group in groups
        if group
    )
    return sum(parts, flops.Flops())


def _known(value: float) -> float | None:
    """None for NaN, which a checkpoint's JSON cannot hold."""
    return None if math.isnan(value) else value


def _write_whole(path: Path, records: Sequence[EvalRecord]) -> None:
    """All lines or none, so that a file that is there is an evaluation that was finished."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.unlink(missing_ok=True)
    with Lines(temporary) as lines:
        for record in records:
            lines.append(record)
        lines.sync()
    temporary.replace(path)
