"""Tiny models, engines and the trainer's view of them on a device."""

from collections.abc import Sequence

import torch
from tests.tiny import byte_tokenizer, tiny_model

from groschen.engine.engine import Engine, EngineConfig
from groschen.model.kvcache import Rows
from groschen.model.score import score
from groschen.model.transformer import Transformer
from groschen.records import Completion


def model_on(device: torch.device, family: str = "qwen2", **changes: object) -> Transformer:
    """The tiny model of the other tests, on the device."""
    source = tiny_model(family, **changes)
    model = Transformer(source.config, torch.bfloat16, device)
    for name, tensor in model.tensors().items():
        tensor.copy_(source.tensors()[name])
    return model.requires_grad_(False)


def engine_on(model: Transformer, **config: object) -> Engine:
    """An engine with a cache of 8 MB unless told otherwise."""
    return Engine(model, byte_tokenizer(), EngineConfig(**{"cache_bytes": 8_000_000, **config}))  # type: ignore[arg-type]


def gap_max(model: Transformer, completions: Sequence[Completion], temperature: float = 1.0) -> float:
    """max |engine - trainer| over every token, the trainer with all completions in one batch and gradients
    on.
    """
    ids = [[*each.prompt_ids, *each.token_ids] for each in completions]
    rows = Rows.of_sequences([len(row) for row in ids], model.device)
    flat = torch.tensor([token for row in ids for token in row], device=model.device)
    model.requires_grad_(True)
    hidden = model(flat, rows, model.new_cache(sum(-(-len(row) // 16) for row in ids)))
    logprobs, _ = score(model, hidden[:-1], flat[1:], temperature)
    assert logprobs.requires_grad
    model.requires_grad_(False)
    trained, gaps, start = logprobs.detach().tolist(), [], 0
    for row, each in zip(ids, completions, strict=True):
        first = start + len(each.prompt_ids) - 1
        gaps += [abs(a - b) for a, b in zip(trained[first:], each.logprobs, strict=False)]
        start += len(row)
    assert len(gaps) == sum(len(each.token_ids) for each in completions) > 0
    return max(gaps)
