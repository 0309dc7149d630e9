from pathlib import Path

import pytest

from groschen.errors import BadFile, BadRequest
from groschen.model.atomic import new_file, new_folder, write_synced


def fail_half_way_through_a_file(path: Path) -> None:
    with new_file(path) as file:
        file.write(b"half")
        raise ValueError("half way")


def fail_half_way_through_a_folder(path: Path) -> None:
    with new_folder(path) as folder:
        (folder / "x").write_bytes(b"half")
        raise ValueError("half way")


def test_a_file_that_failed_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="half way"):
        fail_half_way_through_a_file(tmp_path / "a.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_failed_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="half way"):
        fail_half_way_through_a_folder(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_complete_and_alone(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a" / "b") as folder:
        with write_synced(folder / "x") as file:
            file.write(b"whole")
        assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "b" / "x").read_bytes() == b"whole"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_what_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"old")
    with pytest.raises(BadRequest, match="exists already"), new_folder(tmp_path / "a"):
        pass
    with pytest.raises(BadRequest, match="exists already"), new_file(tmp_path / "a" / "x"):
        pass
    assert (tmp_path / "a" / "x").read_bytes() == b"old"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadFile, match="could not be written"), new_file(tmp_path / "file" / "a"):
        pass
