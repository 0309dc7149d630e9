"""Damaged model folders and GGUF files: each loads and answers, or is refused in one sentence.

`python tests/fuzz_models.py --count 2500` tries as many, two of three as folders; `tests/model/test_fuzz.py`
tries a few. The base is the built-in model, whose small vocabulary makes 20 ms of a try.
"""

import atexit
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from damage import damage_bytes, damage_json, damage_kind, replace, strange_value
from fuzzing import MEMORY, main
from groschen.engine.engine import EngineConfig
from groschen.engine.open import open_engine
from groschen.model.checkpoint import BUILT_IN_FOLDER
from groschen.model.gguf_format import MetadataValue, TensorType, ValueKind, read_gguf
from groschen.model.gguf_writer import StoredTensor, write_container
from groschen.records import Request, SamplingParams

_TEXTS = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
_NUMBERS = (0, 1, 2, 7, 255, 2**31 - 1)
_HEADER_BYTES = 14_000  # of the GGUF file below: what comes before the tensors


def prepare_folder(random_: random.Random, place: Path) -> str:
    """The built-in model with one file damaged."""
    folder = place / "model"
    folder.mkdir()
    for file in BUILT_IN_FOLDER.iterdir():
        (folder / file.name).symlink_to(file)
    name = random_.choice([*_TEXTS, *_TEXTS, "model.safetensors", "chat_template.jinja"])
    kind = random_.random()
    if kind < 0.12:
        return damage_kind(random_, folder / name)
    if name.endswith(".json") and kind < 0.8:
        return damage_json(random_, folder / name)
    if name == "model.safetensors":
        return _damage_header(random_, folder / name)
    return damage_bytes(random_, folder / name)


def _damage_header(random_: random.Random, path: Path) -> str:
    """Of safetensors: the JSON of the header changed, or bytes of the file."""
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    if random_.random() < 0.4:
        return damage_bytes(random_, path, within=random_.choice([8, 8 + size, len(raw)]))
    header = path.with_name("header.json")
    header.write_bytes(raw[8 : 8 + size])
    change = damage_json(random_, header)
    new = header.read_bytes()
    header.unlink()
    replace(path, struct.pack("<Q", len(new)) + new + raw[8 + size :])
    return change


def prepare_gguf(random_: random.Random, place: Path) -> str:
    """The built-in model as a GGUF file with something damaged."""
    path = place / "model.gguf"
    path.symlink_to(gguf_base())
    kind = random_.random()
    if kind < 0.05:
        return damage_kind(random_, path)
    if kind < 0.4:
        return damage_bytes(random_, path, within=random_.choice([24, _HEADER_BYTES, None]))
    file = read_gguf(gguf_base())
    fields, tensors = dict(file.fields), list(file.tensors.values())
    stored = [_stored(file.read_bytes, info, info.name, info.shape, info.kind) for info in tensors]
    if kind < 0.8:
        change = _damage_fields(random_, fields)
    else:
        at = random_.randrange(len(stored))
        change, stored[at] = _damaged_tensor(random_, file.read_bytes, tensors[at])
    path.unlink()
    write_container(path, fields, stored)
    return f"{path.name}: {change}"


def _stored(
    read: Callable[[Any], Any], info: Any, name: str, shape: tuple[int, ...], kind: TensorType
) -> StoredTensor:
    return StoredTensor(name, shape, kind, lambda: [read(info)])


