"""Which token is drawn and what is told of it, against the oracle, and alone against among many."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from groschen.engine import sampling
from groschen.errors import GroschenError
from groschen.model.operations import Operations
from groschen.model.portable import PortableOperations
from groschen.records import SamplingParams
from sampling_oracle import (
    FEATURES,
    LOGPROB_ERROR,
    VOCABULARY,
    Row,
    logits_of,
    number_of,
    operations_named,
    oracle,
)


@pytest.fixture(params=["compiled", "portable"])
def operations(request: pytest.FixtureRequest) -> Operations:
    return operations_named(request.param)


@pytest.mark.parametrize("feature", FEATURES)
def test_tokens_logprobs_and_entropies_are_those_of_the_oracle(operations: Operations, feature: str) -> None:
    logits = logits_of(24)
    rows = [Row(FEATURES[feature], seed=9, sample=i) for i in range(24)]
    before = logits.clone()
    drawn = sampling.draw(operations, logits, rows)
    assert torch.equal(logits, before), "the logits belong to the caller"
    for i, row in enumerate(rows):
        right = oracle(logits[i], row)
        token = drawn.token_ids[i]
        if row.sampling.temperature == 0:
            assert token == int(right.logits.argmax())
        else:
            border = right.logprobs.exp().cumsum(0)
            left = float(border[token - 1]) if token else 0.0
            assert left - 1e-6 <= number_of(row) <= float(border[token]) + 1e-6
        assert drawn.logprobs[i] == pytest.approx(
            float(right.logprobs[token]), abs=LOGPROB_ERROR[operations.name]
        )
        some = right.logprobs[right.logprobs.isfinite()]
        assert drawn.entropies[i] == pytest.approx(-float((some.exp() * some).sum()), abs=1e-4)


@pytest.mark.parametrize("feature", FEATURES)
def test_alternatives_are_the_most_probable_tokens_of_the_same_distribution(
    operations: Operations, feature: str
) -> None:
    logits = logits_of(6, seed=1)
    counts = [1, 20, 5, 0, 2, 20]
    rows = [Row(replace(FEATURES[feature], top_logprobs=count), sample=i) for i, count in enumerate(counts)]
    drawn = sampling.draw(operations, logits, rows)
    for i, (row, count) in enumerate(zip(rows, counts, strict=True)):
        found = drawn.alternatives[i]
        if not count:
            assert found is None
            continue
        assert found is not None
        right = oracle(logits[i], row).logprobs
        numbers = right.tolist()
        order = sorted(range(VOCABULARY), key=lambda token: (-numbers[token], token))
        expected = [token for token in order[:count] if math.isfinite(right[token])]
        assert list(found.token_ids) == expected
        assert found.logprobs == pytest.approx(right[expected].tolist(), abs=LOGPROB_ERROR[operations.name])
        if drawn.token_ids[i] in found.token_ids:
            assert found.logprobs[found.token_ids.index(drawn.token_ids[i])] == drawn.logprobs[i]


def test_the_share_of_samples_that_draw_a_token_is_its_probability(operations: Operations) -> None:
    params = SamplingParams(temperature=1.3, top_p=0.9)
    logits = logits_of(1, num_words=60, rounded=False)
    count = 4000
    rows = [Row(params, seed=1, sample=i, prompt_ids=(), token_ids=()) for i in range(count)]
    drawn = torch.tensor(sampling.draw(operations, logits.expand(count, -1).contiguous(), rows).token_ids)
    expected = oracle(logits[0], rows[0]).logprobs.exp() * count
    seen = drawn.bincount(minlength=60).double()
    assert (seen[expected == 0] == 0).all()
    inside = expected > 0
    chi_square, freedom = (
        float(((seen - expected)[inside] ** 2 / expected[inside]).sum()),
        int(inside.sum()) - 1,
    )
    assert abs(chi_square - freedom) < 5 * math.sqrt(2 * freedom)  # luck: less than once in ten thousand


def test_a_cut_that_removes_nothing_changes_no_token(operations: Operations) -> None:
    logits = logits_of(40)
    plain = sampling.draw(operations, logits, [Row(SamplingParams(), sample=i) for i in range(40)])
    for params in (
        SamplingParams(top_k=VOCABULARY),
        SamplingParams(top_k=10**9),
        SamplingParams(min_p=1e-30),
    ):
        cut_ = sampling.draw(operations, logits, [Row(params, sample=i) for i in range(40)])
        assert cut_.token_ids == plain.token_ids
        assert cut_.logprobs == pytest.approx(plain.logprobs, abs=LOGPROB_ERROR[operations.name])


def same_bits(drawn: sampling.Drawn, i: int, alone: sampling.Drawn, *, entropy: bool) -> bool:
    return (
        (drawn.token_ids[i], drawn.logprobs[i], drawn.alternatives[i])
        == (alone.token_ids[0], alone.logprobs[0], alone.alternatives[0])
    ) and (not entropy or drawn.entropies[i] == alone.entropies[0])  # fmt: skip


@pytest.mark.parametrize("top_logprobs", [0, 7])
def test_a_row_has_the_same_bits_alone_among_63_others_and_in_another_order(
    operations: Operations, top_logprobs: int
) -> None:
    logits = logits_of(64, seed=3)
    settings = [replace(params, top_logprobs=top_logprobs) for params in FEATURES.values()]
    rows = [
        Row(settings[i % len(settings)], seed=i, token_ids=[i, i + 1, i], prompt_ids=range(i))
        for i in range(64)
    ]
    together = sampling.draw(operations, logits, rows)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = sampling.draw(operations, logits[order], [rows[i] for i in order])
    for place, i in enumerate(order):
        alone = sampling.draw(operations, logits[i : i + 1], [rows[i]])
        assert same_bits(together, i, alone, entropy=operations.name == "compiled"), rows[i].sampling
        assert same_bits(shuffled, place, alone, entropy=operations.name == "compiled"), rows[i].sampling


@pytest.mark.parametrize("feature", FEATURES)
def test_rows_of_one_feature_have_the_same_bits_alone_and_together(
    operations: Operations, feature: str
) -> None:
    logits, rows = logits_of(9, seed=4), [Row(FEATURES[feature], seed=i) for i in range(9)]
    together = sampling.draw(operations, logits, rows)
    for i, row in enumerate(rows):
        alone = sampling.draw(operations, logits[i : i + 1], [row])
        assert same_bits(together, i, alone, entropy=operations.name == "compiled")


def test_a_vocabulary_of_152_k_words_goes_through_every_window(operations: Operations) -> None:
    logits = logits_of(4, num_words=151_936, seed=5)
    logits[0] *= 4  # nucleus of a few
    logits[3] = 0.25  # all equal: nothing but the whole row can tell which are first
    rows = [Row(SamplingParams(top_p=0.9, top_logprobs=3), seed=i) for i in range(4)]
    drawn = sampling.draw(operations, logits, rows)
    for i, row in enumerate(rows):
        right = oracle(logits[i], row).logprobs if i == 0 else None
        assert same_bits(drawn, i, sampling.draw(operations, logits[i : i + 1], [row]), entropy=False)
        if right is not None:
            error = LOGPROB_ERROR[operations.name]
            assert drawn.logprobs[i] == pytest.approx(float(right[drawn.token_ids[i]]), abs=error)
    found = drawn.alternatives[3]
    assert found is not None and found.token_ids == (0, 1, 2)
    assert drawn.logprobs[3] == pytest.approx(-math.log(math.ceil(0.9 * 151_936)), abs=1e-5)


def test_the_number_of_a_token_is_that_of_its_seed_sample_and_place(operations: Operations) -> None:
    logits = torch.zeros(1, 1000)
    for row in (Row(SamplingParams(), seed=5), Row(SamplingParams(), seed=-5, sample=3, token_ids=range(77))):
        drawn = sampling.draw(operations, logits, [row])
        assert drawn.token_ids == [int(number_of(row) * 1000)]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("feature", FEATURES)
def test_a_row_that_is_not_a_number_is_one_clear_error(
    operations: Operations, feature: str, bad: float
) -> None:
    logits = logits_of(3)
    logits[1, 20] = bad
    rows = [
        Row(SamplingParams()),
        Row(replace(FEATURES[feature], top_logprobs=2)),
        Row(SamplingParams(top_k=5)),
    ]
    launched = sampling.launch(operations, logits, rows)
    assert [token < 0 for token in launched.tokens.tolist()] == [False, True, False]
    with pytest.raises(GroschenError, match=r"not a number \(row 1 of 3\).*load the checkpoint anew"):
        sampling.read(launched)


def test_banned_tokens_are_neither_drawn_nor_told(operations: Operations) -> None:
    logits = torch.full((1, 300), -math.inf)
    logits[0, [5, 7]] = torch.tensor([1.0, 1.0])
    for params in (
        SamplingParams(),
        SamplingParams(top_k=10),
        SamplingParams(temperature=0, presence_penalty=1.0),
    ):
        drawn = sampling.draw(
            operations, logits, [Row(replace(params, top_logprobs=4), prompt_ids=(), token_ids=[9])]
        )
        assert drawn.token_ids[0] in (5, 7)
        assert drawn.alternatives[0] is not None and drawn.alternatives[0].token_ids == (5, 7)
        assert drawn.alternatives[0].logprobs == pytest.approx([-math.log(2)] * 2)


def test_rows_with_only_a_temperature_are_one_call_on_the_logits_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    operations, calls = PortableOperations(torch.float32), []
    original = PortableOperations.categorical

    def counted(self: PortableOperations, logits: Tensor, *rest: Tensor | None) -> object:
        calls.append(logits.data_ptr())
        return original(self, logits, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(PortableOperations, "categorical", counted)
    logits = logits_of(5)
    sampling.draw(operations, logits, [Row(SamplingParams(temperature=t)) for t in (0, 0.5, 1, 1.5, 2)])
    assert calls == [logits.data_ptr()]


@pytest.mark.gpu
def test_rows_with_only_a_temperature_wait_for_no_gpu() -> None:
    operations, logits = PortableOperations(torch.float32), logits_of(5).cuda()
    rows = [Row(SamplingParams(temperature=t)) for t in (0, 0.5, 1, 1.5, 2)]
    sampling.draw(operations, logits, rows)
    torch.cuda.set_sync_debug_mode("error")
    try:
        sampling.launch(operations, logits, rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_least_temperature_still_draws(operations: Operations) -> None:
    logits = logits_of(2, rounded=False)
    drawn = sampling.draw(operations, logits, [Row(SamplingParams(temperature=1e-4))] * 2)
    assert drawn.token_ids == logits.argmax(-1).tolist()
    assert drawn.logprobs == pytest.approx([0.0, 0.0], abs=1e-6)
