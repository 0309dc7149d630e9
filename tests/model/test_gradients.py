"""The compiled gradients of single operations against float64 autograd of plain formulas, and their bits."""

import pytest
import torch
from torch import Tensor

from groschen.model.operations import kit_for
from groschen.model.portable import PortableOperations

COMPILED = kit_for(torch.device("cpu"), torch.float32).operations
BOTH = [COMPILED, PortableOperations(torch.float32)]


def _numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found.double() - expected).abs().max() <= 3e-6 * expected.abs().max() + 1e-9)


def _of_autograd(value: Tensor, grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, inputs, grad.double())


@pytest.mark.parametrize("operations", BOTH, ids=lambda each: each.name)
@pytest.mark.parametrize("is_gelu", [False, True])
@pytest.mark.parametrize("width", [1, 13, 64, 300])
def test_the_gradient_of_a_gate_is_that_of_its_formula(operations, is_gelu: bool, width: int) -> None:
    x, grad = 3 * _numbers(1, 70, 2 * width), _numbers(2, 70, width)
    wide = x.double().requires_grad_()
    gate, up = wide.chunk(2, -1)
    active = torch.nn.functional.gelu(gate, approximate="tanh") if is_gelu else torch.nn.functional.silu(gate)
    (expected,) = _of_autograd(active * up, grad, wide)
    assert _near(operations.gate_gradient(x, grad, is_gelu), expected)


@pytest.mark.parametrize("operations", BOTH, ids=lambda each: each.name)
@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("width", [7, 64, 200])
def test_the_gradient_of_a_norm_is_that_of_its_formula(operations, offset: float, width: int) -> None:
    x, weight, grad = _numbers(1, 5, 30, width), _numbers(2, width), _numbers(3, 5, 30, width)
    wide, scale = x.double().requires_grad_(), weight.double().requires_grad_()
    y = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * (offset + scale)
    expected = _of_autograd(y, grad, wide, scale)
    found = operations.rms_norm_gradient(x, weight, grad, 1e-6, offset)
    assert found[1].dtype == torch.float32 and found[1].shape == weight.shape
    assert all(_near(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("operations", BOTH, ids=lambda each: each.name)
@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("words", [5, 1000, 4099])
def test_the_gradient_of_a_score_is_that_of_log_softmax(operations, temperature: float, words: int) -> None:
    logits, grad = 6 * _numbers(1, 33, words), _numbers(2, 33)
    tokens = torch.randint(0, words, (33,), generator=torch.Generator().manual_seed(3))
    inverses = torch.full((33,), 1 / temperature)
    wide = logits.double().requires_grad_()
    logprobs = (wide * inverses.double()[:, None]).log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    (expected,) = _of_autograd(logprobs, grad, wide)
    scored = operations.categorical(logits, inverses, None, tokens)
    found = operations.score_gradient(logits.clone(), inverses, tokens, scored.logprobs, grad)
    assert _near(found, expected)


@pytest.mark.parametrize("operations", BOTH, ids=lambda each: each.name)
@pytest.mark.parametrize("words", [7, 1000])
@pytest.mark.parametrize("bad", [-1, -(2**40), 0, 2**31, 2**62])
def test_a_token_outside_of_the_row_makes_that_row_nan_and_touches_nothing_else(
    operations, words: int, bad: int
) -> None:
    bad += words if bad >= 0 else 0
    logits, grad, inverses = _numbers(1, 9, words), _numbers(2, 9), torch.ones(9)
    tokens = torch.arange(9) % words
    right = operations.categorical(logits, inverses, None, tokens)
    expected = operations.score_gradient(logits.clone(), inverses, tokens, right.logprobs, grad)
    tokens[4] = bad
    scored = operations.categorical(logits, inverses, None, tokens)
    assert scored.logprobs.isnan().tolist() == [row == 4 for row in range(9)]
    around = torch.zeros(11, words)  # what lies before and behind
    around[1:10] = logits
    found = operations.score_gradient(around[1:10], inverses, tokens, scored.logprobs, grad)
    assert found[4].isnan().all() and not around[0].any() and not around[10].any()
    others = [row for row in range(9) if row != 4]
    assert torch.equal(found[others], expected[others])


@pytest.mark.parametrize("operations", BOTH, ids=lambda each: each.name)
def test_squares_are_added_up_by_rows(operations) -> None:
    x = _numbers(1, 40, 2500)
    assert _near(operations.squares(x), x.double().square().sum(1))


def test_neither_threads_nor_neighbours_change_a_bit_of_a_compiled_gradient() -> None:
    """Rows enough that two threads share them."""
    x, weight, grad = _numbers(1, 400, 512), _numbers(2, 512), _numbers(3, 400, 512)
    logits, tokens = _numbers(4, 400, 512), torch.arange(400)
    scored = COMPILED.categorical(logits, torch.ones(400), None, tokens)

    def all_of_them(count: int) -> list[Tensor]:
        part = slice(0, count)
        of_norm = COMPILED.rms_norm_gradient(x[part], weight, grad[part], 1e-6, 0.0)
        return [
            COMPILED.gate_gradient(x[part], grad[part, :256], False),
            COMPILED.score_gradient(
                logits[part].clone(), torch.ones(count), tokens[part], scored.logprobs[part], grad[part, 0]
            ),
            COMPILED.squares(grad[part].contiguous()),
            of_norm[0],
            of_norm[1],
        ]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = all_of_them(400)
        torch.set_num_threads(2)
        together, fewer = all_of_them(400), all_of_them(7)
    finally:
        torch.set_num_threads(before)
    for one, two, few in zip(alone[:4], together[:4], fewer[:4], strict=True):
        assert torch.equal(one, two) and torch.equal(one[:7], few)
    assert torch.equal(alone[4], together[4])
