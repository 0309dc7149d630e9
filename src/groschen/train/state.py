"""What a checkpoint of a run holds: a Hugging Face folder of the policy, and everything that training goes
on from.

`trainer.safetensors` has float32 masters and both moments, `trainer.json` the rest. Leaves out where
checkpoints lie and how they are kept whole (runs/checkpoints.py).
"""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from groschen.files import decode, read_bytes
from groschen.model.atomic import write_synced
from groschen.model.folder_writer import write_folder, write_safetensors
from groschen.model.safetensors_folder import SafetensorsFile
from groschen.model.transformer import Transformer
from groschen.text.bundle import Text
from groschen.train.alarms import Held
from groschen.train.curriculum import CurriculumState
from groschen.train.optimizer import Optimizer

TENSORS, STATE = "trainer.safetensors", "trainer.json"


@dataclass(slots=True, kw_only=True)
class TrainerState:
    """Everything of a run between two steps that is not a tensor."""

    step: int = 0  # steps done
    num_updates: int = 0
    num_lines: int = 0  # of metrics.jsonl; what was written after is written again, with the same bits
    curriculum: CurriculumState = field(default_factory=CurriculumState)
    held: list[Held] = field(default_factory=list)  # evaluations on dev, the base's as step 0
    steps_without_signal: int = 0  # in a row, up to the last one: all that an alarm remembers
    is_solved: bool = False  # nearly all completions of the last step passed


def write_state(
    folder: Path,
    model: Transformer,
    text: Text,
    config: dict[str, object],
    optimizer: Optimizer,
    state: TrainerState,
) -> None:
    """Fill an empty folder. Raises BadFile if the disk refuses."""
    write_folder(folder, config, model.tensors(), text.files())
    write_safetensors(folder / TENSORS, optimizer.tensors())
    with write_synced(folder / STATE) as file:
        file.write(msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n")


def read_state(folder: Path, optimizer: Optimizer) -> TrainerState:
    """Take up a checkpoint: masters, moments and parameters into `optimizer`, the rest is returned.

    Raises BadFile if the checkpoint does not fit the model or has no trainer state.
    """
    path, remedy = folder / STATE, "the checkpoint cannot be gone on from; use an older one"
    state = decode(read_bytes(path, remedy=remedy), TrainerState, path, remedy)
    optimizer.load(SafetensorsFile(folder / TENSORS), state.num_updates)
    return state
