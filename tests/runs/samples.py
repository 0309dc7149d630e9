"""A manifest and a config of a run that never was."""

from dataclasses import dataclass, field

from groschen.config import digest
from groschen.runs.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Sampling:
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    task: str = "countdown"
    learning_rate: float = 1e-5
    budget: str | None = None
    sampling: Sampling = field(default_factory=Sampling)


def manifest_for(config: object) -> Manifest:
    return Manifest(
        groschen="0.1", commit=None, created="2026-11-22T13:00:00Z", model="m", model_digest="a" * 64,
        task="countdown", task_digest="b" * 64, seed=1, machine={"cpu": "zen", "memory_bytes": 1}, exact=True,
        first_inexact=None, versions={"torch": "2.12", "python": "3.11"}, num_parameters=3,
        config_digest=digest(config) if config is not None else "",
    )  # fmt: skip
