"""The gradient of causal attention, row by row, in float32.

Recomputes the weights instead of keeping them, as FlashAttention does (arXiv 2205.14135, section 3.1), in
blocks of queries. In torch, for GPUs and where there is no C compiler; kernels/attention_gradient.c does the
same.
"""

import torch
from torch import Tensor

from groschen.model.kvcache import Rows
from groschen.model.shapes import AttentionShape

_QUERIES_AT_ONCE = 256  # bounds the scores to 256 * group * context floats per key/value head


def backward(
    queries: Tensor, keys: Tensor, values: Tensor, grad: Tensor, rows: Rows, shape: AttentionShape
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries [N, H, E], keys [N, K, E] and values [N, K, Ev], given that of the output [N, H,
    Ev].

    A row is its shared prompt, if it has one, and its own tokens: what lies only in the cache has no
    gradient.
    """
    grads = [torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (queries, keys, values)]
    for first, last, start, end in rows.spans():
        before = end - start
        row_keys, row_values = keys[first:last], values[first:last]
        if before:
            row_keys = torch.cat([keys[start:end], row_keys])
            row_values = torch.cat([values[start:end], row_values])
        own = slice(first, last)
        parts = _row(queries[own], row_keys, row_values, grad[own], before, shape)
        grads[0][own] += parts[0]
        for total, piece in zip(grads[1:], parts[1:], strict=True):
            total[start:end] += piece[:before]
            total[own] += piece[before:]
    return grads[0].to(queries.dtype), grads[1].to(keys.dtype), grads[2].to(values.dtype)


def _row(
    queries: Tensor, keys: Tensor, values: Tensor, grad: Tensor, before: int, shape: AttentionShape
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [T, H, E] that follow the first `before` of the keys [before + T, K, E], in blocks of
    queries.
    """
    if len(queries) <= _QUERIES_AT_ONCE and not shape.window:
        return _block(queries, keys, values, grad, before, shape)
    grads = [torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (queries, keys, values)]
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        end = min(start + _QUERIES_AT_ONCE, len(queries))
        low = max(0, before + start + 1 - shape.window) if shape.window else 0
        asked, seen = slice(start, end), slice(low, before + end)
        part = _block(queries[asked], keys[seen], values[seen], grad[asked], before + start - low, shape)
        for total, where, piece in zip(grads, (asked, seen, seen), part, strict=True):
            total[where] += piece
    return grads[0], grads[1], grads[2]


def _fold(x: Tensor, kv_heads: int) -> Tensor:
    """[T, H, E] to [K, T * group, E] float32."""
    tokens, heads, width = x.shape
    return (
        x.float()
        .view(tokens, kv_heads, heads // kv_heads, width)
        .transpose(0, 1)
        .reshape(kv_heads, -1, width)
    )


def _unfold(x: Tensor, tokens: int) -> Tensor:
    """[K, T * group, E] to [T, H, E]."""
    return x.view(x.shape[0], tokens, -1, x.shape[2]).transpose(0, 1).reshape(tokens, -1, x.shape[2])


def _block(
    queries: Tensor, keys: Tensor, values: Tensor, grad: Tensor, before: int, shape: AttentionShape
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [T, H, E] that follow the first `before` of the keys [S, K, E]."""
    num_queries, kv_heads = queries.shape[0], keys.shape[1]
    q, d_out = _fold(queries, kv_heads), _fold(grad, kv_heads)
    k, v = keys.float().transpose(0, 1), values.float().transpose(0, 1)
    scores = torch.bmm(q, k.transpose(1, 2)).mul_(shape.scale)
    bend: Tensor | None = None
    if shape.softcap:
        bent = torch.tanh(scores / shape.softcap)
        scores, bend = bent * shape.softcap, 1 - bent.square()
    weights = scores.add_(
        _hidden(num_queries, q.shape[1], len(keys), before, shape.window, q.device)
    ).softmax(-1)
    d_scores = torch.bmm(d_out, v.transpose(1, 2))
    # The sum of weight * gradient over positions is that of output * gradient: FlashAttention, section 3.1.
    d_scores.sub_(torch.bmm(weights, v).mul_(d_out).sum(-1, keepdim=True)).mul_(weights).mul_(shape.scale)
    if bend is not None:
        d_scores.mul_(bend)
    d_keys, d_values = torch.bmm(d_scores.transpose(1, 2), q), torch.bmm(weights.transpose(1, 2), d_out)
    return _unfold(torch.bmm(d_scores, k), num_queries), d_keys.transpose(0, 1), d_values.transpose(0, 1)


def _hidden(
    num_queries: int, rows: int, num_keys: int, before: int, window: int | None, device: torch.device
) -> Tensor:
    """[rows, S] with -inf where a query may not look, else 0; the rows of a query stand side by side."""
    position = torch.arange(num_keys, device=device)
    query = torch.arange(num_queries, device=device)[:, None] + before
    is_hidden = position > query
    if window:
        is_hidden |= position <= query - window
    added = torch.zeros(is_hidden.shape, device=device).masked_fill_(is_hidden, float("-inf"))
    return added.repeat_interleave(rows // num_queries, 0)
