"""The operations of a model in plain torch: on GPUs, on CPUs without a C compiler, and as the oracle of the
compiled ones.

The same methods as `compiled.py`, each row computed on its own so that a row's bits do not depend on its
neighbours as far as the kernels of the device allow; `exactness.py` probes how far that is. Attention is
folded by hand (queries of one key/value head are rows of one product), because fused kernels change their
order of additions with the shape of the batch.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from groschen.model import attention_gradient
from groschen.model.kvcache import KEYS_PER_BLOCK, LayerCache, Rows
from groschen.model.shapes import AttentionShape, Categorical

_QUERIES_AT_ONCE = 256  # bounds the scores of a long prefill; does not change a bit
_FOLD = 8  # rows of a product are padded to a multiple: fp32 kernels have tails of their own


@dataclass(frozen=True)
class PortableOperations:
    """Plain torch for one type of activations."""

    activation_dtype: torch.dtype
    name: str = "portable"

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        """x: [..., width]. Returns x / rms(x) * (offset + weight)."""
        wide = x.float()
        quotient = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        if offset:
            return (quotient * (offset + weight.float())).to(x.dtype)
        return quotient.to(x.dtype) * weight

    def rotate(
        self, x: Tensor, positions: Tensor, cosines: Tensor, sines: Tensor, direction: float
    ) -> Tensor:
        """x: [N, heads, E]. Returns the rotated heads, [N, heads, E]."""
        cosine, sine = cosines[positions][:, None], direction * sines[positions][:, None]
        a, b = x.float().chunk(2, -1)
        return torch.cat([a * cosine - b * sine, b * cosine + a * sine], -1).to(x.dtype)

    def gate(self, x: Tensor, is_gelu: bool) -> Tensor:
        """x: [N, 2 F], gate first. Returns activate(gate) * up, [N, F]."""
        gate, up = x.chunk(2, -1)
        return (F.gelu(gate, approximate="tanh") if is_gelu else F.silu(gate)) * up

    def gate_gradient(self, x: Tensor, grad: Tensor, is_gelu: bool) -> Tensor:
        """x: [N, 2 F], grad: [N, F]. Returns the gradient of x, [N, 2 F]."""
        gate, up = x.float().chunk(2, -1)
        # Both are gate * sigmoid(inner(gate)): inner is gate for SiLU, 2 sqrt(2/pi) (g + 0.044715 g^3) for
        # GELU's tanh form.
        inner = 1.5957691216 * (gate + 0.044715 * gate**3) if is_gelu else gate
        slope = 1.5957691216 * (1 + 0.134145 * gate.square()) if is_gelu else 1.0
        share = inner.sigmoid()
        grad = grad.float()
        grad_gate = grad * up * share * (1 + gate * (1 - share) * slope)
        return torch.cat([grad_gate, grad * gate * share], -1).to(x.dtype)

    def rms_norm_gradient(
        self, x: Tensor, weight: Tensor, grad: Tensor, eps: float, offset: float
    ) -> tuple[Tensor, Tensor]:
        """x, grad: [..., width]. Returns the gradients of x and, in float32, of the weight."""
        wide, grad = x.float(), grad.float()
        inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        normed = wide * inverse
        scaled = grad * (offset + weight.float())
        grad_x = inverse * (scaled - normed * (scaled * normed).mean(-1, keepdim=True))
        return grad_x.to(x.dtype), (grad * normed).flatten(0, -2).sum(0)

    def score_gradient(
        self, logits: Tensor, inverse_temperatures: Tensor, tokens: Tensor, logprobs: Tensor, grads: Tensor
    ) -> Tensor:
        """d logprob / d logit = (1 if it is the token else 0, minus its probability) / temperature."""
        del logprobs  # a sum taken anew keeps the probabilities' sum at 1 here
        inside = _inside(tokens, logits.shape[1])
        grads = grads.masked_fill(~inside, float("nan"))
        grad_logits = (logits * inverse_temperatures[:, None]).softmax(-1).neg_()
        grad_logits.scatter_add_(1, tokens.where(inside, 0)[:, None], torch.ones_like(grads)[:, None])
        return grad_logits.mul_((grads * inverse_temperatures)[:, None])

    def squares(self, x: Tensor) -> Tensor:
        """x: [R, width]. Returns the sum of the squares of each row, [R] float64: rows one by one, so the
        number of threads changes no bit.
        """
        return x.square().sum(1).double()

    def store(self, keys: Tensor, values: Tensor, cache: LayerCache, slots: Tensor) -> None:
        """keys: [N, K, E], values: [N, K, Ev] into slots [N] of the cache."""
        blocks, places = slots // KEYS_PER_BLOCK, slots % KEYS_PER_BLOCK
        cache.keys[blocks, :, :, places] = keys
        cache.values[blocks, :, places] = values

    def attend(self, queries: Tensor, cache: LayerCache, rows: Rows, shape: AttentionShape) -> Tensor:
        """queries: [N, H, E]. Returns [N, H, Ev].

        Tokens that are alone in their row (decode) are one batch; the others (prefill) go row by row.
        """
        out = queries.new_empty((*queries.shape[:2], cache.values.shape[3]))
        single = slice(0, rows.num_single)
        if rows.num_single:
            tables = rows.tables[rows.row[single].long()]
            seen = rows.visible[single, None]
            out[single] = self._attend(queries[single, None], cache, tables, seen, shape)[:, 0]
        for first, last in rows.runs():
            table = rows.tables[rows.row[first].long()][None]
            for start in range(first, last, _QUERIES_AT_ONCE):
                part = slice(start, min(start + _QUERIES_AT_ONCE, last))
                seen = rows.visible[None, part]
                out[part] = self._attend(queries[None, part], cache, table, seen, shape)[0]
        return out

    def attention_gradient(
        self, queries: Tensor, keys: Tensor, values: Tensor, grad: Tensor, rows: Rows, shape: AttentionShape
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See attention_gradient.backward."""
        return attention_gradient.backward(queries, keys, values, grad, rows, shape)

    def _attend(
        self, queries: Tensor, cache: LayerCache, tables: Tensor, visible: Tensor, shape: AttentionShape
    ) -> Tensor:
        """queries: [B, T, H, E]; tables: [B, blocks]; visible: [B, T]. Returns [B, T, H, Ev]."""
        num_rows, num_queries, num_heads, width = queries.shape
        kv_heads = cache.keys.shape[1]
        # On a GPU nobody waits to learn the longest row, and a captured graph could not: the caller cuts the
        # table.
        used = tables if tables.is_cuda else tables[:, : -(-int(visible.max()) // KEYS_PER_BLOCK)]
        keys = (
            cache.keys[used.long()].permute(0, 2, 3, 1, 4).reshape(num_rows, kv_heads, width, -1)
        )  # [B, K, E, S]
        values = (
            cache.values[used.long()].permute(0, 2, 1, 3, 4).reshape(num_rows, kv_heads, keys.shape[3], -1)
        )
        group = num_heads // kv_heads
        folded = queries.view(num_rows, num_queries, kv_heads, group, width).permute(0, 2, 1, 3, 4)
        folded = folded.reshape(num_rows, kv_heads, num_queries * group, width)
        count = folded.shape[2]
        folded = F.pad(folded, (0, 0, 0, -count % _FOLD))
        scores = (folded @ keys).float()[:, :, :count] * shape.scale
        if shape.softcap:
            scores = shape.softcap * torch.tanh(scores / shape.softcap)
        scores = scores.view(num_rows, kv_heads, num_queries, group, -1)
        position = torch.arange(scores.shape[-1], device=scores.device)
        seen = visible[:, None, :, None, None]
        hidden = position >= seen
        if shape.window:
            hidden = hidden | (position < seen - shape.window)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1).to(queries.dtype)
        weights = F.pad(weights.view(num_rows, kv_heads, count, -1), (0, 0, 0, -count % _FOLD))
        mixed = (weights @ values)[:, :, :count].view(num_rows, kv_heads, num_queries, group, -1)
        return mixed.permute(0, 2, 1, 3, 4).reshape(num_rows, num_queries, num_heads, -1)

    def categorical(
        self, logits: Tensor, inverse_temperatures: Tensor, uniforms: Tensor | None, tokens: Tensor | None
    ) -> Categorical:
        """logits: [R, V] float32. Draws a token for each row by the inverse distribution function, or scores.

        Sums are running sums in float64: torch's log_softmax adds floats up in floats (1e-5 off at 152 k
        words) and its sum splits a lone row among threads. A lone row is computed twice: CUDA has another
        kernel there.
        """
        if len(logits) == 1:
            uniforms = None if uniforms is None else uniforms.expand(2)
            tokens = None if tokens is None else tokens.expand(2)
            twice = self.categorical(logits.expand(2, -1), inverse_temperatures.expand(2), uniforms, tokens)
            return Categorical(*(each[:1] for each in twice))
        is_greedy = inverse_temperatures <= 0
        scale = torch.where(is_greedy, 1.0, inverse_temperatures)
        top = logits.amax(-1, keepdim=True)
        below = (logits - top) * scale[:, None]
        weights = below.exp()
        running = weights.double().cumsum(-1)
        total = running[:, -1]
        if tokens is None:
            assert uniforms is not None
            drawn = torch.searchsorted(running, uniforms.double()[:, None] * total[:, None], right=True)[:, 0]
            last = (logits.shape[1] - 1) - weights.flip(-1).gt(0).int().argmax(-1)
            tokens = torch.where(is_greedy, logits.argmax(-1), torch.minimum(drawn, last))
        inside = _inside(tokens, logits.shape[1])
        chosen = logits.gather(1, tokens.where(inside, 0)[:, None])[:, 0].masked_fill(~inside, float("nan"))
        logprobs = ((chosen.double() - top[:, 0].double()) * scale.double() - total.log()).float()
        moments = (weights * below.clamp(min=-1e4)).double().cumsum(-1)[:, -1]
        entropies = (total.log() - moments / total).float()
        broken = logits.isnan().any(-1) | ~top[:, 0].isfinite()
        nan = float("nan")
        logprobs, entropies = logprobs.masked_fill(broken, nan), entropies.masked_fill(broken, nan)
        return Categorical(tokens.masked_fill(broken, -1), logprobs, entropies)


def _inside(tokens: Tensor, vocabulary: int) -> Tensor:
    """Which tokens are of the vocabulary: an index that is not would break the whole device on CUDA."""
    return (tokens >= 0) & (tokens < vocabulary)
