"""Does a row keep its bits whatever runs beside it? A probe of one or two seconds, for `groschen doctor` and
run manifests.

Each operation is run on all rows at once and again in other company: alone, in odd numbers, in chunks, after
a prefix, at another place; on a GPU also on both sides of the row counts and widths at which torch's kernels
and cuBLAS's are known to change. Then a small model is trained forward, prefilled in chunks and decoded, and
its hidden states and log probabilities are compared bit by bit. It is a property of kernels on this machine,
found by looking; only the compiled product is exact by definition.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from groschen.model.config import ModelConfig
from groschen.model.kvcache import KEYS_PER_BLOCK, Rows, Run
from groschen.model.operations import Kit, kit_for
from groschen.model.shapes import AttentionShape
from groschen.model.transformer import Transformer

# inputs, outputs: Qwen 2.5 0.5B, Llama 3.2 1B
_SHAPES = ((896, 1152), (896, 896), (896, 9728), (4864, 896), (2048, 512))
_NUM_TOKENS = 150
_SMALL = {
    "model_type": "qwen2", "vocab_size": 1024, "hidden_size": 256, "intermediate_size": 704,
    "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the probe of a device goes."""

    counts: tuple[int, ...]  # rows of the parts that are compared with `rows` of them at once
    rows: int
    widths: tuple[int, ...]  # of norms
    context: int  # positions of the attention
    companies: tuple[int, ...]  # rows that decode together
    tables: tuple[int, ...]  # blocks to which their tables are padded
    vocabularies: tuple[int, ...]
    drawn: int  # rows of logits


CPU = Reach((1, 2, 3, 5, 17, 64, 100), 128, (896,), _NUM_TOKENS, (5,), (10, 16), (32_003,), 64)
# A mean changes its threads at 2, 4, 8 and 16 rows, a softmax its kernel at a width of 1,024, a scan its
# threads at 512 rows of a large vocabulary and at few of a small one (Reduce.cuh, SoftMax.cu, ScanUtils.cuh);
# cuBLAS by powers of two of rows.
CUDA = Reach(
    (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 255, 257, 511, 512, 513), 600,
    (64, 128, 896, 1024, 4096), 1100, (1, 7, 16, 64), (69, 128), (2048, 32_003), 600,
)  # fmt: skip


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


