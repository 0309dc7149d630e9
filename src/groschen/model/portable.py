"""The operations of a model in plain torch: on GPUs, on CPUs without a C compiler, and as the oracle of the
compiled ones.

The same methods as `compiled.py`, each row computed on its own so that a row's bits do not depend on its
neighbours. Ordered, as on GPUs, every sum that a row's bits depend on is one of `ordered.py`. Otherwise it is
one of torch's, and exact as far as its kernels on a CPU allow; `exactness.py` probes how far that is.
Attention is folded by hand there (queries of one key/value head are rows of one product), because fused
kernels change their order of additions with the shape of the batch.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from groschen.model import attention_gradient, ordered
from groschen.model.kvcache import KEYS_PER_BLOCK, LayerCache, Rows
from groschen.model.shapes import AttentionShape, Categorical

_QUERIES_AT_ONCE = 256  # bounds the scores of a long prefill; does not change a bit
_FLOATS_AT_ONCE = 1 << 26  # of ordered attention, 256 MB; does not change a bit either
_FOLD = 8  # rows of a product are padded to a multiple: fp32 kernels have tails of their own


@dataclass(frozen=True)
class PortableOperations:
    """Plain torch for one type of activations."""

    activation_dtype: torch.dtype
    name: str = "portable"
    is_ordered: bool = False  # whether the order of sums is ours, or left to torch

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        """x: [..., width]. Returns x / rms(x) * (offset + weight)."""
        wide = x.float()
        squares = wide.square()
        if self.is_ordered:
            mean = ordered.total(squares, -1)[..., None] * (1 / x.shape[-1])
        else:
            mean = squares.mean(-1, keepdim=True)
        quotient = wide * torch.rsqrt(mean + eps)
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
        # Not scatter_add_: a GPU adds in any order, and there is but one number to add.
        places = tokens.where(inside, 0)[:, None]
        grad_logits.scatter_(1, places, grad_logits.gather(1, places) + 1)
        return grad_logits.mul_((grads * inverse_temperatures)[:, None])

    def squares(self, x: Tensor) -> Tensor:
        """x: [R, width]. Returns the sum of the squares of each row, [R] float64: rows one by one, so the
        number of threads changes no bit.
        """
        return x.square().sum(1).double()

    def store(self, keys: Tensor, values: Tensor, cache: LayerCache, slots: Tensor) -> None:
        """keys: [N, K, E], values: [N, K, Ev] into slots [N] of the cache."""
        if not keys.is_cpu:  # a position's numbers lie together there: see KeyValueCache
            cache.keys.permute(0, 3, 1, 2).flatten(0, 1)[slots] = keys
            cache.values.transpose(1, 2).flatten(0, 1)[slots] = values
            return
        blocks, places = slots // KEYS_PER_BLOCK, slots % KEYS_PER_BLOCK
        cache.keys[blocks, :, :, places] = keys
        cache.values[blocks, :, places] = values

    def attend(self, queries: Tensor, cache: LayerCache, rows: Rows, shape: AttentionShape) -> Tensor:
        """queries: [N, H, E]. Returns [N, H, Ev].

        Tokens that are alone in their row (decode) are one batch; the others (prefill) go row by row.
        """
        out = queries.new_empty((*queries.shape[:2], cache.values.shape[3]))
        attend = self._attend_ordered if self.is_ordered else self._attend
        single = slice(0, rows.num_single)
        if rows.num_single:
            tables = rows.tables[rows.row[single].long()]
            seen = rows.visible[single, None]
            out[single] = attend(queries[single, None], cache, tables, seen, shape)[:, 0]
        for first, last, row, position in rows.runs():
            for start in range(first, last, _QUERIES_AT_ONCE):
                part = slice(start, min(start + _QUERIES_AT_ONCE, last))
                used = -(-(position + part.stop - first) // KEYS_PER_BLOCK)
                table, seen = rows.tables[row : row + 1, :used], rows.visible[None, part]
                out[part] = attend(queries[None, part], cache, table, seen, shape)[0]
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
        used = tables[:, : -(-int(visible.max()) // KEYS_PER_BLOCK)]
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
        # What lies behind a row may be anything, of another row or none, and 0 times a NaN is not 0.
        is_behind = position >= visible.amax(1, keepdim=True)
        values.masked_fill_(is_behind[:, None, :, None], 0)
        seen = visible[:, None, :, None, None]
        hidden = position >= seen
        if shape.window:
            hidden = hidden | (position < seen - shape.window)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1).to(queries.dtype)
        weights = F.pad(weights.view(num_rows, kv_heads, count, -1), (0, 0, 0, -count % _FOLD))
        mixed = (weights @ values)[:, :, :count].view(num_rows, kv_heads, num_queries, group, -1)
        return mixed.permute(0, 2, 1, 3, 4).reshape(num_rows, num_queries, num_heads, -1)

    def _attend_ordered(
        self, queries: Tensor, cache: LayerCache, tables: Tensor, visible: Tensor, shape: AttentionShape
    ) -> Tensor:
        """As `_attend`, for one query in each row or one row of queries: some at a time, to bound what is
        held.
        """
        floats = queries.shape[2] * queries.shape[3] * tables.shape[1] * KEYS_PER_BLOCK
        at_once = max(1, _FLOATS_AT_ONCE // floats)
        dim = 0 if len(queries) > 1 else 1
        pairs = zip(torch.split(queries, at_once, dim), torch.split(visible, at_once, dim), strict=True)
        if dim == 0:
            given = zip(pairs, torch.split(tables, at_once), strict=True)
            return torch.cat([self._attend_some(*pair, cache, part, shape) for pair, part in given])
        return torch.cat([self._attend_some(*pair, cache, tables, shape) for pair in pairs], 1)

    def _attend_some(
        self, queries: Tensor, visible: Tensor, cache: LayerCache, tables: Tensor, shape: AttentionShape
    ) -> Tensor:
        """Every product is a number of its own and every sum one of `ordered.py`: over the width of a head
        for a score, over positions for the rest, where a position that is not seen adds an exact zero.
        """
        num_rows, num_queries, num_heads, width = queries.shape
        kv_heads, blocks = cache.keys.shape[1], tables.long()
        keys = cache.keys.permute(0, 3, 1, 2)[blocks].flatten(1, 2)  # [B, S, K, E]
        values = cache.values.transpose(1, 2)[blocks].flatten(1, 2)  # [B, S, K, Ev]
        asked = queries.view(num_rows, num_queries, 1, kv_heads, num_heads // kv_heads, width).float()
        scores = ordered.total(asked * keys[:, None, :, :, None].float(), -1) * shape.scale  # [B, T, S, K, G]
        if shape.softcap:
            scores = shape.softcap * torch.tanh(scores / shape.softcap)
        position = torch.arange(keys.shape[1], device=keys.device)
        hidden = position >= visible[..., None]
        if shape.window:
            hidden = hidden | (position < visible[..., None] - shape.window)
        hidden = hidden[..., None, None]
        scores = scores.masked_fill(hidden, float("-inf"))
        weights = (scores - scores.amax(2, keepdim=True)).exp()
        # What is not seen may be anything, of another row or none, and 0 times a NaN is not 0.
        seen_values = values[:, None, :, :, None].float().masked_fill(hidden[..., None], 0)
        mixed = ordered.total(weights[..., None] * seen_values, 2) / ordered.total(weights, 2)[..., None]
        return mixed.to(queries.dtype).view(num_rows, num_queries, num_heads, -1)

    def categorical(
        self, logits: Tensor, inverse_temperatures: Tensor, uniforms: Tensor | None, tokens: Tensor | None
    ) -> Categorical:
        """logits: [R, V] float32. Draws a token for each row by the inverse distribution function, or scores.

        Sums are running sums in float64: torch's log_softmax adds floats up in floats (1e-5 off at 152 k
        words) and its sum splits a lone row among threads.
        """
        is_greedy = inverse_temperatures <= 0
        scale = torch.where(is_greedy, 1.0, inverse_temperatures)
        top = logits.amax(-1, keepdim=True)
        below = (logits - top) * scale[:, None]
        weights = below.exp()
        total, drawn = (_draw_ordered if self.is_ordered else _draw)(weights.double(), uniforms)
        if tokens is None:
            assert drawn is not None, "neither tokens nor numbers to draw them with"
            tokens = torch.where(is_greedy, logits.argmax(-1), drawn)
        inside = _inside(tokens, logits.shape[1])
        chosen = logits.gather(1, tokens.where(inside, 0)[:, None])[:, 0].masked_fill(~inside, float("nan"))
        logprobs = ((chosen.double() - top[:, 0].double()) * scale.double() - total.log()).float()
        moments = (weights * below.clamp(min=-1e4)).double()
        moments = ordered.total(moments, -1) if self.is_ordered else moments.cumsum(-1)[:, -1]
        entropies = (total.log() - moments / total).float()
        broken = logits.isnan().any(-1) | ~top[:, 0].isfinite()
        nan = float("nan")
        logprobs, entropies = logprobs.masked_fill(broken, nan), entropies.masked_fill(broken, nan)
        return Categorical(tokens.masked_fill(broken, -1), logprobs, entropies)


def _inside(tokens: Tensor, vocabulary: int) -> Tensor:
    """Which tokens are of the vocabulary: an index that is not would break the whole device on CUDA."""
    return (tokens >= 0) & (tokens < vocabulary)


def _draw(weights_RV: Tensor, uniforms_R: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The sum of each row of float64 weights and, with uniform numbers, the place at which each points."""
    running_RV = weights_RV.cumsum(-1)
    total_R = running_RV[:, -1]
    if uniforms_R is None:
        return total_R, None
    targets_R = uniforms_R.double() * total_R
    drawn_R = torch.searchsorted(running_RV, targets_R[:, None], right=True)[:, 0]
    last_R = (weights_RV.shape[1] - 1) - weights_RV.flip(-1).gt(0).int().argmax(-1)
    return total_R, torch.minimum(drawn_R, last_R)


def _draw_ordered(weights_RV: Tensor, uniforms_R: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The same by sums in an order of ours."""
    tree = ordered.SumTree.of(weights_RV)
    return tree.total, None if uniforms_R is None else tree.find(uniforms_R.double() * tree.total)
