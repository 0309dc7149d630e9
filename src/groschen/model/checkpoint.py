"""Find a checkpoint by what the user typed, and copy its weights into a model.

Leaves out the formats (`safetensors_folder.py`, `gguf_checkpoint.py`), the tokenizer (`text/load.py`) and the
model. Never reads a pickle, and asks the hub for weights in safetensors only.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from torch import Tensor

from groschen.commands import command
from groschen.errors import BadFile
from groschen.files import open_regular
from groschen.model.file_marks import refuse_changed_model
from groschen.model.gguf_checkpoint import GgufCheckpoint
from groschen.model.gguf_format import MAGIC
from groschen.model.safetensors_folder import SafetensorsFolder

BUILT_IN = "penny"  # the model in the package
BUILT_IN_FOLDER = Path(__file__).parents[1] / "penny"
_RUN_MARK = "manifest.json"  # what a run folder has and a model folder has not
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WANTED_FROM_HUB = ["*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt"]
_NOT_WANTED_FROM_HUB = ["*/*", "consolidated*"]  # the same weights again for other programs
_IGNORABLE = re.compile(
    r"rotary_emb\.inv_freq$|(self_attn|attn)\.(masked_)?bias$"
)  # buffers that old releases stored
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_NUMBERS_AT_ONCE = 1 << 22  # 16 MiB in float32: what is in memory besides the model
_MOST_SHOWN = 5


class Checkpoint(Protocol):
    """Weights that can be read one by one, with the config.json that goes with them."""

    config: dict[str, Any]
    source: Path

    def names(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each tensor by its Hugging Face name."""
        ...

    def read(self, name: str) -> Tensor:
        """The whole tensor `name`, float."""
        ...

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` (excluded) of the tensor `name`, float."""
        ...


def open_checkpoint(source: str) -> Checkpoint:
    """The checkpoint that `source` means: `penny`, a Hugging Face folder, a .gguf file, a hub id like
    org/name, or the folder of a run, whose best checkpoint is taken.

    A path that exists wins over a hub id. HF_HUB_OFFLINE, HF_HOME and HF_TOKEN are honoured by
    huggingface_hub.
    A checkpoint of a run must be as it was written. Raises BadFile if there is no such thing or it is
    damaged, Unsupported if it isn't honoured.
    """
    path = _as_path(source)
    if source == BUILT_IN and not path.exists():
        path = BUILT_IN_FOLDER
    if (path / _RUN_MARK).is_file():
        path = _best_of_run(path)
    if path.is_dir():
        refuse_changed_model(path)
        return SafetensorsFolder(path)
    if path.exists():
        return _open_file(path)
    if not _HUB_ID.fullmatch(source) or path.suffix in (".gguf", ".safetensors") or path.parent.is_dir():
        raise BadFile(
            f"there is no model at {source}{_nearest(path)}; give a folder, a .gguf file or a hub id like "
            "org/name"
        )
    return SafetensorsFolder(_download(source))


def _as_path(source: str) -> Path:
    """What was typed, as a path that the system takes. Raises BadFile."""
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, the home of nobody
        raise BadFile(f"there is no model at {source[:100]!r}: it is no path ({error!s:.100})") from error
    return path


def _best_of_run(run: Path) -> Path:
    """The checkpoint that `best` names, else the newest."""
    if (run / "best").is_dir():
        return (run / "best").resolve()
    found = sorted((run / "checkpoints").glob("step-??????"))
    if not found:
        raise BadFile(
            f"the run in {run} has no checkpoint yet; let it go on: {command('train', '--resume', run)}"
        )
    return found[-1]


def load_weights(model_tensors: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    """Copy every tensor of `checkpoint` into the one of the same name, cast, a few rows at a time.

    model_tensors: every parameter of the model by its Hugging Face name; written in place. Besides them, at
    most 16 MiB are in use, and what one rotary projection takes in a GGUF file.
    Raises BadFile if a name is missing or left over, a shape differs, or a number is not finite.
    """
    check_names({name: tuple(tensor.shape) for name, tensor in model_tensors.items()}, checkpoint)
    copy_weights(model_tensors, checkpoint)


def copy_weights(model_tensors: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    """`load_weights` for tensors whose names and shapes have been checked, which need not be all."""
    shapes = checkpoint.names()
    with torch.no_grad():
        for name, tensor in model_tensors.items():
            for start, stop in _row_ranges(shapes[name]):
                part = checkpoint.read_rows(name, start, stop)
                destination = tensor[start:stop]
                destination.copy_(part)
                if not _is_finite(destination):
                    raise _not_finite(name, part, tensor.dtype, checkpoint.source)


def _open_file(path: Path) -> Checkpoint:
    with open_regular(path) as file:
        try:
            magic = file.read(len(MAGIC))
        except OSError as error:
            raise BadFile(f"{path} cannot be read ({error.strerror or error}); check the disk") from error
    if path.suffix == ".safetensors":
        raise BadFile(f"{path} is one weight file; give the folder that holds it with its config.json")
    if magic != MAGIC and path.suffix != ".gguf":
        raise BadFile(
            f"{path} is no model: it begins with {magic!r}; give a folder, a .gguf file or a hub id like "
            "org/name"
        )
    return GgufCheckpoint(path)


def _nearest(path: Path) -> str:
    """A hint at what the user may have meant: the nearest name in the nearest folder that exists."""
    while not path.parent.is_dir():
        path = path.parent
    near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=1)
    return f" (did you mean {path.parent / near[0]}?)" if near else ""


def _download(name: str) -> Path:
    try:
        folder = snapshot_download(
            name, allow_patterns=_WANTED_FROM_HUB, ignore_patterns=_NOT_WANTED_FROM_HUB
        )
    except GatedRepoError as error:
        raise BadFile(
            f"{name} asks for its licence to be accepted; do so on the hub and set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise BadFile(
            f"there is no folder {name} here and no model {name} on the hub; check the name, or HF_TOKEN"
        ) from error
    except LocalEntryNotFoundError as error:
        raise BadFile(
            f"{name} is neither a folder here nor in the hub's cache, and the hub cannot be asked (offline, "
            "or HF_HUB_OFFLINE is set); connect once, or give a folder or .gguf file"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadFile(
            f"{name} could not be fetched from the hub ({reason}); try again, or give a folder"
        ) from error
    return Path(folder)


def check_names(expected: Mapping[str, tuple[int, ...]], checkpoint: Checkpoint) -> None:
    """Raises BadFile if the checkpoint lacks a tensor, has one left over or of another shape.

    expected: the shape of every tensor of the model by its Hugging Face name.
    """
    shapes = checkpoint.names()
    missing = [name for name in expected if name not in shapes]
    extra = [name for name in shapes if name not in expected and not _IGNORABLE.search(name)]
    if _HEAD in extra and _EMBEDDING in expected and _EMBEDDING in shapes:
        extra.remove(_HEAD)
        _check_tied_head(checkpoint, shapes)
    wrong = [
        f"{name} {shapes[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    faults = [
        f"{what} {_shown(names)}"
        for what, names in (
            ("lacks", missing),
            ("has, unexpected,", extra),
            ("has, of the wrong shape,", wrong),
        )
        if names
    ]
    if faults:
        raise BadFile(
            f"{checkpoint.source} does not fit its config: it {'; it '.join(faults)}; get all files from one "
            "place"
        )


def _check_tied_head(checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Some folders store the head though it is the embedding; another head must not be dropped in silence."""
    same = shapes[_HEAD] == shapes[_EMBEDDING] and all(
        torch.equal(checkpoint.read_rows(_HEAD, start, stop), checkpoint.read_rows(_EMBEDDING, start, stop))
        for start, stop in _row_ranges(shapes[_HEAD])
    )
    if not same:
        raise BadFile(
            f"{checkpoint.source} has a '{_HEAD}' that differs from the embedding, but its config ties them; "
            "set tie_word_embeddings to false in config.json if the head is meant"
        )


def _row_ranges(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    step = max(1, _NUMBERS_AT_ONCE // max(1, torch.Size(shape[1:]).numel()))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def _is_finite(numbers: Tensor) -> bool:
    least, most = torch.aminmax(numbers)  # one pass without a copy; a NaN comes through
    return bool(torch.isfinite(least) & torch.isfinite(most))


def _not_finite(name: str, part: Tensor, dtype: torch.dtype, source: Path) -> BadFile:
    if _is_finite(part):
        kind = str(dtype).removeprefix("torch.")
        return BadFile(
            f"tensor '{name}' of {source} has numbers too large for {kind}; load the model in float32 or "
            "bfloat16"
        )
    return BadFile(
        f"tensor '{name}' of {source} has NaN or infinite weights; the file is damaged, get another copy"
    )


def _shown(names: list[str]) -> str:
    rest = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(name[:100] for name in names[:_MOST_SHOWN]) + rest
