"""What a row of logits becomes under each setting of sampling, by definition: float64, a full sort, loops."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from groschen.engine import noise
from groschen.model.build_kernels import library
from groschen.model.compiled import CompiledOperations
from groschen.model.operations import Operations
from groschen.model.portable import PortableOperations
from groschen.records import SamplingParams

VOCABULARY = 3000
LOGPROB_ERROR = {"compiled": 3e-6, "portable": 3e-5}  # torch's log_softmax adds floats up in floats

FEATURES = {
    "plain": SamplingParams(),
    "temperature": SamplingParams(temperature=0.6),
    "greedy": SamplingParams(temperature=0),
    "top_k": SamplingParams(top_k=40),
    "top_k of one": SamplingParams(top_k=1),
    "top_k beyond the window": SamplingParams(top_k=500),
    "top_p": SamplingParams(top_p=0.8),
    "top_p beyond the window": SamplingParams(top_p=0.995, temperature=1.5),
    "min_p": SamplingParams(min_p=0.05),
    "all cuts": SamplingParams(top_k=50, top_p=0.9, min_p=0.02, temperature=0.8),
    "wide cuts": SamplingParams(top_k=2000, top_p=0.97, min_p=1e-4, temperature=1.7),
    "repetition": SamplingParams(repetition_penalty=1.3),
    "presence and frequency": SamplingParams(presence_penalty=0.7, frequency_penalty=-0.4),
    "bias": SamplingParams(logit_bias=((3, 8.0), (2999, -100.0), (5, 7.5))),
    "greedy with penalties": SamplingParams(temperature=0, repetition_penalty=1.5, frequency_penalty=0.3),
    "everything": SamplingParams(
        temperature=0.9, top_k=300, top_p=0.95, min_p=1e-3, repetition_penalty=1.1, presence_penalty=0.3,
        frequency_penalty=0.2, logit_bias=((7, 3.0),),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    sampling: SamplingParams
    seed: int = 0
    sample: int = 0
    prompt_ids: Sequence[int] = (1, 2, 3, 3, 2999)
    token_ids: Sequence[int] = (3, 4, 4, 4, 17)


def operations_named(name: str) -> Operations:
    """Either "compiled" or "portable"; skips where there is no compiler."""
    if name == "portable":
        return PortableOperations(torch.float32)
    built = library(is_bf16=False)
    if built.library is None:
        pytest.skip(built.why_not)
    return CompiledOperations(built.library, torch.float32)


def logits_of(rows: int, num_words: int = VOCABULARY, seed: int = 0, rounded: bool = True) -> Tensor:
    """Rounded to bfloat16, as a model's head may do: then many logits are equal."""
    logits = torch.randn(rows, num_words, generator=torch.Generator().manual_seed(seed)) * 2.5
    return logits.bfloat16().float() if rounded else logits


@dataclass(frozen=True)
class Oracle:
    """The distribution of one row by definition: float64, a full sort, loops."""

    logits: Tensor  # [V] after bias, penalties and cuts, divided by the temperature
    logprobs: Tensor  # [V]


def oracle(logits: Tensor, row: Row) -> Oracle:
    params, x = row.sampling, logits.clone()
    for token, addend in params.logit_bias:
        x[token] += addend
    for token in {*row.prompt_ids, *row.token_ids}:
        x[token] = (
            x[token] * params.repetition_penalty if x[token] < 0 else x[token] / params.repetition_penalty
        )
    for token in set(row.token_ids):
        count = list(row.token_ids).count(token)
        x[token] -= torch.tensor(
            params.frequency_penalty * count + params.presence_penalty, dtype=torch.float64
        ).float()
    x = x.double() * float(torch.tensor(1 / (params.temperature or 1.0)))
    if params.temperature:
        x = cut(x, params)
    return Oracle(x, x.log_softmax(0))


def cut(x: Tensor, params: SamplingParams) -> Tensor:
    numbers = x.tolist()
    order = sorted(range(len(x)), key=lambda token: (-numbers[token], token))
    kept = order[: params.top_k or len(order)]
    weights = (x[kept] - x[order[0]]).exp()
    before, total = weights.cumsum(0) - weights, float(weights.sum())
    if params.top_p < 1:
        kept = [
            token for token, mass in zip(kept, before.tolist(), strict=True) if mass < params.top_p * total
        ]
    if params.min_p:
        kept = [t for t in kept if numbers[t] - numbers[order[0]] >= math.log(params.min_p)]
    return torch.full_like(x, -math.inf).index_copy(0, torch.tensor(kept), x[kept])


def number_of(row: Row) -> float:
    keys = [torch.tensor([key]) for key in (row.seed, row.sample, len(row.token_ids))]
    return float(noise.uniforms(*keys))
