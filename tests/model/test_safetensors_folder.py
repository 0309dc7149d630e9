import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from groschen.errors import BadFile, GroschenError, Unsupported
from groschen.model.safetensors_folder import SafetensorsFolder

TENSORS = {
    "a.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "b.weight": torch.arange(6, dtype=torch.bfloat16).reshape(3, 2),
    "c.weight": torch.tensor([1.5, -2.0], dtype=torch.float16),
}


def make_folder(folder: Path, tensors: dict[str, torch.Tensor] = TENSORS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


def rewrite_header(path: Path, change: Any) -> None:
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def test_every_tensor_equals_what_the_safetensors_library_wrote(tmp_path: Path) -> None:
    make_folder(tmp_path)
    folder = SafetensorsFolder(tmp_path)
    assert dict(folder.names()) == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
    for name, tensor in TENSORS.items():
        assert folder.read(name).dtype == tensor.dtype
        assert torch.equal(folder.read(name), tensor)
        assert torch.equal(folder.read_rows(name, 1, 2), tensor[1:2])
        assert folder.read_rows(name, 1, 1).shape == tensor[1:1].shape
    assert folder.config == {"model_type": "llama"}


def test_every_truncation_is_one_bad_file(tmp_path: Path) -> None:
    path = make_folder(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(BadFile, match="get the file again"):
            SafetensorsFolder(tmp_path)
    path.write_bytes(whole + b"x")
    with pytest.raises(BadFile, match="corrupt"):
        SafetensorsFolder(tmp_path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 400), value=st.integers(0, 255))
def test_a_damaged_header_never_gives_another_exception(tmp_path: Path, position: int, value: int) -> None:
    path = make_folder(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[position % len(raw)] = value
    path.write_bytes(bytes(raw))
    message = str(tmp_path)
    try:
        folder = SafetensorsFolder(tmp_path)
        for name in folder.names():
            folder.read(name)
    except GroschenError as error:
        message = str(error)
    assert str(tmp_path) in message


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda header: header["a.weight"].update(data_offsets=[10**15, 10**15 + 48]), "begins at"),
        (lambda header: header["a.weight"].update(data_offsets=[48, 0]), "bytes for"),
        (lambda header: header["a.weight"].update(shape=[2**62, 2**62]), "bytes for"),
        (lambda header: header["a.weight"].update(shape=[-3, -4]), "header entry"),
        (lambda header: header["a.weight"].update(shape=None), "header entry"),
        (lambda header: header.update({"a.weight": 3}), "header entry"),
        (lambda header: header.pop("b.weight"), "corrupt"),
    ],
)
def test_an_impossible_header_entry_is_named(tmp_path: Path, change: Any, what: str) -> None:
    path = make_folder(tmp_path)
    rewrite_header(path, change)
    with pytest.raises(BadFile, match=what):
        SafetensorsFolder(tmp_path)


def test_a_type_that_is_no_plain_float_is_refused_by_name(tmp_path: Path) -> None:
    path = make_folder(tmp_path)
    rewrite_header(path, lambda header: header["b.weight"].update(dtype="I16"))
    with pytest.raises(Unsupported, match=r"'b.weight'.* I16"):
        SafetensorsFolder(tmp_path).read("b.weight")
    rewrite_header(path, lambda header: header["b.weight"].update(dtype="F6_E2M3"))
    with pytest.raises(Unsupported, match=r"'b.weight'.* F6_E2M3"):
        SafetensorsFolder(tmp_path)


def shard(folder: Path) -> None:
    make_folder(folder)
    (folder / "model.safetensors").unlink()
    names = list(TENSORS)
    save_file({name: TENSORS[name] for name in names[:2]}, folder / "model-00001-of-00002.safetensors")
    save_file({name: TENSORS[name] for name in names[2:]}, folder / "model-00002-of-00002.safetensors")
    places = {name: f"model-0000{1 if name in names[:2] else 2}-of-00002.safetensors" for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    shard(tmp_path)
    folder = SafetensorsFolder(tmp_path)
    assert all(torch.equal(folder.read(name), tensor) for name, tensor in TENSORS.items())


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    shard(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BadFile, match=r"lacks 1 of 2 weight files, model-00002-of-00002.safetensors"):
        SafetensorsFolder(tmp_path)


def test_a_shard_without_a_promised_tensor_is_named(tmp_path: Path) -> None:
    shard(tmp_path)
    save_file({"other": torch.ones(2)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(BadFile, match=r"lacks the tensor 'c.weight'"):
        SafetensorsFolder(tmp_path)


def test_a_tensor_in_two_shards_is_named(tmp_path: Path) -> None:
    shard(tmp_path)
    save_file(TENSORS, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(BadFile, match=r"is in .* and in another shard"):
        SafetensorsFolder(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        "{",
        '{"weight_map": {}}',
        '{"weight_map": 3}',
        "\ufffd",
        pytest.param('{"a":' * 100_000, id="nested"),
    ],
)
def test_an_unreadable_index_is_named(tmp_path: Path, content: str) -> None:
    shard(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(BadFile, match=r"index\.json"):
        SafetensorsFolder(tmp_path)


def test_an_index_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    shard(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../../secret.safetensors"}}'
    )
    with pytest.raises(BadFile, match="expected the name of a file beside it"):
        SafetensorsFolder(tmp_path)


def test_a_folder_without_config_or_with_pickles_only_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"config\.json is missing"):
        SafetensorsFolder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadFile, match=r"neither model\.safetensors nor"):
        SafetensorsFolder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BadFile, match="is a pickle, which is never read"):
        SafetensorsFolder(tmp_path)
