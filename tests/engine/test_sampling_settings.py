"""Which settings of sampling are refused."""

import math
from dataclasses import replace

import pytest

from groschen.engine import sampling
from groschen.errors import BadRequest
from groschen.records import SamplingParams

BAD = [
    ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", 1.5), ("max_tokens", True),
    ("temperature", -0.1), ("temperature", math.nan), ("temperature", math.inf), ("temperature", 1e-9),
    ("temperature", "1"),
    ("top_k", -1), ("top_k", 2.0), ("top_k", None),
    ("top_p", 0.0), ("top_p", 1.01), ("top_p", -1), ("top_p", math.nan),
    ("min_p", -0.1), ("min_p", 1.1), ("min_p", math.nan),
    ("repetition_penalty", 0.0), ("repetition_penalty", -1.0), ("repetition_penalty", math.nan),
    ("repetition_penalty", math.inf), ("presence_penalty", 2.1), ("presence_penalty", math.nan),
    ("frequency_penalty", -2.1), ("frequency_penalty", math.nan),
    ("seed", 2**63), ("seed", -(2**63) - 1), ("seed", 1.0),
    ("top_logprobs", 21), ("top_logprobs", -1), ("top_logprobs", True),
    ("logit_bias", ((100, 1.0),)), ("logit_bias", ((-1, 1.0),)), ("logit_bias", ((1, math.nan),)),
    ("logit_bias", ((1, 101.0),)), ("logit_bias", ((1, 1.0), (1, 2.0))),
    ("stop_token_ids", (100,)), ("stop_token_ids", (-1,)), ("stop", ("",)), ("stop", "end"), ("stop", (3,)),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(BadRequest, match=field):
        sampling.check(replace(SamplingParams(), **{field: value}), 100)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(
            max_tokens=1, temperature=0, top_k=10**6, top_p=1e-6, min_p=1, repetition_penalty=0.5,
            presence_penalty=-2, frequency_penalty=2, logit_bias=((0, -100), (99, 100.0)), stop=("a", " "),
            stop_token_ids=(0, 99),
            ignore_end=True, seed=-(2**63), top_logprobs=20, prompt_logprobs=True,
        ),
        SamplingParams(temperature=1e-4, seed=2**63 - 1),
    ],
)  # fmt: skip
def test_every_value_in_range_passes(params: SamplingParams) -> None:
    sampling.check(params, 100)
