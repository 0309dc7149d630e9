"""What one call takes follows from the device, and what is asked for goes before it."""

import pytest
import torch
from tests.tiny import byte_tokenizer, tiny_model

from groschen.engine.engine import Engine, EngineConfig
from groschen.work_sizes import work_sizes


@pytest.mark.parametrize(("kind", "sizes"), [("cpu", (64, 512, 512)), ("cuda", (256, 8192, 1024))])
def test_each_kind_of_device_has_its_numbers(kind: str, sizes: tuple[int, int, int]) -> None:
    found = work_sizes(torch.device(kind))
    assert (found.max_rows, found.chunk_tokens, found.scored_at_once) == sizes


@pytest.mark.parametrize(
    ("config", "sizes"), [({}, (64, 512)), ({"max_rows": 3}, (3, 512)), ({"chunk_tokens": 7}, (64, 7))]
)
def test_an_engine_takes_what_it_is_told_and_else_what_suits_the_device(
    config: dict[str, int], sizes: tuple[int, int]
) -> None:
    engine = Engine(tiny_model(), byte_tokenizer(), EngineConfig(cache_bytes=4_000_000, **config))
    assert (engine.max_rows, engine.chunk_tokens) == sizes
