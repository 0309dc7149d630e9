import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groschen.errors import BadFile, GroschenError, Unsupported
from groschen.model.gguf_format import TENSOR_TYPES, MetadataValue, ValueKind, read_gguf
from groschen.model.gguf_writer import StoredTensor, array, boolean, integer, real, text, write_container

NUMBERS = np.arange(96, dtype=np.float32).reshape(3, 32)
FIELDS = {
    "general.architecture": text("llama"),
    "llama.block_count": integer(2),
    "a.real": real(0.1),
    "a.flag": boolean(True),
    "a.texts": array(ValueKind.STRING, ["", "é", "a b"]),
    "a.numbers": array(ValueKind.INT32, [1, -2, 3]),
    "a.flags": array(ValueKind.BOOL, [True, False]),
    "a.nothing": array(ValueKind.FLOAT32, []),
    "a.byte": MetadataValue(ValueKind.UINT8, 255),
    "a.long": MetadataValue(ValueKind.INT64, -(2**62)),
    "a.double": MetadataValue(ValueKind.FLOAT64, 0.1),
}


def stored(name: str, numbers: np.ndarray, kind: str) -> StoredTensor:
    raw = numbers.tobytes()
    return StoredTensor(name, numbers.shape, TENSOR_TYPES[kind], lambda: [np.frombuffer(raw, np.uint8)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "a.gguf"
    write_container(
        place, FIELDS, [stored("x", NUMBERS, "F32"), stored("y", NUMBERS[0, :5].astype("f2"), "F16")]
    )
    return place


def test_the_gguf_package_reads_every_field_and_tensor_that_we_wrote(path: Path) -> None:
    reader = gguf.GGUFReader(path)
    for key, field in FIELDS.items():
        expected = field.value
        if field.kind is ValueKind.FLOAT32:
            expected = float(np.float32(field.value))
        assert reader.get_field(key).contents() == expected
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert np.array_equal(tensors["x"].data, NUMBERS)
    assert np.array_equal(tensors["y"].data, NUMBERS[0, :5].astype("f2"))


def test_reading_returns_the_fields_with_their_kinds_and_the_bytes(path: Path) -> None:
    file = read_gguf(path)
    assert file.version == 3
    assert file.fields["a.numbers"] == FIELDS["a.numbers"]
    assert file.metadata["a.texts"] == ["", "é", "a b"]
    assert {key: field.kind for key, field in file.fields.items()} == {k: f.kind for k, f in FIELDS.items()}
    assert file.tensors["x"].shape == (3, 32)
    assert file.read_bytes(file.tensors["x"]).tobytes() == NUMBERS.tobytes()
    assert file.read_bytes(file.tensors["x"], 1, 2).tobytes() == NUMBERS[1].tobytes()
    assert file.read_bytes(file.tensors["y"], 2, 4).tobytes() == NUMBERS[0, 2:4].astype("f2").tobytes()


def test_files_of_the_gguf_package_are_read_in_versions_2_and_3(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "b.gguf", "qwen2")
    writer.add_array("a", ["x", "y"])
    writer.add_custom_alignment(64)
    writer.add_tensor("t", NUMBERS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for version in (3, 2):
        raw = bytearray((tmp_path / "b.gguf").read_bytes())
        raw[4:8] = struct.pack("<I", version)
        (tmp_path / "b.gguf").write_bytes(raw)
        file = read_gguf(tmp_path / "b.gguf")
        assert file.metadata["a"] == ["x", "y"]
        assert file.read_bytes(file.tensors["t"]).tobytes() == NUMBERS.tobytes()


def test_every_truncation_is_one_bad_file(path: Path) -> None:
    whole = path.read_bytes()
    end_of_data = read_gguf(path).tensors["y"].offset + 10  # what follows is padding
    for length in range(end_of_data):
        path.write_bytes(whole[:length])
        with pytest.raises(
            BadFile, match=r"truncated or corrupt|corrupt: it announces|not a GGUF file"
        ) as caught:
            read_gguf(path)
        assert str(path) in str(caught.value)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 2000), values=st.binary(min_size=1, max_size=8))
def test_a_damaged_file_never_gives_another_exception(path: Path, position: int, values: bytes) -> None:
    whole = path.read_bytes()
    position %= len(whole)
    path.write_bytes((whole[:position] + values + whole[position + len(values) :])[: len(whole)])
    message = str(path)
    try:
        file = read_gguf(path)
        for info in file.tensors.values():
            file.read_bytes(info)
    except GroschenError as error:
        message = str(error)
    finally:
        path.write_bytes(whole)
    assert str(path) in message


@pytest.mark.parametrize(
    ("position", "layout", "value", "what"),
    [
        (0, "<I", 0x47475546, "not a GGUF file"),
        (4, "<I", 0x03000000, "big-endian"),
        (4, "<I", 1, "version 1"),
        (8, "<Q", 2**63, "announces 9,223,372,036,854,775,808 tensors"),
        (16, "<Q", 2**40, "announces 1,099,511,627,776 metadata fields"),
        (24, "<Q", 2**62, "truncated or corrupt: a metadata key"),
    ],
)
def test_an_absurd_number_in_the_header_is_named(
    path: Path, position: int, layout: str, value: int, what: str
) -> None:
    raw = bytearray(path.read_bytes())
    struct.pack_into(layout, raw, position, value)
    path.write_bytes(raw)
    with pytest.raises(BadFile, match=what):
        read_gguf(path)


def tensor_entry(raw: bytes, name: str) -> int:
    """Position of the rank in the entry of the tensor `name`."""
    return raw.index(struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", 2)) + 8 + len(name)


@pytest.mark.parametrize(
    ("offset", "layout", "value", "error", "what"),
    [
        (0, "<I", 9, BadFile, "has 9 dimensions"),
        (4, "<Q", 2**60, BadFile, "truncated or corrupt: tensor 'x' ends at byte"),
        (4, "<Q", 0, BadFile, "impossible in blocks"),
        (20, "<I", 16, Unsupported, "'x' .* is stored as IQ2_XXS"),
        (20, "<I", 4711, Unsupported, "'x' .* is stored as type 4711"),
        (24, "<Q", 2**50, BadFile, "ends at byte"),
        (24, "<Q", 7, BadFile, "misaligned"),
    ],
)
def test_an_impossible_tensor_entry_is_named(
    path: Path, offset: int, layout: str, value: int, error: type[GroschenError], what: str
) -> None:
    raw = bytearray(path.read_bytes())
    struct.pack_into(layout, raw, tensor_entry(bytes(raw), "x") + offset, value)
    path.write_bytes(raw)
    with pytest.raises(error, match=what):
        read_gguf(path)


def test_tensors_that_overlap_are_named(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    place = raw.index(struct.pack("<Q", 1) + b"y" + struct.pack("<I", 1)) + 9 + 4 + 8 + 4
    struct.pack_into("<Q", raw, place, 32)
    path.write_bytes(raw)
    with pytest.raises(BadFile, match=r"tensor 'y' begins at byte .* inside another tensor"):
        read_gguf(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.gguf", "is missing"), (tmp_path, "is a folder")):
        with pytest.raises(BadFile, match=reason):
            read_gguf(path)


@pytest.mark.slow
@pytest.mark.real
def test_the_real_file_has_the_tensors_and_metadata_that_the_gguf_package_finds(real_gguf: Path) -> None:
    file, reader = read_gguf(real_gguf), gguf.GGUFReader(real_gguf)
    assert {tensor.name: tensor.data_offset for tensor in reader.tensors} == {
        info.name: info.offset for info in file.tensors.values()
    }
    assert len(file.metadata) == reader.get_field("GGUF.kv_count").contents()
    long_lists = {
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
        "tokenizer.ggml.token_type",
    }  # slow to read there
    for key, field in reader.fields.items():
        if key in long_lists:
            assert len(file.metadata[key]) == len(field.data)
            assert file.metadata[key][-1] == field.contents(-1)
        elif not key.startswith("GGUF."):
            assert file.metadata[key] == field.contents()
