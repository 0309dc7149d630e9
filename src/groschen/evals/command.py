"""`groschen eval`: one model, or two under the same harness, on a task's held-out problems.

Both models get the same problems and the same noise; the answer is a table for people or one JSON object
(docs/json.md). Leaves out parsing flags (cli.py) and statistics (stats.py, comparison.py).
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from groschen.engine.engine import EngineConfig
from groschen.engine.open import open_engine
from groschen.errors import BadRequest, VerifierFailed
from groschen.evals import wording
from groschen.evals.comparison import compare, comparison_json, summarise, summary_json
from groschen.evals.evaluate import EVALUATION_SALT, MAX_ERROR_SHARE, records_of, verifier_fault
from groschen.evals.trained_on import num_trained_on
from groschen.progress import LineAMinute
from groschen.records import EvalRecord, Problem, SamplingParams, Split
from groschen.rollout import Sampler, draw, verify
from groschen.runs.journal import Journal
from groschen.tasks.load import load_task
from groschen.tasks.splits import sample
from groschen.tasks.task import Task
from groschen.tasks.task_process import DEFAULT_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is measured."""

    task: str
    split: Split
    num_problems: int | None  # None: all of the split
    num_samples: int
    max_tokens: int
    temperature: float
    seed: int
    verdict_seconds: float = DEFAULT_SECONDS  # that a task.py may take for one
    allow_trained: bool = False  # measure on problems of the training split too
    max_rows: int | None = None  # samples that decode together; None: as suits the device

    def __post_init__(self) -> None:
        if self.num_samples < 1 or (self.num_problems is not None and self.num_problems < 1):
            raise BadRequest("--samples and --problems must be 1 or more")
        if self.temperature == 0 and self.num_samples > 1:
            raise BadRequest("at temperature 0 every sample is the same; take --samples 1")


@dataclass(frozen=True, slots=True)
class Answer:
    """The records of each model that was asked, the base first if there are two."""

    task: str
    question: Question
    models: Mapping[str, Sequence[EvalRecord]]
    num_trained_on: Mapping[str, int | None]  # problems of a model's training split; None: not known


def ask(question: Question, models: Sequence[str], out: Path | None = None) -> Answer:
    """Evaluate the models one after the other.

    out: a new folder for the records, one JSONL file for each model. Raises the errors of whatever cannot
    be opened, and VerifierFailed if too many verdicts are errors; the records are kept nevertheless.
    """
    if len(set(models)) < len(models):
        raise BadRequest(f"{models[0]} would be compared with itself; name another model after --against")
    if out is not None and out.exists():
        raise BadRequest(f"{out} exists; name a new folder for the records")
    task = load_task(question.task, question.verdict_seconds)
    problems = sample(task.of(question.split), question.num_problems)
    trained = {
        model: num_trained_on(model, problems, is_allowed=question.allow_trained) for model in models
    }
    found = {}
    for number, model in enumerate(models):
        found[model] = records = _records(question, task, problems, model)
        if out is not None:
            with Journal(out / f"{number}-{Path(model).stem}.jsonl") as lines:
                for record in records:
                    lines.append(record)
        if fault := verifier_fault(records, MAX_ERROR_SHARE, model):
            raise VerifierFailed(fault)
    return Answer(task.name, question, found, trained)


def _records(
    question: Question, task: Task, problems: Sequence[Problem], model: str
) -> list[EvalRecord]:
    opened = open_engine(model, config=EngineConfig(max_rows=question.max_rows))
    sampling = SamplingParams(
        max_tokens=question.max_tokens, temperature=question.temperature, seed=question.seed
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        total, words = len(problems) * question.num_samples, LineAMinute()
        line, verdicts = bar.add_task(model, total=total), bar.add_task("verdicts", total=total)

        def count(what: TaskID) -> None:
            bar.advance(what)
            words.say(f"{model}: {bar.tasks[line].completed:.0f} completions and "
                      f"{bar.tasks[verdicts].completed:.0f} verdicts of {total}")  # fmt: skip

        drawn = draw(
            Sampler(opened.engine, opened.text, sampling),
            problems,
            question.num_samples,
            salt=EVALUATION_SALT,
            on_completion=lambda _: count(line),
        )
        return records_of(verify(task, problems, drawn, on_verdict=lambda _: count(verdicts)))


def as_json(answer: Answer) -> str:
    """One JSON object, indented, with a line end; its keys are a contract (docs/json.md)."""
    models = [
        {"model": model, **summary_json(summarise(records)), "trained_on": answer.num_trained_on[model]}
        for model, records in answer.models.items()
    ]
    found: dict[str, object] = {
        "task": answer.task,
        "split": answer.question.split.value,
        "n": models[0]["n"],
        "k": answer.question.num_samples,
        "seed": answer.question.seed,
        "temperature": answer.question.temperature,
        "models": models,
        "paired": None,
    }
    if len(models) == 2:
        base, trained = answer.models.values()
        found["paired"] = comparison_json(compare(base, trained))
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"


def as_table(answer: Answer) -> Table:
    """For people: a row for each model, and the paired gain below. It fits 80 columns, and a pipe."""
    question = answer.question
    title = f"{answer.task}, {question.split.value} split"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), caption_justify="left")
    for column in (
        "model",
        "pass@1 (95 %)",
        f"pass@{question.num_samples}",
        "lenient",
        "cut",
        "errors",
        "tokens",
    ):
        is_name = column == "model"  # a long one is folded, a figure never
        table.add_column(column, justify="left" if is_name else "right", overflow="fold", no_wrap=not is_name)
    for model, records in answer.models.items():
        found = summarise(records)
        table.add_row(
            model,
            wording.with_interval(found.pass_at_1),
            wording.share(found.pass_at_k.get(question.num_samples, math.nan)),
            wording.DASH if found.lenient is None else wording.share(found.lenient.value),
            wording.share(found.truncated),
            str(found.num_errors),
            f"{found.mean_tokens:.0f}",
        )
    if len(answer.models) == 2:
        table.caption = wording.comparison(compare(*answer.models.values()))
    return table
