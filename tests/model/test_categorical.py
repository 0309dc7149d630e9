"""One draw from a row of logits against a float64 oracle: what is drawn, is told and may not matter."""

import math

import pytest
import torch
from torch import Tensor

from groschen.model.build_kernels import library
from groschen.model.compiled import CompiledOperations
from groschen.model.operations import Operations
from groschen.model.portable import PortableOperations

SIZES = [1, 2, 7, 1023, 1024, 1025, 4097, 151_936]
LAST = 1 - 2.0**-53  # the greatest uniform number
LOGPROB_ERROR = 2e-6


@pytest.fixture(params=["compiled", "portable"])
def operations(request: pytest.FixtureRequest) -> Operations:
    return portable() if request.param == "portable" else compiled()


def portable() -> Operations:
    return PortableOperations(torch.float32)


def compiled() -> Operations:
    built = library(is_bf16=False)
    if built.library is None:
        pytest.skip(built.why_not)
    return CompiledOperations(built.library, torch.float32)


def logits_of(num_words: int, rows: int = 1, spread: float = 3.0, seed: int = 0) -> Tensor:
    return torch.randn(rows, num_words, generator=torch.Generator().manual_seed(seed)) * spread


SHAPES = {
    "usual": logits_of,
    "flat": lambda v: logits_of(v, spread=1e-3),
    "equal": lambda v: torch.full((1, v), 0.3),
    "peaked": lambda v: logits_of(v, spread=30.0),
    "shifted": lambda v: logits_of(v) - 1000.0,
    "one": lambda v: torch.full((1, v), -200.0).index_fill(1, torch.tensor([v // 2]), 0.0),
    "banned": lambda v: logits_of(v).masked_fill(torch.arange(v) % 3 == 1, -math.inf),
    "bf16": lambda v: logits_of(v).bfloat16().float(),  # many ties
}


def inverse(temperature: float, rows: int) -> Tensor:
    return torch.full((rows,), 1 / temperature if temperature else 0.0)


def log_softmax(logits: Tensor, temperature: float) -> Tensor:
    exact = logits.double() * inverse(temperature or 1.0, 1).double()
    return exact.log_softmax(-1)


def draw(operations: Operations, logits: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
    """One row of logits, many uniform numbers, a few at a time. Returns the tokens."""
    at_once = max(1, 2**22 // logits.shape[1])
    drawn = []
    for part in uniforms.split(at_once):
        inverses = inverse(temperature, len(part))
        drawn.append(operations.categorical(logits.expand(len(part), -1), inverses, part, None).tokens)
    return torch.cat(drawn)


@pytest.mark.parametrize("temperature", [0.5, 1.7])
@pytest.mark.parametrize("shape", ["usual", "flat", "banned"])
@pytest.mark.parametrize("num_words", [2, 7])
def test_the_share_of_uniform_numbers_that_draw_a_token_is_its_probability(
    operations: Operations, num_words: int, shape: str, temperature: float
) -> None:
    logits, count = (
        SHAPES[shape](num_words),
        2**20 if (num_words, shape, temperature) == (7, "usual", 1.7) else 2**14,
    )
    grid = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    shares = draw(operations, logits, grid, temperature).bincount(minlength=num_words) / count
    # A token's interval holds its width times 2^20 grid points, one more or less: 1e-6.
    assert (shares - log_softmax(logits, temperature)[0].exp()).abs().max() < 1 / count + 5e-7


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_words", SIZES)
def test_the_intervals_of_the_tokens_lie_where_the_distribution_function_says(
    operations: Operations, num_words: int, shape: str
) -> None:
    logits = SHAPES[shape](num_words)
    right = log_softmax(logits, 1.0)[0].exp().cumsum(0)
    left = torch.cat([torch.zeros(1, dtype=torch.float64), right[:-1]])
    wide = ((right - left) > 1e-6).nonzero()[:, 0]
    few = wide[:: max(1, len(wide) // (100 if num_words < 5000 else 8))]
    for border, step in ((left, 5e-7), (right, -5e-7)):
        assert torch.equal(draw(operations, logits, (border[few] + step).clamp(0, LAST)), few)


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_words", SIZES)
def test_logprob_and_entropy_are_those_of_the_float64_softmax(
    operations: Operations, num_words: int, shape: str, temperature: float
) -> None:
    logits = SHAPES[shape](num_words)
    exact = log_softmax(logits, temperature)
    tokens = torch.arange(num_words)[:: max(1, num_words // 8)]
    rows = logits.expand(len(tokens), -1)
    scored = operations.categorical(rows, inverse(temperature, len(tokens)), None, tokens)
    spacing = exact[0, tokens].abs().clamp(max=1e4).nan_to_num().float() * 2.0**-23  # of float32 at that size
    error = torch.where(scored.logprobs == exact[0, tokens], 0.0, (scored.logprobs - exact[0, tokens]).abs())
    assert (error <= LOGPROB_ERROR + spacing).all()
    entropy = -(exact.exp() * exact.clamp(min=-1e4)).sum(-1)
    assert (scored.entropies - entropy).abs().max() < 5 * LOGPROB_ERROR


@pytest.mark.parametrize("num_words", SIZES)
def test_the_first_and_last_uniform_number_draw_the_first_and_last_token_that_has_a_chance(
    operations: Operations, num_words: int
) -> None:
    logits = logits_of(num_words + 4000)
    logits[:, :2000] = logits[:, -2000:] = -math.inf
    drawn = draw(operations, logits, torch.tensor([0.0, LAST], dtype=torch.float64))
    assert drawn.tolist() == [2000, 1999 + num_words]
    assert draw(operations, logits[:, 2000:-2000], torch.tensor([0.0, LAST]).double()).tolist() == [
        0,
        num_words - 1,
    ]


def test_a_token_without_a_chance_is_never_drawn(operations: Operations) -> None:
    logits = SHAPES["banned"](3001)
    uniforms = torch.linspace(0, LAST, 5000, dtype=torch.float64)
    for temperature in (0.3, 1.0, 50.0):
        assert (draw(operations, logits, uniforms, temperature) % 3 != 1).all()


@pytest.mark.parametrize("num_words", SIZES)
def test_greedy_takes_the_lowest_of_equal_greatest_logits(operations: Operations, num_words: int) -> None:
    logits = logits_of(num_words, rows=8).clamp(max=4.0)
    places = torch.randint(num_words, (8, 3), generator=torch.Generator().manual_seed(1))
    logits.scatter_(1, places, 5.0)
    drawn = operations.categorical(logits, torch.zeros(8), torch.full((8,), 0.9, dtype=torch.float64), None)
    assert torch.equal(drawn.tokens, places.amin(1))
    exact = log_softmax(logits, 1.0).gather(1, drawn.tokens[:, None])[:, 0]
    assert (drawn.logprobs - exact).abs().max() < LOGPROB_ERROR


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1023, 1024, 2999])
def test_a_row_with_a_nan_or_an_infinity_has_no_token_and_its_neighbours_are_as_without_it(
    operations: Operations, bad: float, place: int
) -> None:
    logits, uniforms = logits_of(3000, rows=4), torch.full((4,), 0.4, dtype=torch.float64)
    inverses = torch.tensor([1.0, 0.7, 0.0, 1.0])
    fine = operations.categorical(logits, inverses, uniforms, None)
    logits[1:3, place] = bad
    drawn = operations.categorical(logits, inverses, uniforms, None)
    assert drawn.tokens.tolist() == [fine.tokens[0], -1, -1, fine.tokens[3]]
    assert drawn.logprobs[1:3].isnan().all()
    for ours, theirs in zip(drawn, fine, strict=True):
        assert torch.equal(ours[[0, 3]], theirs[[0, 3]])


@pytest.mark.parametrize("num_words", [1, 1024, 3000])
def test_a_row_of_nothing_but_minus_infinity_has_no_token(operations: Operations, num_words: int) -> None:
    logits = torch.full((2, num_words), -math.inf)
    drawn = operations.categorical(logits, torch.tensor([1.0, 0.0]), torch.zeros(2).double(), None)
    assert drawn.tokens.tolist() == [-1, -1]
    assert drawn.logprobs.isnan().all()


def test_scoring_leaves_the_tokens_as_they_were_even_where_the_logits_are_broken(
    operations: Operations,
) -> None:
    logits = logits_of(50, rows=3)
    logits[1, 7] = math.nan
    tokens = torch.tensor([3, 4, 5])
    scored = operations.categorical(logits, torch.ones(3), None, tokens)
    assert tokens.tolist() == [3, 4, 5]
    assert scored.logprobs.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_words", [7, 1025, 151_936])
def test_scoring_a_token_gives_the_bits_of_its_draw_in_any_batch(
    operations: Operations, num_words: int, shape: str
) -> None:
    logits = torch.cat([SHAPES[shape](num_words), logits_of(num_words, rows=7, seed=2)])
    uniforms = torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    inverses = torch.tensor([1.0, 0.8, 1.0, 1.0, 0.5, 1.3, 0.0, 1.0])
    drawn = operations.categorical(logits, inverses, uniforms, None)
    order = torch.tensor([5, 0, 7, 1, 3])
    scored = operations.categorical(logits[order], inverses[order], None, drawn.tokens[order])
    assert torch.equal(scored.logprobs, drawn.logprobs[order])
    for row in range(8):
        one = slice(row, row + 1)
        alone = operations.categorical(logits[one], inverses[one], None, drawn.tokens[one])
        assert torch.equal(alone.logprobs, drawn.logprobs[one])


@pytest.mark.parametrize("num_words", [7, 1025, 151_936])
def test_rows_draw_the_same_alone_among_others_and_with_any_number_of_threads(
    operations: Operations, num_words: int
) -> None:
    logits = logits_of(num_words, rows=9)
    uniforms = torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    inverses, threads = inverse(0.9, 9), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        many = operations.categorical(logits, inverses, uniforms, None)
        torch.set_num_threads(1)
        for row in range(9):
            one = slice(row, row + 1)
            alone = operations.categorical(logits[one], inverses[one], uniforms[one], None)
            assert torch.equal(alone.tokens, many.tokens[one]) and torch.equal(
                alone.logprobs, many.logprobs[one]
            )
            assert torch.equal(alone.entropies, many.entropies[one])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_words", [1025, 151_936])
def test_compiled_and_portable_draw_the_same_except_next_to_a_border(num_words: int, shape: str) -> None:
    logits = SHAPES[shape](num_words)
    uniforms = torch.rand(16, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    ours, theirs = draw(compiled(), logits, uniforms), draw(portable(), logits, uniforms)
    border = log_softmax(logits, 1.0)[0].exp().cumsum(0)
    nearest = torch.searchsorted(border, uniforms).clamp(max=num_words - 1)
    distance = (
        (border[nearest] - uniforms).abs().minimum((border[(nearest - 1).clamp(min=0)] - uniforms).abs())
    )
    assert ((ours == theirs) | (distance < 1e-6)).all()


@pytest.mark.parametrize("weight", [0.2, 0.4, 0.9])
def test_rounding_inflates_no_improbable_token_at_the_end_of_a_block(weight: float) -> None:
    # A weight added up 1,023 times is off by about 1e-6 of the sum; what that leaves may not fall to the
    # last.
    logits = torch.full((1, 1024), math.log(weight))
    logits[0, 0], logits[0, -1] = 0.0, -40.0
    uniforms = 1 - torch.logspace(-15, -6, 4000, dtype=torch.float64)
    assert (draw(compiled(), logits, uniforms) < 1023).all()


def test_a_wide_row_stride_is_honoured(operations: Operations) -> None:
    wide = logits_of(1100, rows=4)
    part, uniforms = wide[:, :1000], torch.full((4,), 0.6, dtype=torch.float64)
    strided = operations.categorical(part, torch.ones(4), uniforms, None)
    dense = operations.categorical(part.contiguous(), torch.ones(4), uniforms, None)
    assert all(torch.equal(a, b) for a, b in zip(strided, dense, strict=True))
