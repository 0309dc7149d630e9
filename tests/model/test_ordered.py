"""The order of these sums is the row's alone: the same bits in any company and behind any padding, and the
right sum.
"""

import pytest
import torch
from torch import Tensor

from groschen.model import ordered
from groschen.model.kvcache import LayerCache, Rows
from groschen.model.portable import PortableOperations
from groschen.model.shapes import AttentionShape

COUNTS = (1, 2, 7, 64)
OPERATIONS = PortableOperations(torch.bfloat16, is_ordered=True)


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def by_halves(row: list[float]) -> float:
    """The definition, one number at a time, in float32."""
    numbers = [torch.tensor(x) for x in row]
    while len(numbers) > 1:
        half = 1 << (len(numbers) - 1).bit_length() - 1
        high = numbers[half:] + [None] * (2 * half - len(numbers))
        numbers = [a if b is None else a + b for a, b in zip(numbers[:half], high, strict=True)]
    return float(numbers[0])


@pytest.mark.parametrize("length", [1, 2, 3, 8, 64, 80, 100])
def test_a_total_is_the_upper_half_added_to_the_lower_until_one_is_left(length: int) -> None:
    x = numbers(3, length)
    assert ordered.total(x, -1).tolist() == [by_halves(row) for row in x.tolist()]


@pytest.mark.parametrize("length", [1, 2, 3, 16, 100, 896, 1024, 1100])
def test_a_total_has_the_same_bits_in_any_company_padding_and_dimension(length: int) -> None:
    x = numbers(64, length)
    whole = ordered.total(x, -1)
    torch.testing.assert_close(whole.double(), x.double().sum(-1), rtol=0, atol=1e-4)
    for count in COUNTS:
        assert torch.equal(ordered.total(x[64 - count :].clone(), -1), whole[64 - count :])
    for padding in (1, 7, 28, 924):
        assert torch.equal(ordered.total(torch.nn.functional.pad(x, (0, padding)), -1), whole)
    assert torch.equal(ordered.total(x.t().contiguous(), 0), whole)
    assert torch.equal(ordered.total(x.view(8, 8, length).transpose(1, 2), 1), whole.view(8, 8))


@pytest.mark.parametrize("length", [1, 2, 5, 128, 1000])
def test_running_totals_are_sums_up_to_each_place_in_any_company(length: int) -> None:
    x = numbers(64, length, dtype=torch.float64).exp()
    whole = ordered.running_totals(x)
    torch.testing.assert_close(whole, x.cumsum(-1), rtol=1e-12, atol=0)
    assert all(torch.equal(ordered.running_totals(x[:count]), whole[:count]) for count in COUNTS)


