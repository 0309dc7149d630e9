"""A padded decoding step gives the rows that were asked for, bit for bit, and touches nobody's blocks."""

import pytest
import torch
from tests.engine.test_engine_exactness import requests
from tests.tiny import VOCABULARY, tiny_engine, tiny_model

from groschen.engine.graphs import DecodeGraphs, padded, padded_blocks
from groschen.engine.runner import Runner
from groschen.model.kvcache import Rows


def test_padding_grows_by_powers_of_two_and_then_by_sixteen() -> None:
    assert [padded(count) for count in (1, 2, 3, 5, 9, 16, 17, 33, 64)] == [1, 2, 4, 8, 16, 16, 32, 48, 64]
    assert [padded_blocks(count, 100) for count in (1, 16, 17, 65, 99)] == [16, 16, 32, 100, 100]


@pytest.mark.parametrize("count", [1, 3, 5, 18])
@torch.no_grad()
def test_a_padded_step_equals_the_plain_one_and_leaves_other_blocks_alone(count: int) -> None:
    model, generator = tiny_model(), torch.Generator().manual_seed(count)
    cache = model.new_cache(2 * count + 1)
    tables = torch.cat(
        [torch.arange(2 * count, dtype=torch.int32).view(count, 2), torch.full((1, 2), 2 * count)]
    ).int()
    rows = Rows.at(
        torch.arange(count, dtype=torch.int32).repeat_interleave(17), torch.arange(17).repeat(count), tables
    )
    token_ids = torch.randint(0, VOCABULARY, (17 * count,), generator=generator)
    expected = model(token_ids, rows, cache)[16::17]
    before = [cache.layer(i).keys[: 2 * count].clone() for i in range(3)]
    graphs = DecodeGraphs(model, cache, spare_row=count, captures=False)
    for _ in range(2):  # the second run uses the buffers of the first
        found = graphs.run(token_ids[16::17].tolist(), list(range(count)), [16] * count, tables)
        assert torch.equal(found, expected)
    assert all(torch.equal(cache.layer(i).keys[: 2 * count], kept) for i, kept in enumerate(before))


def test_an_engine_that_pads_its_steps_gives_the_same_completions(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    expected = tiny_engine(model).generate(requests(7, samples=3))
    plain = Runner.__init__

    def with_graphs(self: Runner, model, num_blocks, max_rows) -> None:  # type: ignore[no-untyped-def]
        plain(self, model, num_blocks, max_rows)
        self._graphs = DecodeGraphs(model, self.cache, 2 * max_rows, captures=False)

    monkeypatch.setattr(Runner, "__init__", with_graphs)
    assert tiny_engine(model).generate(requests(7, samples=3)) == expected


@pytest.mark.gpu
def test_a_captured_engine_on_a_gpu_gives_the_trainers_bits() -> None:
    from tests.tiny import byte_tokenizer

    from groschen import machine
    from groschen.engine.engine import Engine, EngineConfig
    from groschen.model.score import score
    from groschen.model.transformer import Transformer

    device = torch.device("cuda", 0)
    machine.prepare(device)
    source = tiny_model()
    model = Transformer(source.config, torch.bfloat16, device)
    for name, tensor in model.tensors().items():
        tensor.copy_(source.tensors()[name])
    model.requires_grad_(False)
    engine = Engine(model, byte_tokenizer(), EngineConfig(cache_bytes=8_000_000))
    for group in engine.generate(requests(16, samples=4)):
        for completion in group:
            ids = torch.tensor([*completion.prompt_ids, *completion.token_ids], device=device)
            rows = Rows.of_sequences([len(ids)], device)
            hidden = model(ids, rows, model.new_cache(rows.tables.shape[1]))
            first = len(completion.prompt_ids)
            logprobs, _ = score(model, hidden[first - 1 : -1], ids[first:])
            assert logprobs.tolist() == list(completion.logprobs)
