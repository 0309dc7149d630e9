"""What a report is made of, read from the files of one run folder and from nowhere else.

Only the manifest must be there. Whatever else is missing is left out of the report with a word. Leaves out
what the files mean for a reader (report_*.py) and how they are written (runs/).

Names of evaluations, in evaluations/: MODEL-SPLIT.jsonl with MODEL one of `base` (asked as the task asks),
`base-best-prompt` (the wording that did best on dev), `best` (the best checkpoint), `format-only` (trained
with a reward for the format alone), `step-000020` (on the way).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from groschen.files import decode, read_bytes, read_text
from groschen.ledger import LedgerLine, read_ledger
from groschen.plan import Plan
from groschen.records import EvalRecord
from groschen.runs.journal import read_journal
from groschen.runs.manifest import Manifest, read_manifest

BASE, PROMPTED, TRAINED, FORMAT_ONLY = "base", "base-best-prompt", "best", "format-only"
MODELS = (BASE, PROMPTED, TRAINED, FORMAT_ONLY)
_MOST_BYTES = 10_000_000  # of a text that a person may read
PLAN, PRICES, CHECK = "plan.json", "prices.json", "check.json"
_STEP = re.compile(r"step-(\d{6,})")

Line = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """A run folder as read. What is missing is empty, and named in `missing`."""

    name: str  # of the folder
    manifest: Manifest
    config: str  # the text of config.toml
    steps: tuple[Line, ...]  # metrics of kind "step", one for each step, in order
    evaluations: tuple[Line, ...]  # of kind "evaluation"
    events: tuple[Line, ...]  # of kind "event"
    records: Mapping[str, Sequence[EvalRecord]]  # of evaluations whose name is in MODELS, by file name
    best_step: int | None
    ledger: tuple[LedgerLine, ...]
    plan: Plan | None  # of plan.json
    warnings: tuple[str, ...]  # of `groschen check` on the task, before training
    missing: tuple[str, ...]  # files that are not there, or empty

    @property
    def split(self) -> str | None:
        """The split that the headline is about: test if base and trained were asked it, else dev, else
        None.
        """
        both = [
            split
            for split in ("test", "dev")
            if self.records_of(BASE, split) and self.records_of(TRAINED, split)
        ]
        return both[0] if both else None

    @property
    def num_prompts_tried(self) -> int:
        """Other wordings than the task's own that the base was tried with on dev."""
        lines = (line for line in self.evaluations if line.get("model") == "base-prompts")
        return len({line.get("prompt") for line in lines} - {-1, None})

    def records_of(self, model: str, split: str) -> Sequence[EvalRecord]:
        """The records of one model of MODELS; none if it was not asked. The best checkpoint's dev records may
        stand under its step.
        """
        found = self.records.get(f"{model}-{split}", ())
        if not found and model == TRAINED and self.best_step is not None:
            return self.records.get(f"step-{self.best_step:06d}-{split}", ())
        return found


def read_run(folder: Path) -> RunData:
    """The run in the folder. Raises BadFile if it is no run folder, or a file in it is damaged."""
    manifest = read_manifest(folder)
    metrics: list[dict[str, object]] = read_journal(folder / "metrics.jsonl")
    best_step = _best_step(folder / "best")
    ledger = read_ledger(folder / "ledger.jsonl") if (folder / "ledger.jsonl").exists() else ()
    records = _read_records(folder / "evaluations", best_step)
    found = {
        "config.toml": (folder / "config.toml").exists(),
        "metrics.jsonl": bool(metrics),
        "evaluations/": bool(records),
        "best": best_step is not None,
        "ledger.jsonl": bool(ledger),
        PLAN: (folder / PLAN).exists(),
    }
    return RunData(
        name=folder.resolve().name,
        manifest=manifest,
        config=read_text(folder / "config.toml", _MOST_BYTES) if found["config.toml"] else "",
        steps=_of_kind(metrics, "step"),
        evaluations=_of_kind(metrics, "evaluation"),
        events=_of_kind(metrics, "event"),
        records=records,
        best_step=best_step,
        ledger=ledger,
        plan=read_plan(folder / PLAN) if found[PLAN] else None,
        warnings=check_warnings(folder),
        missing=tuple(name for name, is_there in found.items() if not is_there),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    warnings: tuple[str, ...]


def check_warnings(folder: Path) -> tuple[str, ...]:
    """What the check of the task warned of before the run began; none of a run that keeps no check.json."""
    path = folder / CHECK
    if not path.exists():
        return ()
    remedy = "remove it, or restore it from a copy of the run"
    return decode(read_bytes(path, remedy=remedy), _Checked, path, remedy).warnings


def number_of(line: Line, key: str) -> float:
    """The number under a key; NaN if there is none."""
    value = line.get(key)
    return float(value) if isinstance(value, int | float) else math.nan


def points_of(lines: Sequence[Line], key: str) -> tuple[tuple[float, float], ...]:
    """(step, number) of each line that has the number."""
    pairs = ((number_of(line, "step"), number_of(line, key)) for line in lines)
    return tuple((step, value) for step, value in pairs if math.isfinite(step) and math.isfinite(value))


def _of_kind(metrics: Sequence[Line], kind: str) -> tuple[Line, ...]:
    return tuple(line for line in metrics if line.get("kind") == kind)


def _read_records(folder: Path, best_step: int | None) -> dict[str, list[EvalRecord]]:
    stems = [f"{model}-{split}" for model in MODELS for split in ("test", "dev")]
    if best_step is not None:
        stems += [f"step-{best_step:06d}-{split}" for split in ("test", "dev")]
    read = {stem: read_journal(folder / f"{stem}.jsonl", EvalRecord) for stem in stems}
    return {stem: records for stem, records in read.items() if records}


def _best_step(path: Path) -> int | None:
    """The step that `best` names: a link to a checkpoint's folder, or a file with its name."""
    if path.is_symlink():
        text = path.readlink().name
    elif path.is_file():
        text = read_text(path, _MOST_BYTES)
    else:
        return None
    match = _STEP.search(text)
    return int(match[1]) if match else None


def read_plan(path: Path) -> Plan:
    """The plan that was made before a run began. Raises BadFile if the file cannot be read or is none."""
    remedy = "remove it, or restore it from a copy of the run"
    return decode(read_bytes(path, remedy=remedy), Plan, path, remedy)
