"""Completions of a tiny engine with made-up advantages: what the tests of training start from."""

import random
from collections.abc import Sequence

from tests.tiny import VOCABULARY, tiny_engine

from groschen.engine.engine import Engine
from groschen.model.transformer import Transformer
from groschen.records import Completion, Request, SamplingParams
from groschen.train.batch import Scored


def completions(
    engine: Engine, prompt_lengths: Sequence[int], group_size: int, max_tokens: int, seed: int = 5
) -> list[list[Completion]]:
    """A group of completions for a random prompt of each length."""
    generator = random.Random(seed)
    requests = [
        Request(
            prompt_ids=tuple(generator.randrange(VOCABULARY) for _ in range(length)),
            sampling=SamplingParams(max_tokens=max_tokens, seed=seed + length),
            num_completions=group_size,
        )
        for length in prompt_lengths
    ]
    return engine.generate(requests)


def scored_groups(
    model: Transformer,
    prompt_lengths: Sequence[int] = (5, 16, 33, 70),
    group_size: int = 4,
    max_tokens: int = 30,
) -> list[list[Scored]]:
    """Groups with advantages of both signs; prompts end within and at the end of a block of 16."""
    found = completions(tiny_engine(model), prompt_lengths, group_size, max_tokens)
    generator = random.Random(9)
    return [[Scored(each, generator.uniform(-1, 1)) for each in group] for group in found]
