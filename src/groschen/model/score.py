"""Log probabilities of given tokens, as a trainer needs them: the same bits that the engine drew with, and a
gradient.

Leaves out which rows are scored at once: the caller decides, because [N, V] logits are held until the
gradient is taken, and at 2,048 tokens of a 152 k vocabulary they would be 1.2 GB.
"""

from typing import Any

import torch
from torch import Tensor

from groschen.model.operations import Operations
from groschen.model.transformer import Transformer


def score(
    model: Transformer, hidden_ND: Tensor, token_ids_N: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Logprob of token n under the distribution that hidden row n gives, and that distribution's entropy.

    hidden: [N, D], of the positions before the tokens. Returns two [N] float32, nat; only the first has a
    gradient.
    """
    logits_NV = model.logits(hidden_ND)
    inverses_N = torch.full((len(token_ids_N),), 1.0 / temperature, device=logits_NV.device)
    scored: tuple[Tensor, Tensor] = _Score.apply(  # type: ignore[no-untyped-call]
        logits_NV, token_ids_N, inverses_N, model.kit.operations
    )
    return scored


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_NV: Tensor, token_ids_N: Tensor, inverses_N: Tensor, operations: Operations
    ) -> tuple[Tensor, Tensor]:
        scored = operations.categorical(logits_NV.detach(), inverses_N, None, token_ids_N)
        ctx.operations = operations
        ctx.save_for_backward(logits_NV, inverses_N, token_ids_N, scored.logprobs)
        ctx.mark_non_differentiable(scored.entropies)
        return scored.logprobs, scored.entropies

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor, _entropy_grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.operations.score_gradient(*ctx.saved_tensors, grad_N), None, None, None
