"""How many floating-point operations a forward or a backward pass is, by formula; two for a multiply-add.

Counts what the result needs (`model`, the numerator of MFU) apart from what is done again to save memory
(`recomputed`, which only HFU counts). Products and attention are counted: the head once, the embedding not,
because looking up a row is no arithmetic. Leaves out norms, RoPE, activations, softmax, sampling and the
optimizer: together under 2 % of a 0.5B model.
Sources: 2 N a token forward, 6 N with both gradients, and model against hardware FLOPs: PaLM, arXiv
2204.02311, appendix B, but with the keys that a causal query really sees, half of its 12 L H Q T.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from groschen.errors import BadRequest
from groschen.model.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations of one piece of work. Numbers of several pieces add up."""

    model: float = 0.0  # what the result needs
    recomputed: float = 0.0  # done a second time instead of being kept

    @property
    def hardware(self) -> float:
        """What the processor really executes."""
        return self.model + self.recomputed

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.model + other.model, self.recomputed + other.recomputed)

    def __mul__(self, times: float) -> "Flops":
        return Flops(self.model * times, self.recomputed * times)


@dataclass(frozen=True, slots=True)
class _Forward:
    """One forward pass by its three kinds of products."""

    body: float
    attention: float
    head: float

    def __add__(self, other: "_Forward") -> "_Forward":
        return _Forward(self.body + other.body, self.attention + other.attention, self.head + other.head)

    @property
    def total(self) -> float:
        return self.body + self.attention + self.head


def body_weights(config: ModelConfig) -> int:
    """Weights that every token is multiplied with: the projections of attention and MLP of all layers."""
    queries, keys = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
    attention = config.width * (queries + 2 * keys) + queries * config.width
    return config.num_layers * (attention + 3 * config.width * config.mlp_width)


def head_weights(config: ModelConfig) -> int:
    """Weights that a scored or drawn token costs besides, tied to the embedding or not."""
    return config.width * config.vocab_size


def forward_flops(config: ModelConfig, *, first: int, count: int, head_rows: int) -> float:
    """`count` tokens of one sequence from position `first` on, what lies before them being in the cache.

    head_rows: of them, how many get logits.
    """
    return _forward(config, first, count, head_rows).total


def generation_flops(
    config: ModelConfig, prompt_tokens: int, completion_tokens: Sequence[int], *, cached_tokens: int = 0
) -> Flops:
    """A group: its prompt once, then each completion token by token.

    A completion of C tokens needs C - 1 forward tokens, since the last one drawn is not read again; the first
    one comes from the prompt's last hidden state, whose logits all samples share. cached_tokens: of the
    prompt, found in the prefix cache. Raises BadRequest for an empty prompt or completion.
    """
    return Flops(_group(config, prompt_tokens, completion_tokens, cached_tokens, is_shared=True).total)


def scoring_flops(
    config: ModelConfig, prompt_tokens: int, completion_tokens: Sequence[int], *, shares_prompt: bool = True
) -> Flops:
    """Logprobs of given completions without a gradient, as a reference or a teacher needs them."""
    return Flops(_group(config, prompt_tokens, completion_tokens, 0, is_shared=shares_prompt).total)


def training_flops(
    config: ModelConfig,
    prompt_tokens: int,
    completion_tokens: Sequence[int],
    *,
    shares_prompt: bool = True,
    recomputes_layers: bool = False,
    recomputes_head: bool = True,
    adapter_weights: int | None = None,
) -> Flops:
    """Forward and backward of one group, the head and the loss on completion tokens only.

    shares_prompt: the prompt is computed once for the group. recomputes_layers: activation checkpointing.
    recomputes_head: the logits are made again for the gradient, chunk by chunk. adapter_weights: weights of a
    LoRA adapter over a frozen base, which needs no weight gradients; None: every weight is trained.
    """
    forward = _group(config, prompt_tokens, completion_tokens, 0, is_shared=shares_prompt)
    products = forward.body + forward.head
    model = 3.0 * forward.total
    if adapter_weights is not None:
        tokens = forward.body / (2.0 * body_weights(config))
        model = 2.0 * products + 3.0 * forward.attention + 6.0 * adapter_weights * tokens
    recomputed = forward.attention / 2.0  # the scores: no gradient of attention keeps them
    recomputed += forward.body + forward.attention if recomputes_layers else 0.0
    recomputed += forward.head if recomputes_head else 0.0
    return Flops(model, recomputed)


def palm_training_flops_per_token(config: ModelConfig, context: int) -> float:
    """6 N + 12 L H Q T, without the causal half: for comparison with MFU figures that others publish."""
    weights = body_weights(config) + head_weights(config)
    return 6.0 * weights + 12.0 * config.num_layers * config.num_heads * config.head_width * context


def _group(
    config: ModelConfig, prompt_tokens: int, completion_tokens: Sequence[int], cached: int, *, is_shared: bool
) -> _Forward:
    if prompt_tokens < 1 or not completion_tokens or min(completion_tokens) < 1:
        raise BadRequest(
            f"a group needs a prompt and completions of 1 token or more, got a prompt of {prompt_tokens} and "
            f"completions of {list(completion_tokens)}"
        )
    if not 0 <= cached < prompt_tokens:
        raise BadRequest(f"of a prompt of {prompt_tokens} tokens, {cached} cannot come from the cache")
    prompt = _forward(config, cached, prompt_tokens - cached, 1)
    total = prompt
    for _ in range(0 if is_shared else len(completion_tokens) - 1):
        total += prompt
    for length in completion_tokens:
        total += _forward(config, prompt_tokens, length - 1, length - 1)
    return total


def _forward(config: ModelConfig, first: int, count: int, head_rows: int) -> _Forward:
    keys = sum(_keys_seen(first, count, layer.window) for layer in config.layers)
    return _Forward(
        body=2.0 * body_weights(config) * count,
        attention=4.0 * config.num_heads * config.head_width * keys,  # scores, and the mix of the values
        head=2.0 * head_weights(config) * head_rows,
    )


def _keys_seen(first: int, count: int, window: int | None) -> int:
    """Keys that the queries at positions first .. first + count - 1 see together, each itself included."""
    return _keys_up_to(first + count, window) - _keys_up_to(first, window)


def _keys_up_to(length: int, window: int | None) -> int:
    if window is None or length <= window:
        return length * (length + 1) // 2
    return window * (window + 1) // 2 + (length - window) * window
