"""The promises on a real 0.5B model: exact over thousands of tokens, the same text in company, memory while
loading.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.engine.test_engine_exactness import flat, gap_max

from groschen.engine.engine import EngineConfig
from groschen.engine.open import Opened, open_engine
from groschen.records import Request, SamplingParams

pytestmark = [pytest.mark.real, pytest.mark.slow]

QUESTIONS = (
    "A robe takes 2 bolts of blue fiber and half that much white fiber. "
    "How many bolts in total does it take?",
    "Wendi feeds each of her chickens three cups of feed a day, in three meals. "
    "How many cups does she need for 20 chickens?",
    "Toulouse has twice as many sheep as Charleston. Charleston has 4 times as many as Seattle, "
    "which has 20. How many in all?",
    "What is 17 * 23? Think step by step.",
)


@pytest.fixture(scope="module")
def opened(real_gguf: Path) -> Opened:
    return open_engine(str(real_gguf), config=EngineConfig(cache_bytes=1_000_000_000))


def requests(opened: Opened, samples: int, max_tokens: int) -> list[Request]:
    template, tokenizer = opened.text.chat_template(), opened.text.tokenizer
    prompts = [template.encode(tokenizer, [{"role": "user", "content": question}]) for question in QUESTIONS]
    sampling = SamplingParams(max_tokens=max_tokens, seed=5)
    return [Request(prompt_ids=tuple(ids), sampling=sampling, num_completions=samples) for ids in prompts]


def test_engine_and_trainer_agree_to_the_last_bit_over_two_thousand_tokens(opened: Opened) -> None:
    groups = opened.engine.generate(requests(opened, 8, 80))
    completions = flat(groups)
    assert sum(len(completion.token_ids) for completion in completions) > 2000
    for group in groups:
        assert gap_max(opened.engine.model, group) == 0.0


def test_a_seeded_answer_is_the_same_alone_and_among_others(opened: Opened) -> None:
    together = opened.engine.generate(requests(opened, 4, 24))
    asked = requests(opened, 1, 24)
    for index, request in enumerate(asked):
        alone = opened.engine.generate([request])[0][0]
        assert (alone.token_ids, alone.logprobs) == (
            together[index][0].token_ids,
            together[index][0].logprobs,
        )


def test_the_model_computes_what_a_sum_asks_for(opened: Opened) -> None:
    asked = [{"role": "user", "content": "What is 2 + 3? Answer with the number only."}]
    prompt = opened.text.chat_template().encode(opened.text.tokenizer, asked)
    request = Request(prompt_ids=tuple(prompt), sampling=SamplingParams(max_tokens=8, temperature=0.0))
    assert opened.engine.generate([request])[0][0].text.strip().startswith("5")


def test_loading_peaks_at_most_15_percent_above_what_stays(real_gguf: Path) -> None:
    """In a process of its own: peak and resident memory are told by the kernel."""
    program = (
        "import json, sys; from groschen import machine; from groschen.model.load import load_model;"
        "model = load_model(sys.argv[1]);"
        "print(json.dumps([machine.peak_memory_bytes(), machine.resident_bytes()]))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program, str(real_gguf)], capture_output=True, text=True, check=True
    ).stdout
    peak, resident = json.loads(printed)
    assert peak <= 1.15 * resident
