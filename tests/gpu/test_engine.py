"""The engine on a CUDA device: it starts and captures, and its log probabilities are the trainer's, bit for
bit.
"""

import pytest
import torch
from tests.engine.test_engine_exactness import flat, prompt, requests
from tests.fake_cuda import FakeCuda
from tests.gpu.conftest import HAS_CUDA
from tests.gpu.models import engine_on, gap_max, model_on

from groschen.engine.graphs import DecodeGraphs
from groschen.records import Request, SamplingParams


@pytest.mark.parametrize("family", ["mistral", "qwen3", "gemma2"])
def test_engine_and_trainer_have_the_same_bits(device: torch.device, family: str) -> None:
    """Windows, norms of queries and keys, caps of scores and logits; several chunks of a prompt."""
    model = model_on(device, family)
    asked = requests(5, samples=2, max_tokens=10)
    completions = flat(engine_on(model, chunk_tokens=37).generate(asked))
    assert gap_max(model, completions) == 0.0


def test_a_text_is_the_same_alone_in_threes_and_among_nineteen_others(device: torch.device) -> None:
    model, asked = model_on(device), requests(20, max_tokens=5)
    together = engine_on(model).generate(asked)
    for chosen in ([4], [0, 11, 19]):
        found = engine_on(model).generate([asked[i] for i in chosen])
        assert found == [together[i] for i in chosen]
    assert gap_max(model, flat(together)) == 0.0


def test_a_step_is_captured_once_for_each_shape_and_replayed(stand_in: FakeCuda) -> None:
    """A host read or an upload while a graph is captured raises in the stand-in, as CUDA does."""
    engine = engine_on(model_on(torch.device("cuda", 0)))
    for _ in range(2):
        for count in (1, 3):
            engine.generate(requests(count, max_tokens=6))
    assert [graph.num_replays for graph in stand_in.graphs] == [10, 10]
    assert len({id(graph.pool) for graph in stand_in.graphs}) == 1, (
        "graphs that never run together share memory"
    )
    assert stand_in.graphs[0].pool is not None


@pytest.mark.gpu
def test_smaller_graphs_take_no_memory_beside_the_largest(device: torch.device) -> None:
    """What a step passes through is gathered keys and values above all: tens of MB for 64 rows here."""
    if not HAS_CUDA:
        pytest.skip("the stand-in has no memory of its own")
    engine = engine_on(model_on(device))
    engine.generate(requests(64, max_tokens=20))
    torch.cuda.synchronize()
    before = torch.cuda.memory_reserved()
    for count in (1, 2, 3, 5, 9, 17, 33, 48):
        engine.generate(requests(count, max_tokens=20))
    torch.cuda.synchronize()
    assert torch.cuda.memory_reserved() - before < 64 << 20


def test_captured_steps_give_what_uncaptured_ones_do(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = model_on(device), requests(4, samples=2, max_tokens=9)
    captured = engine_on(model).generate(asked)
    plain = DecodeGraphs.__init__

    def without_capture(self, *args, captures) -> None:  # type: ignore[no-untyped-def]
        plain(self, *args, captures=False)

    monkeypatch.setattr(DecodeGraphs, "__init__", without_capture)
    assert engine_on(model).generate(asked) == captured


def test_a_replay_reads_weights_that_were_changed_after_the_capture(device: torch.device) -> None:
    model = model_on(device)
    engine = engine_on(model)
    request = Request(prompt_ids=prompt(20, 5), sampling=SamplingParams(max_tokens=8, seed=1))
    before = engine.generate([request])[0][0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.02)
    engine.weights_changed(policy_version=1)
    after = engine.generate([request])[0][0]
    assert after.logprobs != before.logprobs
    assert gap_max(model, [after]) == 0.0


def test_guessed_tokens_go_through_graphs_and_change_no_text(device: torch.device) -> None:
    model = model_on(device)
    repeated = tuple([*prompt(6, 1)] * 5)
    sampling = SamplingParams(max_tokens=24, temperature=0.3, seed=4)
    request = Request(prompt_ids=repeated, sampling=sampling)
    guessing = engine_on(model, speculate=4)
    runs: list[int] = []
    graphs = guessing.runner._graphs
    assert graphs is not None
    run = graphs.run

    def counted(token_ids, *given):  # type: ignore[no-untyped-def]
        runs.append(len(token_ids))
        return run(token_ids, *given)

    graphs.run = counted  # type: ignore[method-assign]
    found = guessing.generate([request])
    plain = engine_on(model).generate([request])
    assert [c.token_ids for c in flat(found)] == [c.token_ids for c in flat(plain)]
    assert [c.logprobs for c in flat(found)] == [c.logprobs for c in flat(plain)]
    assert guessing.num_drafted > 0
    assert max(runs) > 1, "a step with a draft did not go through a graph"


@pytest.mark.parametrize("changes", [
    {"temperature": 0.0, "top_logprobs": 3}, {"top_p": 0.8, "min_p": 0.05},
    {"top_k": 7, "logit_bias": ((5, 3.0),)},
    {"repetition_penalty": 1.2, "presence_penalty": 0.5, "prompt_logprobs": True},
], ids=str)  # fmt: skip
def test_every_way_to_sample_runs_beside_plain_rows_and_gives_what_it_gives_alone(
    device: torch.device, changes: dict[str, object]
) -> None:
    model = model_on(device)
    own = SamplingParams(**{"max_tokens": 3, "seed": 3, **changes})  # type: ignore[arg-type]
    special = Request(prompt_ids=prompt(30, 2), sampling=own)
    engine = engine_on(model)
    (beside, *_) = engine.generate([special, *requests(2, max_tokens=3)])
    (alone,) = engine_on(model).generate([special])
    assert beside == alone


def test_a_nan_in_a_block_of_nobody_reaches_no_row(device: torch.device) -> None:
    """Unused entries of a row's table name block 0; a row that broke may have left a NaN there."""
    model, asked = model_on(device), requests(3, max_tokens=6)
    expected = engine_on(model).generate(asked)
    engine = engine_on(model)
    for index in range(model.config.num_layers):
        for tensor in engine.runner.cache.layer(index):
            tensor.fill_(float("nan"))
    assert engine.generate(asked) == expected


def test_a_step_of_decoding_stays_within_its_budget_of_launches_and_reads(stand_in: FakeCuda) -> None:
    """Beside the replay, it is the draw. The host waits for its three results and for nothing else."""
    engine = engine_on(model_on(torch.device("cuda", 0), "qwen3"))
    for request in requests(8, max_tokens=30):
        engine.add(request)
    for _ in range(3):
        engine.step()
    stand_in.forget()
    engine.step()
    assert dict(stand_in.launches)["graph"] == 1
    assert sum(stand_in.reads.values()) <= 3, stand_in.reads
    assert sum(stand_in.launches.values()) <= 160, stand_in.launches
    assert stand_in.uploads <= 24


def test_an_engine_decodes_as_many_rows_as_suit_a_gpu(device: torch.device) -> None:
    engine = engine_on(model_on(device))
    assert (engine.max_rows, engine.chunk_tokens) == (256, 8192)
    assert engine_on(model_on(device), max_rows=9).max_rows == 9
