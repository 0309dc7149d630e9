"""A run's birth certificate: what made it, from what, on which machine. Written once, never changed.

`check_inputs` decides at a resume what must be the same (model, problems, verifier, seed) and what may differ
but may cost equal bits (versions, commit, machine). Names and places of model and task are no part of that.
Leaves out the settings, which stand in config.toml; only their digest is here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from groschen.errors import BadFile, BadRequest
from groschen.files import decode, is_there, read_bytes
from groschen.model.atomic import write_synced
from groschen.ranges import Range

NAME = "manifest.json"
_MOST_BYTES = 10_000_000
_ROOF = Range(above=0, most=1e12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a report and a resume must know about the beginning of a run. Digests are SHA-256, hex."""

    groschen: str  # version
    commit: str | None  # of the source, if it was run from a checkout
    created: str  # ISO 8601, UTC
    model: str  # as it was named
    model_digest: str
    task: str  # as it was named
    task_digest: str
    seed: int
    machine: Mapping[str, object]
    exact: bool  # whether rows have the same bits alone, in a batch and in chunks there
    first_inexact: str | None  # the first operation that is not
    versions: Mapping[str, str]  # torch, python
    num_parameters: int
    config_digest: str  # of config.toml
    problems_digest: str = ""  # of key, messages, answer, meta and split of each; "": an older run has none
    folder: str = ""  # the working folder, where relative paths of task and model start


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the run folder. Raises BadFile if there is none, or not a whole one."""
    path = folder / NAME
    if not is_there(path):
        raise BadFile(f"{folder} is not a run folder: it has no {NAME}; check the name")
    remedy = "restore it from a copy of the run"
    return decode(read_bytes(path, _MOST_BYTES, remedy), Manifest, path, remedy)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it into a folder that is not under its final name yet. Raises OSError."""
    with write_synced(folder / NAME) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def roofs_of(manifest: Manifest) -> dict[str, float]:
    """What the machine was measured to reach, by name. Raises BadFile if the manifest does not say so."""
    found = manifest.machine.get("roofs")
    roofs = found if isinstance(found, dict) else {}
    for name in ("bf16_gflops", "read_gbps"):
        if not _ROOF.holds(roofs.get(name)):
            raise BadFile(
                f"{NAME} has {name} = {str(roofs.get(name))[:60]} among the roofs of its machine, expected a "
                f"number {_ROOF}; restore it from a copy of the run"
            )
    return {name: float(value) for name, value in roofs.items() if _ROOF.holds(value)}


def check_inputs(begun: Manifest, now: Manifest, difference: str | None = None) -> tuple[str, ...]:
    """Sentences on what differs and may change the bits of a run that goes on with `now`.

    difference: of the problems, if they differ. Raises BadRequest if the model, a problem, what judges the
    answers or the seed is another one.
    """
    if begun.model_digest != now.model_digest:
        raise BadRequest(
            f"the run began with the model '{begun.model}' ({begun.model_digest[:12]}), and '{now.model}' "
            f"holds other weights now ({now.model_digest[:12]}); bring the first ones back or begin a new run"
        )
    if begun.problems_digest not in ("", now.problems_digest):
        raise BadRequest(
            f"the task '{begun.task}' has other problems than when the run began"
            f"{f': {difference}' if difference else ''}; bring the old ones back or begin a new run"
        )
    if begun.task_digest != now.task_digest:
        same = "the problems are the same, but " if begun.problems_digest else ""
        raise BadRequest(
            f"the task '{begun.task}' changed since the run began: {same}the files that decide verdicts are "
            f"others now ({begun.task_digest[:12]}, now {now.task_digest[:12]}); bring the old ones back or "
            "begin a new run"
        )
    if begun.seed != now.seed:
        raise BadRequest(f"the run began with seed {begun.seed} and cannot go on with seed {now.seed}")
    pairs: list[tuple[str, object, object]] = [
        ("groschen", begun.groschen, now.groschen),
        ("commit", begun.commit, now.commit),
    ]
    pairs += [(name, begun.versions.get(name), version) for name, version in now.versions.items()]
    pairs += [("exactness", _exactness(begun), _exactness(now))]
    machine = msgspec.json.decode(msgspec.json.encode(now.machine))  # as the one that began was read
    pairs += [(f"machine.{key}", begun.machine.get(key), value) for key, value in machine.items()
              if key not in _VARIES]  # fmt: skip
    return tuple(
        f"{name} was {old} when the run began and is {new} now: the bits may differ from a run in one go"
        for name, old, new in pairs
        if old != new
    )


# Keys of the machine that change from hour to hour and never change a bit.
_VARIES = frozenset({"memory_bytes", "free_bytes", "roofs", "bf16_gflops", "read_gbps"})


def _exactness(manifest: Manifest) -> str:
    return "exact" if manifest.exact else f"not exact ({manifest.first_inexact})"
