"""Does a row keep its bits whatever runs beside it? A probe of one or two seconds, for `groschen doctor` and
run manifests.

Each operation is run on all rows at once and again in other company: alone, in odd numbers, in chunks, after
a prefix. Then a small model is trained forward, prefilled in chunks and decoded, and its hidden states and
log probabilities are compared bit by bit. It is a property of kernels on this machine, found by looking; only
the compiled product is exact by definition.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from groschen.model.config import ModelConfig
from groschen.model.kvcache import Rows
from groschen.model.operations import Kit, kit_for
from groschen.model.shapes import AttentionShape
from groschen.model.transformer import Transformer

# inputs, outputs: Qwen 2.5 0.5B, Llama 3.2 1B
_SHAPES = ((896, 1152), (896, 896), (896, 9728), (4864, 896), (2048, 512))
_COUNTS = (1, 2, 3, 5, 17, 64, 100)
_NUM_TOKENS = 150
_SMALL = {
    "model_type": "qwen2", "vocab_size": 1024, "hidden_size": 256, "intermediate_size": 704,
    "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """One operation in other company."""

    operation: str
    num_compared: int  # rows
    num_differing: int


@dataclass(frozen=True, slots=True)
class ExactnessReport:
    """What the probe found. `first_inexact` names the first operation that differed, in the order of a
    forward pass.
    """

    exact: bool
    first_inexact: str | None
    operations: str
    product: str
    checks: tuple[Check, ...]


def probe(dtype: torch.dtype = torch.bfloat16, device: torch.device | None = None) -> ExactnessReport:
    """Compare every operation that a model of `dtype` weights uses on `device` with itself."""
    device = device or torch.device("cpu")
    kit = kit_for(device, dtype)
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        checks = tuple(
            check(kit, dtype, device) for check in (_products, _norms, _gates, _attention, _draws, _model)
        )
    differing = [check.operation for check in checks if check.num_differing]
    return ExactnessReport(
        not differing, differing[0] if differing else None, kit.operations.name, kit.product.name, checks
    )


def _compare(whole: Tensor, parts: Iterator[tuple[int, Tensor]]) -> tuple[int, int]:
    """Rows compared and rows that differ; a part comes with the index of its first row."""
    compared = differing = 0
    for first, part in parts:
        same = (whole[first : first + len(part)] == part).flatten(1).all(1)
        compared, differing = compared + len(part), differing + int((~same).sum())
    return compared, differing


def _by_counts(compute: Callable[[Tensor], Tensor], x: Tensor) -> tuple[int, int]:
    return _compare(compute(x), ((0, compute(x[:count].clone())) for count in _COUNTS))


def _products(kit: Kit, dtype: torch.dtype, device: torch.device) -> Check:
    compared = differing = 0
    for inputs, outputs in _SHAPES:
        packed = kit.product.pack((torch.randn(outputs, inputs, device=device) * inputs**-0.5).to(dtype))
        x = torch.randn(128, inputs, device=device).to(kit.operations.activation_dtype)
        counts = _by_counts(lambda rows, p=packed, n=outputs: kit.product.multiply(rows, p, n, None), x)  # type: ignore[misc]
        compared, differing = compared + counts[0], differing + counts[1]
    return Check("product", compared, differing)


def _norms(kit: Kit, dtype: torch.dtype, device: torch.device) -> Check:
    weight = torch.randn(896, device=device).to(dtype).to(kit.operations.activation_dtype)
    x = torch.randn(128, 896, device=device).to(kit.operations.activation_dtype)
    return Check("rms_norm", *_by_counts(lambda rows: kit.operations.rms_norm(rows, weight, 1e-6, 0.0), x))


def _gates(kit: Kit, dtype: torch.dtype, device: torch.device) -> Check:
    x = torch.randn(128, 9728, device=device).to(kit.operations.activation_dtype)
    return Check("gate", *_by_counts(lambda rows: kit.operations.gate(rows, False), x))


def _attention(kit: Kit, dtype: torch.dtype, device: torch.device) -> Check:
    """A prefill of 150 tokens against chunks of 37 and against one token at a time."""
    model = Transformer(ModelConfig.from_json({**_SMALL, "num_hidden_layers": 1}), dtype, device)
    cache, rows = model.new_cache(10).layer(0), Rows.of_sequences([_NUM_TOKENS], device)
    queries, keys, values = (
        torch.randn(_NUM_TOKENS, heads, 32, device=device).to(kit.operations.activation_dtype)
        for heads in (8, 2, 2)
    )
    kit.operations.store(keys, values, cache, rows.slots)
    shape = AttentionShape(32**-0.5)

    def part(first: int, last: int) -> tuple[int, Tensor]:
        return first, kit.operations.attend(
            queries[first:last].clone(), cache, _span(rows, first, last), shape
        )

    whole = kit.operations.attend(queries, cache, rows, shape)
    spans = [*pairwise([*range(0, _NUM_TOKENS, 37), _NUM_TOKENS]), *pairwise(range(100, _NUM_TOKENS + 1))]
    return Check("attention", *_compare(whole, (part(*span) for span in spans)))


def _span(rows: Rows, first: int, last: int) -> Rows:
    row = torch.zeros(last - first, dtype=torch.int32, device=rows.row.device)
    return Rows.at(row, rows.positions[first:last], rows.tables, num_single=int(last - first == 1))


def _draws(kit: Kit, dtype: torch.dtype, device: torch.device) -> Check:
    """Tokens drawn together, drawn alone, and scored afterwards as a trainer does."""
    logits = torch.randn(64, 32_003, device=device) * 3
    inverses = torch.linspace(0.5, 2.0, 64, device=device)
    uniforms = torch.rand(64, device=device, dtype=torch.float64)
    together = kit.operations.categorical(logits, inverses, uniforms, None)
    scored = kit.operations.categorical(logits, inverses, None, together.tokens)
    differing = int((scored.logprobs != together.logprobs).sum())
    for i in range(0, 64, 9):
        one = slice(i, i + 1)
        alone = kit.operations.categorical(
            logits[one].clone(), inverses[one].clone(), uniforms[one].clone(), None
        )
        differing += int((alone.tokens != together.tokens[one]) | (alone.logprobs != together.logprobs[one]))
    return Check("draw", 64 + len(range(0, 64, 9)), differing)


def _model(kit: Kit, dtype: torch.dtype, device: torch.device) -> Check:
    """Logits of a small model: three rows as in training, against chunks and against decoding in ragged
    company.
    """
    model = Transformer(ModelConfig.from_json(_SMALL), dtype, device)
    for parameter in model.parameters():
        parameter.normal_(0, 1.0 if parameter.dim() == 1 else parameter.shape[1] ** -0.5)
    lengths = [_NUM_TOKENS, 77, 40]
    rows = Rows.of_sequences(lengths, device)
    token_ids = torch.randint(0, 1024, (sum(lengths),), device=device)
    starts = [0, lengths[0], lengths[0] + lengths[1]]
    whole = model.logits(model(token_ids, rows, model.new_cache(32)))
    cache = model.new_cache(32)

    def run(flat: list[int], num_single: int) -> Tensor:
        at = torch.tensor(flat, device=device)
        part = Rows.at(rows.row[at], rows.positions[at], rows.tables, num_single=num_single)
        return model.logits(model(token_ids[at], part, cache))

    compared = differing = 0
    for start, length in zip(
        starts, lengths, strict=True
    ):  # prefill all but the last ten tokens, in chunks of 13
        spans = pairwise([*range(start, start + length - 10, 13), start + length - 10])
        counts = _compare(whole, ((first, run(list(range(first, last)), 0)) for first, last in spans))
        compared, differing = compared + counts[0], differing + counts[1]
    for step in range(10):
        flat = [start + length - 10 + step for start, length in zip(starts, lengths, strict=True)]
        differing += int((run(flat, 3) != whole[flat]).any(1).sum())
        compared += 3
    return Check("model", compared, differing)
