"""What a run is made from and on what, and whether that is still so when it goes on.

A run is known by the digests of what it read; model and task may have moved. Leaves out which differences
cost equal bits (manifest.py) and the settings (folder.py).
"""

import datetime as dt
import hashlib
import platform
import subprocess
from dataclasses import replace
from pathlib import Path

import torch

from groschen import __version__, machine
from groschen.config import digest
from groschen.errors import BadRequest
from groschen.model.checkpoint import Checkpoint
from groschen.model.config import ModelConfig
from groschen.model.exactness import probe
from groschen.model.operations import kit_for
from groschen.runs.folder import Run
from groschen.runs.manifest import Manifest, check_inputs
from groschen.tasks.identity import difference, fingerprints, read_fingerprints
from groschen.tasks.identity import digest_of as problems_digest
from groschen.tasks.task import Task
from groschen.train.measuring import measured_roofs
from groschen.train.recipe import GrpoRecipe

_DECISIVE = {".safetensors", ".json", ".jinja", ".txt", ".model"}
_OF_FILES = (".py", ".jsonl", ".gguf")


def describe(recipe: GrpoRecipe, task: Task, checkpoint: Checkpoint) -> Manifest:
    """What a run is made from, and on what."""
    device = machine.best_device()
    machine.prepare(device)
    exactness = probe(torch.bfloat16, device)
    return Manifest(
        groschen=__version__,
        commit=_commit(),
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        model=recipe.model,
        model_digest=digest_of(checkpoint.source),
        task=recipe.task,
        task_digest=task.digest,
        seed=recipe.seed,
        machine=_machine(checkpoint, device),
        exact=exactness.exact,
        first_inexact=exactness.first_inexact,
        versions={"torch": str(torch.__version__), "python": platform.python_version()},
        num_parameters=sum(torch.Size(shape).numel() for shape in checkpoint.names().values()),
        config_digest=digest(recipe),
        problems_digest=problems_digest(fingerprints(task.problems)),
        folder=str(Path.cwd()),
    )


def found_again(recipe: GrpoRecipe, begun: Manifest) -> GrpoRecipe:
    """The recipe of a run that goes on, with the paths of its model and task as they are from here.

    A relative path starts in the folder where the run began. Raises BadRequest if a file is not there.
    """
    return replace(
        recipe,
        task=_place("task", begun.task, recipe.task, begun.folder),
        model=_place("model", begun.model, recipe.model, begun.folder),
    )


def _place(setting: str, begun: str, now: str, folder: str) -> str:
    """Where a model or task lies from here. begun: as the run's first command named it, in `folder`."""
    was = Path(folder) / begun
    if now == begun and folder and was.exists():
        return str(was)
    if now.endswith(_OF_FILES) and not Path(now).exists():
        raise BadRequest(
            f"the {setting} {now} is neither here nor at {was}, where the run began; say where it lies now: "
            f"--set {setting}=PATH"
        )
    return now


def refuse_others(run: Run, now: Manifest, task: Task) -> tuple[str, ...]:
    """Sentences on what may change the bits of a run that goes on. Raises BadRequest if its model, a problem,
    its verifier or its seed is another one.
    """
    before = read_fingerprints(run.paths.folder)
    told = None if before is None else difference(before, fingerprints(task.problems))
    return check_inputs(run.manifest, now, told)


def _machine(checkpoint: Checkpoint, device: torch.device) -> dict[str, object]:
    found = machine.look()
    return {
        "cpu": found.cpu,
        "cores": found.cores,
        "memory_bytes": found.memory_bytes,
        "system": found.system,
        "device": str(device),
        "operations": kit_for(device, torch.bfloat16).operations.name,
        "product": kit_for(device, torch.bfloat16).product.name,
        "roofs": measured_roofs(ModelConfig.from_json(checkpoint.config), device),
    }


def digest_of(source: Path) -> str:
    """SHA-256, hex, over the files that decide what a model computes and reads; wherever they lie."""
    if source.is_file():
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    for path in sorted(p for p in source.iterdir() if p.suffix in _DECISIVE):
        with path.open("rb") as file:
            whole.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _commit() -> str | None:
    """The commit of the checkout that this package is imported from; None if it was installed."""
    folder = Path(__file__).parents[3]
    if not (folder / ".git").exists():
        return None
    try:
        said = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()