def probe(
    dtype: torch.dtype = torch.bfloat16, device: torch.device | None = None, reach: Reach | None = None
) -> ExactnessReport:
    """Compare every operation that a model of `dtype` weights uses on `device` with itself.

    reach: None: that of the device's kind.
    """
    device = device or torch.device("cpu")
    reach = reach or (CPU if device.type == "cpu" else CUDA)
    kit = kit_for(device, dtype)
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        checks = tuple(
            check(kit, dtype, device, reach)
            for check in (_products, _norms, _gates, _attention, _draws, _model)
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


def _by_counts(compute: Callable[[Tensor], Tensor], x: Tensor, reach: Reach) -> tuple[int, int]:
    """Parts from the front, and from the end, so that a row also stands at another place."""
    parts = [(0, count) for count in reach.counts] + [(len(x) - n, len(x)) for n in reach.counts]
    return _compare(compute(x), ((first, compute(x[first:last].clone())) for first, last in parts))


def _products(kit: Kit, dtype: torch.dtype, device: torch.device, reach: Reach) -> Check:
    compared = differing = 0
    for inputs, outputs in _SHAPES:
        packed = kit.product.pack((torch.randn(outputs, inputs, device=device) * inputs**-0.5).to(dtype))
        x = torch.randn(reach.rows, inputs, device=device).to(kit.operations.activation_dtype)
        multiply = partial(kit.product.multiply, packed=packed, outputs=outputs, bias=None)
        counts = _by_counts(multiply, x, reach)
        compared, differing = compared + counts[0], differing + counts[1]
    return Check("product", compared, differing)


def _norms(kit: Kit, dtype: torch.dtype, device: torch.device, reach: Reach) -> Check:
    compared = differing = 0
    for width in reach.widths:
        weight = torch.randn(width, device=device).to(dtype).to(kit.operations.activation_dtype)
        x = torch.randn(reach.rows, width, device=device).to(kit.operations.activation_dtype)
        norm = partial(kit.operations.rms_norm, weight=weight, eps=1e-6, offset=0.0)
        counts = _by_counts(norm, x, reach)
        compared, differing = compared + counts[0], differing + counts[1]
    return Check("rms_norm", compared, differing)


def _gates(kit: Kit, dtype: torch.dtype, device: torch.device, reach: Reach) -> Check:
    x = torch.randn(reach.rows, 9728, device=device).to(kit.operations.activation_dtype)
    return Check("gate", *_by_counts(lambda rows: kit.operations.gate(rows, False), x, reach))


def _attention(kit: Kit, dtype: torch.dtype, device: torch.device, reach: Reach) -> Check:
    """A prefill against chunks of 37, against one token at a time, and against rows that decode together
    behind padded tables.
    """
    length = reach.context
    model = Transformer(ModelConfig.from_json({**_SMALL, "num_hidden_layers": 1}), dtype, device)
    cache, rows = model.new_cache(-(-length // KEYS_PER_BLOCK)).layer(0), Rows.of_sequences([length], device)
    queries, keys, values = (
        torch.randn(length, heads, 32, device=device).to(kit.operations.activation_dtype)
        for heads in (8, 2, 2)
    )
    kit.operations.store(keys, values, cache, rows.slots)
    shape = AttentionShape(32**-0.5)

    def part(first: int, last: int) -> tuple[int, Tensor]:
        return first, kit.operations.attend(
            queries[first:last].clone(), cache, _span(rows, first, last), shape
        )

    whole = kit.operations.attend(queries, cache, rows, shape)
    spans = [*pairwise([*range(0, length, 37), length]), *pairwise(range(100, _NUM_TOKENS + 1))]
    compared, differing = _compare(whole, (part(*span) for span in spans))
    for count in reach.companies:
        at = torch.linspace(0, length - 1, count, dtype=torch.float64).long().to(device)
        for blocks in reach.tables:
            tables = torch.zeros(count, blocks, dtype=torch.int32, device=device)
            tables[:, : rows.tables.shape[1]] = rows.tables
            one_each = torch.arange(count, dtype=torch.int32, device=device)
            decoded = Rows.at(one_each, at, tables, num_single=count)
            found = kit.operations.attend(queries[at], cache, decoded, shape)
            compared += count
            differing += int((found != whole[at]).flatten(1).any(1).sum())
    return Check("attention", compared, differing)


def _span(rows: Rows, first: int, last: int) -> Rows:
    """Some tokens of a lone row, one of them as it would be decoded."""
    row = torch.zeros(last - first, dtype=torch.int32, device=rows.row.device)
    is_one = last - first == 1
    runs = () if is_one else (Run(0, last - first, 0, first),)
    return Rows.at(row, rows.positions[first:last], rows.tables, num_single=int(is_one), runs=runs)


def _draws(kit: Kit, dtype: torch.dtype, device: torch.device, reach: Reach) -> Check:
    """Tokens drawn together, drawn in smaller company, and scored afterwards as a trainer does."""
    compared = differing = 0
    for vocabulary in reach.vocabularies:
        logits = torch.randn(reach.drawn, vocabulary, device=device) * 3
        inverses = torch.linspace(0.5, 2.0, reach.drawn, device=device)
        uniforms = torch.rand(reach.drawn, device=device, dtype=torch.float64)
        together = kit.operations.categorical(logits, inverses, uniforms, None)
        scored = kit.operations.categorical(logits, inverses, None, together.tokens)
        differing += int((scored.logprobs != together.logprobs).sum())
        spans = [(i, i + 1) for i in range(0, 64, 9)]
        spans += [(0, count) for count in reach.counts if 1 < count < reach.drawn]
        for first, last in spans:
            some = slice(first, last)
            alone = kit.operations.categorical(
                logits[some].clone(), inverses[some].clone(), uniforms[some].clone(), None
            )
            apart = (alone.tokens != together.tokens[some]) | (alone.logprobs != together.logprobs[some])
            differing += int(apart.sum())
        compared += reach.drawn + sum(last - first for first, last in spans)
    return Check("draw", compared, differing)


def _model(kit: Kit, dtype: torch.dtype, device: torch.device, reach: Reach) -> Check:
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
