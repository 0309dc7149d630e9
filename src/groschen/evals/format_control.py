"""The control that tells reasoning from format: a second run, rewarded for the answer's place alone.

Takes that run's test answers into the run that is reported on. Leaves out the training itself, which is
`groschen train` with `rewards.source = "format"`.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from groschen.commands import command
from groschen.config import read_toml
from groschen.errors import BadFile, BadRequest
from groschen.evals.report_data import FORMAT_ONLY, TRAINED
from groschen.model.atomic import replaced_file
from groschen.records import EvalRecord
from groschen.runs.folder import refuse_links
from groschen.runs.journal import read_journal
from groschen.runs.manifest import read_manifest


def take_format_control(run: Path, control: Path) -> Path:
    """Copy the test answers of `control` beside those of `run` and return the copy's path.

    Raises BadRequest if the control was rewarded for more than the format, or differs from the run in model,
    task, seed or any other setting; BadFile if one of them is no run folder or has no test answers yet.
    """
    refuse_links(run)
    begun, other = read_manifest(run), read_manifest(control)
    for what, one, two in (
        ("model", begun.model_digest, other.model_digest),
        ("task", begun.task_digest, other.task_digest),
        ("seed", begun.seed, other.seed),
    ):
        if one != two:
            raise BadRequest(
                f"{control} is no control of {run}: it has another {what}; train it with the same one"
            )
    settings, of_control = _settings(run), _settings(control)
    if of_control.get("rewards.source") != "format":
        raise BadRequest(
            f"{control} was not rewarded for the format alone; train it with --set rewards.source=format"
        )
    apart = {key for key in settings.keys() | of_control.keys() if settings.get(key) != of_control.get(key)}
    if others := sorted(apart - {"rewards.source", "model", "task", "budget", "trackers"}):
        raise BadRequest(f"{control} is no control of {run}: {', '.join(others)} differ; set them alike")
    source = control / "evaluations" / f"{TRAINED}-test.jsonl"
    target = run / "evaluations" / f"{FORMAT_ONLY}-test.jsonl"
    records = read_journal(source, EvalRecord)
    if not records:
        go_on = command("train", "--resume", control)
        raise BadFile(f"{control} has no test answers yet; let it finish: {go_on}")
    with replaced_file(target) as file:
        file.writelines(msgspec.json.encode(record) + b"\n" for record in records)
    return target


def _settings(run: Path) -> dict[str, object]:
    """Every setting of config.toml under its dotted name."""
    return dict(_flat(read_toml(run / "config.toml"), ""))


def _flat(table: Mapping[str, object], before: str) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, value in table.items():
        pairs += (
            _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else [(f"{before}{key}", value)]
        )
    return pairs