@pytest.mark.parametrize("length", [1, 2, 3, 37, 320, 5003])
def test_a_sum_tree_finds_the_place_that_the_running_sum_passes(length: int) -> None:
    weights = (3 * numbers(64, length, dtype=torch.float64)).exp()
    weights[:, :: max(2, length // 7)] = 0
    weights[:, length // 2] += 1e-3
    tree, uniforms = ordered.SumTree.of(weights), torch.rand(64, dtype=torch.float64)
    running = weights.cumsum(-1)
    torch.testing.assert_close(tree.total, running[:, -1], rtol=1e-12, atol=0)
    targets = uniforms * tree.total
    assert torch.equal(tree.find(targets), torch.searchsorted(running, targets[:, None], right=True)[:, 0])
    for count in COUNTS:
        part = ordered.SumTree.of(weights[:count].clone())
        assert torch.equal(part.total, tree.total[:count])
        assert torch.equal(part.find(targets[:count]), tree.find(targets)[:count])


@pytest.mark.parametrize("share", [0.0, 0.5, 1 - 2**-53, 1.0])
def test_a_place_without_weight_is_never_found(share: float) -> None:
    weights = torch.zeros(5, 1000, dtype=torch.float64)
    allowed = torch.tensor([0, 1, 511, 640, 999])
    weights[torch.arange(5), allowed] = torch.tensor([1e-300, 1e-9, 1.0, 3.0, 1e9], dtype=torch.float64)
    tree = ordered.SumTree.of(weights)
    assert torch.equal(tree.find(share * tree.total), allowed)


def test_rows_of_one_index_are_added_in_their_order_whatever_lies_between() -> None:
    rows, index = numbers(200, 5), torch.randint(0, 9, (200,), generator=torch.Generator().manual_seed(1))
    totals = numbers(12, 5, seed=2)
    expected = totals.double().index_add(0, index, rows.double())
    found = totals.clone()
    ordered.add_rows_(found, index, rows)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(found[9:], totals[9:])
    for one in range(9):  # without the others: the same bits
        alone = totals.clone()
        ordered.add_rows_(alone, index[index == one], rows[index == one])
        assert torch.equal(alone[one], found[one])


def test_a_nan_of_one_index_stays_there() -> None:
    totals, rows = torch.zeros(4, 3), torch.ones(6, 3)
    rows[2] = float("nan")
    ordered.add_rows_(totals, torch.tensor([0, 1, 2, 1, 3, 0]), rows)
    assert totals.isnan().any(1).tolist() == [False, False, True, False]
    assert totals[[0, 1, 3]].tolist() == [[2.0] * 3, [2.0] * 3, [1.0] * 3]


@pytest.mark.parametrize("width", [32, 80, 896, 1024])
def test_a_norm_has_the_same_bits_in_any_company(width: int) -> None:
    x, weight = numbers(64, width, dtype=torch.bfloat16), numbers(width, seed=1, dtype=torch.bfloat16)
    whole = OPERATIONS.rms_norm(x, weight, 1e-6, 0.0)
    assert all(torch.equal(OPERATIONS.rms_norm(x[:n].clone(), weight, 1e-6, 0.0), whole[:n]) for n in COUNTS)
    plain = PortableOperations(torch.bfloat16).rms_norm(x, weight, 1e-6, 0.0)
    torch.testing.assert_close(whole, plain, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("shape", [AttentionShape(0.2), AttentionShape(0.2, window=20, softcap=30.0)])
def test_a_position_attends_with_the_same_bits_whatever_else_is_in_the_batch(shape: AttentionShape) -> None:
    """One prefill, against decoding of 1, 2, 7 and 64 rows whose tables are padded to 2,048 positions."""
    length, blocks = 130, 9
    cache = LayerCache(numbers(20, 2, 32, 16), numbers(20, 2, 16, 32, seed=1))
    rows = Rows.of_sequences([length], torch.device("cpu"))
    queries = numbers(length, 4, 32, seed=2, dtype=torch.bfloat16)
    whole = OPERATIONS.attend(queries, cache, rows, shape)
    plain = PortableOperations(torch.bfloat16).attend(queries.float(), cache, rows, shape)
    torch.testing.assert_close(whole.float(), plain, rtol=0.02, atol=0.02)
    for count in COUNTS:
        places = torch.arange(length - count, length)
        for num_blocks in (blocks, 16, 128):
            tables = torch.full((count, num_blocks), 19, dtype=torch.int32)
            tables[:, :blocks] = rows.tables[:, :blocks]
            alone = Rows.at(torch.arange(count, dtype=torch.int32), places, tables, num_single=count)
            assert torch.equal(OPERATIONS.attend(queries[places], cache, alone, shape), whole[places])


@pytest.mark.parametrize("vocabulary", [320, 2048, 32_003])
def test_a_draw_has_the_same_bits_in_any_company_and_the_token_that_torchs_sums_give(vocabulary: int) -> None:
    logits, uniforms = 3 * numbers(64, vocabulary), torch.rand(64, dtype=torch.float64)
    inverses = torch.linspace(0.5, 2, 64)
    whole = OPERATIONS.categorical(logits, inverses, uniforms, None)
    plain = PortableOperations(torch.float32).categorical(logits, inverses, uniforms, None)
    assert torch.equal(whole.tokens, plain.tokens)
    torch.testing.assert_close(whole.logprobs, plain.logprobs, rtol=0, atol=1e-6)
    torch.testing.assert_close(whole.entropies, plain.entropies, rtol=0, atol=1e-5)
    for count in COUNTS:
        given = (logits[:count].clone(), inverses[:count])
        drawn = OPERATIONS.categorical(*given, uniforms[:count], None)
        scored = OPERATIONS.categorical(*given, None, whole.tokens[:count])
        for found in (drawn, scored):
            assert all(torch.equal(a, b[:count]) for a, b in zip(found, whole, strict=True))
