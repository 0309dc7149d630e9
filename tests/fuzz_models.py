"""Damaged model folders and GGUF files: each loads and answers, or is refused in one sentence.

`python tests/fuzz_models.py --count 2500` tries as many; `tests/model/test_fuzz.py` tries a few.
"""

import random
import sys
from pathlib import Path

import torch

from damage import damage_bytes, damage_json, damage_kind
from fuzzing import main
from groschen.engine.engine import EngineConfig
from groschen.engine.open import open_engine
from groschen.model.checkpoint import BUILT_IN_FOLDER
from groschen.records import Request, SamplingParams

_TEXTS = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")


def prepare(random_: random.Random, place: Path) -> str:
    """A copy of the built-in model with one file damaged."""
    for file in BUILT_IN_FOLDER.iterdir():
        (place / file.name).symlink_to(file)
    name = random_.choice([*_TEXTS, *_TEXTS, "model.safetensors", "chat_template.jinja"])
    kind = random_.random()
    if kind < 0.12:
        return damage_kind(random_, place / name)
    if name.endswith(".json") and kind < 0.8:
        return damage_json(random_, place / name)
    return damage_bytes(random_, place / name)


def judge(place: Path) -> None:
    """Load it, render a prompt, draw two tokens."""
    torch.set_num_threads(1)
    opened = open_engine(str(place), config=EngineConfig(cache_bytes=2_000_000, max_rows=2))
    tokenizer = opened.text.tokenizer
    ids = opened.text.chat_template().encode(tokenizer, [{"role": "user", "content": "What is 6 * 7?"}])
    sampling = SamplingParams(max_tokens=2, seed=1, ignore_end=True)
    completion = opened.engine.generate([Request(prompt_ids=tuple(ids), sampling=sampling)])[0][0]
    assert len(completion.token_ids) == 2


if __name__ == "__main__":
    sys.exit(main(prepare, judge, __doc__))
