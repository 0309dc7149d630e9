"""Which tokens stay: against the warpers of transformers, and where logits are equal."""

import math

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process

from groschen.engine import candidates
from groschen.model.operations import Operations
from groschen.records import SamplingParams
from sampling_oracle import VOCABULARY, logits_of, operations_named


@pytest.fixture(params=["compiled", "portable"])
def operations(request: pytest.FixtureRequest) -> Operations:
    return operations_named(request.param)


def kept_by_us(operations: Operations, logits: Tensor, params: SamplingParams) -> list[set[int]]:
    inverses = torch.full((len(logits),), 1 / params.temperature)
    kept: dict[int, set[int]] = {}
    for part in candidates.candidates(operations, logits, inverses, [params] * len(logits)):
        for row, values, token_ids in zip(part.rows.tolist(), part.logits, part.token_ids, strict=True):
            assert row not in kept
            kept[row] = set(token_ids[values > -math.inf].tolist())
    return [kept[row] for row in range(len(logits))]


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(top_k=40),
        SamplingParams(top_p=0.7),
        SamplingParams(top_p=0.99, temperature=1.4),
        SamplingParams(min_p=0.03, temperature=0.7),
        SamplingParams(top_k=1500, top_p=0.98, min_p=0.001, temperature=1.2),
        SamplingParams(top_k=20, top_p=0.8, temperature=0.6),
    ],
)
def test_the_tokens_that_stay_are_those_of_the_warpers_of_transformers(
    operations: Operations, params: SamplingParams
) -> None:
    logits = logits_of(20, rounded=False)
    warpers = logits_process.LogitsProcessorList([logits_process.TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        warpers.append(logits_process.TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(logits_process.TopPLogitsWarper(params.top_p))
    if params.min_p:
        warpers.append(logits_process.MinPLogitsWarper(params.min_p))
    warped = warpers(torch.zeros(20, 1, dtype=torch.int64), logits.double())
    theirs = [set(row.isfinite().nonzero()[:, 0].tolist()) for row in warped]
    assert kept_by_us(operations, logits, params) == theirs


@pytest.mark.parametrize("num_equal", [3, 100, 1500, 2990])
def test_of_equal_logits_at_the_border_of_top_k_the_lowest_tokens_stay(
    operations: Operations, num_equal: int
) -> None:
    places = torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(num_equal))
    logits = torch.full((1, VOCABULARY), -5.0)
    logits[0, places[:2]], logits[0, places[2 : 2 + num_equal]] = 3.0, 1.0
    kept = kept_by_us(operations, logits, SamplingParams(top_k=4))[0]
    assert kept == {*places[:2].tolist(), *places[2 : 2 + num_equal].sort().values[:2].tolist()}


def test_of_equal_logits_at_the_border_of_top_p_the_lowest_tokens_stay(operations: Operations) -> None:
    assert kept_by_us(operations, torch.zeros(2, 10), SamplingParams(top_p=0.35)) == [{0, 1, 2, 3}] * 2
    assert kept_by_us(operations, torch.zeros(2, 500), SamplingParams(top_p=0.5)) == [set(range(250))] * 2


@pytest.mark.parametrize("top_k", [VOCABULARY, 10**9])
def test_a_top_k_of_the_whole_vocabulary_leaves_top_p_as_it_is(operations: Operations, top_k: int) -> None:
    logits = logits_of(20, rounded=False)
    expected = kept_by_us(operations, logits, SamplingParams(top_p=0.7))
    assert kept_by_us(operations, logits, SamplingParams(top_k=top_k, top_p=0.7)) == expected
