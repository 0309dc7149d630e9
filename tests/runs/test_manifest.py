from dataclasses import replace
from pathlib import Path

import pytest
from tests.runs.samples import manifest_for

from groschen import machine
from groschen.errors import BadFile, BadRequest
from groschen.runs.manifest import check_inputs, read_manifest, write_manifest

MANIFEST = manifest_for(None)


def test_a_manifest_reads_back_equal(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST


def test_the_same_machine_is_no_other_one_after_it_was_read(tmp_path: Path) -> None:
    described = replace(MANIFEST, machine={"cpu": machine.look().cpu, "cores": 2})
    write_manifest(tmp_path, described)
    assert check_inputs(read_manifest(tmp_path), described) == ()


def test_a_folder_without_a_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="is not a run folder"):
        read_manifest(tmp_path)
    with pytest.raises(BadFile, match="is not a run folder"):
        read_manifest(tmp_path / "absent")


@pytest.mark.parametrize("content", [b"", b"{", b'{"seed": 1}', b"[]"])
def test_a_manifest_that_is_not_whole_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BadFile, match=r"manifest\.json is not what it should be"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_digest": "e" * 64}, "'m' holds other weights now .eeeeeeeeeeee"),
        ({"task_digest": "e" * 64}, "the task 'countdown' changed since the run began"),
        ({"seed": 2}, "seed 1 and cannot go on with seed 2"),
    ],
)
def test_another_model_task_or_seed_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        check_inputs(MANIFEST, replace(MANIFEST, **change))


def test_what_may_change_bits_is_told_and_nothing_else() -> None:
    assert check_inputs(MANIFEST, MANIFEST) == ()
    now = replace(
        MANIFEST,
        created="later",
        versions={"torch": "2.13", "python": "3.11"},
        machine={"cpu": "another", "memory_bytes": 2},
        exact=False,
        first_inexact="product",
    )
    torch, exactness, cpu = check_inputs(MANIFEST, now)
    assert torch.startswith("torch was 2.12 when the run began and is 2.13 now")
    assert exactness.startswith("exactness was exact when the run began and is not exact (product) now")
    assert cpu.startswith("machine.cpu was zen when the run began and is another now")
