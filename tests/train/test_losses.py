"""Losses against slow formulas, finite differences and, for the divergences, an exact categorical."""

import math

import pytest
import torch
from torch import Tensor

from groschen.errors import Unsupported
from groschen.train.losses import (
    Bounds,
    Loss,
    check_divergence,
    divergence_losses,
    divergence_metric,
    policy_losses,
)

LENGTHS = [3, 1, 4]
BOUNDS = Bounds(0.2, 0.28)
KINDS = ["clip", "sequence_clip", "cispo", "reinforce"]


def example(seed: int, spread: float = 0.4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(8, generator=generator, dtype=torch.float64) * 3
    new = old + spread * torch.randn(8, generator=generator, dtype=torch.float64)
    per_row = torch.randn(3, generator=generator, dtype=torch.float64)
    return new, old, torch.repeat_interleave(per_row, torch.tensor(LENGTHS))


def slow(kind: str, new: list[float], old: list[float], advantages: list[float]) -> list[float]:
    """The papers' formulas, one token at a time, in Python's own numbers."""
    losses, start = [], 0
    for length in LENGTHS:
        rows = range(start, start + length)
        whole = math.exp(sum(new[t] - old[t] for t in rows) / length)
        for t in rows:
            ratio = whole if kind == "sequence_clip" else math.exp(new[t] - old[t])
            a = advantages[t]
            if kind in ("clip", "sequence_clip"):
                losses.append(-min(ratio * a, min(max(ratio, 0.8), 1.28) * a))
            elif kind == "cispo":
                losses.append(-min(ratio, 1.28) * a * new[t])
            else:
                losses.append(-ratio * a)
        start += length
    return losses


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_is_the_papers_formula(kind: str, seed: int) -> None:
    new, old, advantages = example(seed)
    found = policy_losses(kind, new, old, advantages, LENGTHS, BOUNDS).losses  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx(slow(kind, new.tolist(), old.tolist(), advantages.tolist()))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["clip", "sequence_clip", "reinforce"])
def test_a_gradient_is_the_finite_difference(kind: str, seed: int) -> None:
    new, old, advantages = example(seed)

    def total(logprobs: Tensor) -> Tensor:
        kind_: Loss = kind  # type: ignore[assignment]
        return policy_losses(kind_, logprobs, old, advantages, LENGTHS, BOUNDS).losses.sum()

    assert torch.autograd.gradcheck(total, (new.clone().requires_grad_(),), eps=1e-7, atol=1e-5)


def test_cispo_keeps_the_gradient_of_every_token_and_only_bounds_its_weight() -> None:
    new, old, advantages = example(3, spread=1.0)
    leaf = new.clone().requires_grad_()
    policy_losses("cispo", leaf, old, advantages, LENGTHS, BOUNDS).losses.sum().backward()
    assert leaf.grad is not None
    ratios = (new - old).exp()
    assert bool((ratios > 1.28).any())
    torch.testing.assert_close(leaf.grad, -ratios.clamp(max=1.28) * advantages)


def test_a_token_beyond_the_bound_has_no_gradient_where_moving_on_would_pay() -> None:
    old = torch.zeros(4, dtype=torch.float64)
    new = torch.tensor([0.5, 0.5, -0.5, -0.5], dtype=torch.float64).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    found = policy_losses("clip", new, old, advantages, [4], BOUNDS)
    found.losses.sum().backward()
    assert new.grad is not None
    assert (new.grad != 0).tolist() == [False, True, True, False]
    assert found.is_clipped.tolist() == [True, False, False, True]


@pytest.mark.parametrize("kind", KINDS)
def test_on_policy_every_loss_has_the_gradient_of_reinforce(kind: str) -> None:
    old, advantages = example(1)[1:]
    leaf = old.clone().requires_grad_()
    losses = policy_losses(kind, leaf, old, advantages, LENGTHS, BOUNDS).losses  # type: ignore[arg-type]
    losses.sum().backward()
    assert leaf.grad is not None
    expected = -advantages  # of sequence_clip too: the mean over a row of equal advantages
    torch.testing.assert_close(leaf.grad, expected)


def exact_gradient(logits: Tensor, reference: Tensor, kind: str) -> Tensor:
    """d/d logits of the expected estimator over all tokens of a categorical, tokens drawn from the policy."""
    leaf = logits.clone().requires_grad_()
    logprobs = leaf.log_softmax(-1)
    chance = logprobs.detach().exp()
    terms = divergence_losses(kind, logprobs, logprobs.detach(), reference)  # type: ignore[arg-type]
    (chance * terms).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def categorical() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, generator=generator, dtype=torch.float64)
    reference = torch.randn(7, generator=generator, dtype=torch.float64).log_softmax(-1)
    leaf = logits.clone().requires_grad_()
    logprobs = leaf.log_softmax(-1)
    (logprobs.exp() * (logprobs - reference)).sum().backward()
    assert leaf.grad is not None
    return logits, reference, leaf.grad


@pytest.mark.parametrize("kind", ["k2", "ratio_k3"])
def test_a_divergence_has_the_gradient_of_the_exact_kl(kind: str) -> None:
    logits, reference, exact = categorical()
    torch.testing.assert_close(exact_gradient(logits, reference, kind), exact)


def test_k1_and_k3_as_losses_have_another_gradient_and_are_refused_with_the_reason() -> None:
    logits, reference, exact = categorical()
    leaf = logits.clone().requires_grad_()
    logprobs = leaf.log_softmax(-1)
    chance = logprobs.detach().exp()
    k1 = torch.autograd.grad((chance * (logprobs - reference)).sum(), leaf, retain_graph=True)[0]
    apart = reference - logprobs
    k3 = torch.autograd.grad((chance * (apart.exp() - apart - 1)).sum(), leaf)[0]
    torch.testing.assert_close(k1, torch.zeros_like(k1))
    assert float((k3 - exact).abs().max()) > 0.01
    with pytest.raises(Unsupported, match="gradient is zero"):
        check_divergence("k1")
    with pytest.raises(Unsupported, match="the other KL"):
        check_divergence("k3")


def test_the_divergence_metric_is_the_exact_kl_on_average_and_never_negative() -> None:
    logits, reference, _ = categorical()
    logprobs = logits.log_softmax(-1)
    terms = divergence_metric(logprobs, reference)
    assert float(terms.min()) >= 0
    exact = (logprobs.exp() * (logprobs - reference)).sum()
    torch.testing.assert_close((logprobs.exp() * terms).sum(), exact)


def test_unknown_names_are_refused() -> None:
    new, old, advantages = example(0)
    with pytest.raises(Unsupported, match="'ppo'"):
        policy_losses("ppo", new, old, advantages, LENGTHS, BOUNDS)  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="'kl'"):
        check_divergence("kl")
