"""The losses of policy gradients, token by token: pure functions of log probabilities.

Each returns the loss of every token; the caller multiplies by the token's weight, adds up and divides by
the one denominator of the whole update. Leaves out where log probabilities come from. Notation: rho = pi /
pi_old. Sources: PPO's clip, arXiv 1707.06347, with the two bounds of DAPO, arXiv 2503.14476; GSPO, arXiv
2507.18071, equation 5; CISPO, arXiv 2506.13585, equation 4; KL estimators: Schulman, "Approximating KL
divergence" (2020), and their gradients, arXiv 2510.01555.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from groschen.errors import Unsupported

Loss = Literal["clip", "sequence_clip", "cispo", "reinforce"]
LOSSES: tuple[str, ...] = get_args(Loss)
Divergence = Literal["none", "k2", "ratio_k3", "k1_reward"]
DIVERGENCES: tuple[str, ...] = get_args(Divergence)
_WRONG_DIVERGENCES = {
    "k1": "its expected gradient is zero, so it only adds noise; take k2, or k1_reward",
    "k3": "its gradient is that of the other KL, from the reference to the policy; take ratio_k3 or k2",
}


class Bounds(NamedTuple):
    """How far the ratio may move before a token's gradient is cut: below 1 - low and above 1 + high."""

    low: float = 0.2
    high: float = 0.28


class TokenLosses(NamedTuple):
    """[N] losses, with a gradient, and [N] whether the bound cut that token."""

    losses: Tensor
    is_clipped: Tensor


def policy_losses(
    kind: Loss,
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    lengths: Sequence[int],
    bounds: Bounds,
) -> TokenLosses:
    """The loss of each of N tokens that belong to completions of the given lengths, end to end.

    logprobs: [N] with a gradient; old_logprobs: [N], of the policy that sampled; advantages: [N]. All nat,
    float32.
    """
    logprobs_moved = logprobs - old_logprobs
    if kind == "sequence_clip":
        return _clipped(_mean_of_each(logprobs_moved, lengths).exp(), advantages, bounds)
    ratios = logprobs_moved.exp()
    if kind == "clip":
        return _clipped(ratios, advantages, bounds)
    if kind == "cispo":
        cut = ratios.detach() > 1 + bounds.high
        weights = ratios.detach().clamp(max=1 + bounds.high)
        return TokenLosses(-weights * advantages * logprobs, cut)
    if kind == "reinforce":
        return TokenLosses(-ratios * advantages, torch.zeros_like(logprobs, dtype=torch.bool))
    raise Unsupported(f"loss {kind!r} is not known; take one of {', '.join(LOSSES)}")


def divergence_losses(kind: Divergence, logprobs: Tensor, old_logprobs: Tensor, reference: Tensor) -> Tensor:
    """[N] terms whose gradient, on tokens that the old policy sampled, is that of KL(policy || reference).

    k2: half the squared log ratio; exact while policy and old policy are one. ratio_k3: rho (r - ln r - 1),
    exact off policy too. "k1_reward" belongs into the reward and is refused here.
    """
    check_divergence(kind)
    apart = reference - logprobs
    if kind == "k2":
        return 0.5 * apart.square()
    if kind == "ratio_k3":
        return (logprobs - old_logprobs).exp() * (apart.exp() - apart - 1)
    raise Unsupported(f"divergence {kind!r} is not a loss")


def check_divergence(kind: str) -> None:
    """Raises Unsupported, with the reason, for a form whose gradient is not that of KL(policy ||
    reference).
    """
    if kind in _WRONG_DIVERGENCES:
        raise Unsupported(f"divergence {kind!r} as a loss is refused: {_WRONG_DIVERGENCES[kind]}")
    if kind not in DIVERGENCES:
        raise Unsupported(f"divergence {kind!r} is not known; take one of {', '.join(DIVERGENCES)}")


def divergence_metric(logprobs: Tensor, reference: Tensor) -> Tensor:
    """[N] k3 terms: unbiased for KL(policy || reference) on the policy's own tokens and never negative."""
    apart = reference - logprobs
    return apart.exp() - apart - 1


def _clipped(ratios: Tensor, advantages: Tensor, bounds: Bounds) -> TokenLosses:
    inside = ratios.clamp(1 - bounds.low, 1 + bounds.high)
    free, bound = ratios * advantages, inside * advantages
    return TokenLosses(-torch.minimum(free, bound), (bound < free).detach())


def _mean_of_each(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """[N] to [N]: every token gets the mean over its completion."""
    return torch.cat([part.mean().expand(len(part)) for part in torch.split(values, list(lengths))])