def _damage_fields(random_: random.Random, fields: dict[str, MetadataValue]) -> str:
    key = random_.choice(sorted(fields))
    old = fields.pop(key)
    kind = random_.choice(["gone", "renamed", "other kind", "other value", "other value", "array"])
    if kind == "gone":
        return f"{key} gone"
    if kind == "renamed":
        fields[key + random_.choice(["s", "_", ".x", "x" * 5000])] = old
        return f"{key} renamed"
    number = random_.choice([*_NUMBERS, -1, 2**32 - 1, 2**63])
    if kind == "array":
        count = random_.choice([0, 1, 4, 10_000])
        fields[key] = MetadataValue(ValueKind.ARRAY, [random_.choice(_NUMBERS)] * count, ValueKind.UINT32)
    elif isinstance(old.value, list) and kind == "other value":
        items = list(old.value)
        at = random_.randrange(max(len(items), 1))
        items[at : at + 1] = random_.choice([[], items[:1] * 2, items[-1:]])
        fields[key] = MetadataValue(ValueKind.ARRAY, items, old.item_kind)
    elif kind == "other kind":
        fields[key] = random_.choice(
            [
                MetadataValue(ValueKind.STRING, random_.choice(["", "x", "a" * 5000, "{% for", "\x00"])),
                MetadataValue(
                    ValueKind.FLOAT32, random_.choice([0.0, -1.0, 1e30, float("nan"), float("inf")])
                ),
                MetadataValue(ValueKind.BOOL, True),
                MetadataValue(ValueKind.UINT64, abs(number)),
                MetadataValue(ValueKind.INT32, random_.choice([-1, 0, 2**31 - 1])),
            ]
        )
    elif old.kind is ValueKind.UINT32:
        fields[key] = MetadataValue(ValueKind.UINT32, random_.choice([*_NUMBERS, 2**32 - 1]))
    else:
        name, value = strange_value(random_)
        fields[key] = MetadataValue(ValueKind.STRING, str(value)[:10_000])
        return f"{key} = {name}"
    return f"{key}: {kind}, {str(fields[key].value)[:60]}"


def _damaged_tensor(
    random_: random.Random, read: Callable[[Any], Any], info: Any
) -> tuple[str, StoredTensor]:
    kind = random_.choice(["name", "shape", "flat"])
    if kind == "name":
        name = random_.choice(["x", "blk.99999999.attn_q.weight", "blk.0.attn_q.weight", "n" * 5000, ""])
        return f"{info.name} named {name[:40]!r}", _stored(read, info, name, info.shape, info.kind)
    shape = info.shape[::-1] if kind == "shape" else (info.num_bytes // info.kind.block_bytes,)
    return f"{info.name} of shape {shape}", _stored(read, info, info.name, shape, info.kind)


_base: list[Path] = []


def gguf_base() -> Path:
    """The built-in model as a GGUF file, written once for a program."""
    if not _base:
        folder = tempfile.mkdtemp(prefix="fuzz-gguf-", dir=MEMORY)
        atexit.register(shutil.rmtree, folder)
        path = Path(folder) / "base.gguf"
        # In another process: one that has computed has threads, whose locks a forked one waits for for good.
        program = "import sys; from groschen.cli import run; sys.exit(run(sys.argv[1:]))"
        command = ["export", "penny", str(path), "--format", "gguf"]
        subprocess.run([sys.executable, "-c", program, *command], check=True, capture_output=True)
        _base.append(path)
    return _base[0]


def prepare(random_: random.Random, place: Path) -> str:
    """A folder or a GGUF file."""
    return prepare_gguf(random_, place) if random_.random() < 0.35 else prepare_folder(random_, place)


def judge(place: Path) -> None:
    """Load it, render a prompt, draw two tokens."""
    torch.set_num_threads(1)
    source = place / "model" if (place / "model").is_dir() else place / "model.gguf"
    opened = open_engine(str(source), config=EngineConfig(cache_bytes=2_000_000, max_rows=2))
    tokenizer = opened.text.tokenizer
    ids = opened.text.chat_template().encode(tokenizer, [{"role": "user", "content": "What is 6 * 7?"}])
    sampling = SamplingParams(max_tokens=2, seed=1, ignore_end=True)
    completion = opened.engine.generate([Request(prompt_ids=tuple(ids), sampling=sampling)])[0][0]
    assert len(completion.token_ids) == 2


if __name__ == "__main__":
    gguf_base()
    sys.exit(main(prepare, judge, __doc__))
