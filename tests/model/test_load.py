"""What loading takes is counted before it is taken, the copies of the weights and the angles included."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_model

from groschen import machine
from groschen.errors import DoesNotFit
from groschen.model import load, transformer
from groschen.model.checkpoint import open_checkpoint
from groschen.model.config import ModelConfig
from groschen.model.folder_writer import write_folder
from groschen.model.kvcache import Rows
from groschen.model.operations import Kit
from groschen.model.portable import PortableOperations
from groschen.model.products import OneDnnProduct, PlainProduct, Product, WidenedProduct

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A model with weights enough to be seen."""
    model = tiny_model("qwen3", hidden_size=512, intermediate_size=2048)
    write_folder(tmp_path / "m", {**model.config.raw}, model.tensors(), {})
    return str(tmp_path / "m")


def needed(folder: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> int:
    """The least free memory with which a checkpoint is not refused."""
    checkpoint = open_checkpoint(folder)
    config = ModelConfig.from_json({**checkpoint.config, **changes})
    least, most = 0, 1 << 40
    while least < most:
        free = (least + most) // 2
        monkeypatch.setattr(machine, "free_memory_bytes", lambda device, free=free: free)
        try:
            load.check_memory(checkpoint, config, torch.bfloat16, CPU)
            most = free
        except DoesNotFit:
            least = free + 1
    return least


def test_a_widened_copy_counts_twice_what_a_copy_in_bf16_does(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_product(product: Product) -> int:
        kit = Kit(PortableOperations(torch.float32), product)
        monkeypatch.setattr(load, "kit_for", lambda device, dtype: kit)
        return needed(folder, monkeypatch)

    without = with_product(PlainProduct())
    packed = with_product(OneDnnProduct()) - without
    assert packed > 10_000_000
    assert with_product(WidenedProduct()) - without == 2 * packed
    assert with_product(PlainProduct(torch.float32)) - without == 2 * packed


def test_the_angles_of_a_long_context_count(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    short = needed(folder, monkeypatch, max_position_embeddings=512)
    long = needed(folder, monkeypatch, max_position_embeddings=1_000_512)
    assert long - short == 1_000_000 * 32 * 4  # positions, cosines and sines of half a head each, float32


def test_a_loaded_model_has_its_angles(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load.load_model(folder)
    monkeypatch.delattr(transformer, "tables")
    rows = Rows.of_sequences([3], CPU)
    with torch.no_grad():
        assert model(torch.tensor([1, 2, 3]), rows, model.new_cache(1)).isfinite().all()
