"""Bias and penalties, bit for bit against the processors of transformers, and by hand."""

import torch
from transformers.generation import logits_process

from groschen.engine import penalties
from groschen.records import SamplingParams
from sampling_oracle import Row, logits_of


def test_the_repetition_penalty_has_the_bits_of_that_of_transformers() -> None:
    logits, prompt, generated = logits_of(3), [1, 2, 2, 9], [5, 1, 2998]
    theirs = logits_process.RepetitionPenaltyLogitsProcessor(1.3)(
        torch.tensor([[*prompt, *generated]] * 3), logits.clone()
    )
    ours = logits.clone()
    row = Row(SamplingParams(repetition_penalty=1.3), prompt_ids=prompt, token_ids=generated)
    penalties.adjust(ours, [row] * 3)
    assert torch.equal(ours, theirs)


def test_the_bias_has_the_bits_of_that_of_transformers_and_comes_before_the_repetition_penalty() -> None:
    logits, ids = logits_of(2), [4, 8]
    bias = logits_process.SequenceBiasLogitsProcessor({(4,): -3.5, (11,): 2.0})
    theirs = bias(torch.tensor([ids] * 2), logits.clone())
    theirs = logits_process.RepetitionPenaltyLogitsProcessor(1.2)(torch.tensor([ids] * 2), theirs)
    params = SamplingParams(logit_bias=((4, -3.5), (11, 2.0)), repetition_penalty=1.2)
    ours = logits.clone()
    penalties.adjust(ours, [Row(params, prompt_ids=ids, token_ids=())] * 2)
    assert torch.equal(ours, theirs)


def test_presence_and_frequency_count_generated_tokens_and_not_the_prompt() -> None:
    logits = torch.zeros(2, 10)
    params = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25)
    rows = [
        Row(params, prompt_ids=[1, 1, 2], token_ids=[2, 3, 3, 3]),
        Row(params, prompt_ids=[1], token_ids=[]),
    ]
    penalties.adjust(logits, rows)
    expected = torch.zeros(2, 10)
    expected[0, 2], expected[0, 3] = -0.75, -1.25
    assert torch.equal(logits, expected)
