"""flops.py against torch's own count of the products that a plain decoder and transformers really run."""

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import FAMILIES
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from groschen.errors import BadRequest
from groschen.model.config import ModelConfig
from groschen.model.flops import (
    Flops,
    body_weights,
    forward_flops,
    generation_flops,
    head_weights,
    palm_training_flops_per_token,
    scoring_flops,
    training_flops,
)


def config_of(family: str) -> ModelConfig:
    return ModelConfig.from_json(FAMILIES[family])


class PlainDecoder:
    """Only the products of a decoder, one token at a time, with the keys that it really sees."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.queries, self.keys = (
            config.num_heads * config.head_width,
            config.num_kv_heads * config.head_width,
        )

        def weight(outputs: int, inputs: int) -> Tensor:
            return torch.full((outputs, inputs), 0.01, requires_grad=True)

        self.embedding = torch.ones(8, config.width, requires_grad=True)
        self.layers = [
            (
                weight(self.queries + 2 * self.keys, config.width),
                weight(config.width, self.queries),
                weight(2 * config.mlp_width, config.width),
                weight(config.width, config.mlp_width),
            )
            for _ in config.layers
        ]
        self.head = weight(config.vocab_size, config.width)

    def run(self, cache: list[list[Tensor]], count: int, has_head: bool) -> Tensor:
        """The next tokens after what cache[layer][position] holds; returns a sum to differentiate."""
        total = torch.zeros(())
        for _ in range(count):
            x = self.embedding[:1]
            for index, (qkv, out, gate_up, down) in enumerate(self.layers):
                query, own = F.linear(x, qkv).split([self.queries, 2 * self.keys], dim=1)
                cache[index].append(own)
                x = F.linear(self.attend(query, cache[index], self.config.layers[index].window), out)
                gate, up = F.linear(x, gate_up).chunk(2, dim=1)
                x = F.linear(gate * up, down)
            # Each output gets a gradient, as in a dense backward pass: also the prompt's last layer, which no
            # loss reads and which autograd would leave out here.
            total = total + (F.linear(x, self.head).sum() if has_head else x.sum())
        return total

    def attend(self, query: Tensor, kept: list[Tensor], window: int | None) -> Tensor:
        seen = torch.cat(kept if window is None else kept[-window:])
        keys, values = seen.view(len(seen), 2, self.config.num_kv_heads, -1).unbind(1)
        heads = query.view(self.config.num_kv_heads, -1, self.config.head_width)
        scores = torch.bmm(heads, keys.permute(1, 2, 0))
        return torch.bmm(scores, values.permute(1, 0, 2)).reshape(1, -1)

    def empty(self) -> list[list[Tensor]]:
        return [[] for _ in self.layers]


def count(work: object) -> int:
    with FlopCounterMode(display=False) as counter:
        assert callable(work)
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gemma3"])
def test_a_forward_pass_is_what_torch_counts_for_a_plain_decoder(family: str) -> None:
    config = config_of(family)
    decoder = PlainDecoder(config)
    assert count(lambda: decoder.run(decoder.empty(), 30, has_head=True)) == forward_flops(
        config, first=0, count=30, head_rows=30
    )


def test_a_sliding_window_of_20_costs_less_than_a_full_one_only_after_20_tokens() -> None:
    windowed, full = config_of("mistral"), config_of("llama")
    for first, is_less in ((0, False), (19, True)):
        costs = [forward_flops(c, first=first, count=20, head_rows=0) for c in (windowed, full)]
        assert (costs[0] < costs[1]) is is_less


def test_a_group_is_its_prompt_once_and_its_completions_without_their_last_tokens() -> None:
    config = config_of("qwen2")
    decoder = PlainDecoder(config)

    def generate() -> None:
        prompt = decoder.empty()
        decoder.run(prompt, 11, has_head=False)
        F.linear(decoder.embedding[:1], decoder.head)  # one row of logits, from which all samples are drawn
        for length in (5, 1, 8):
            decoder.run([list(layer) for layer in prompt], length - 1, has_head=True)

    assert generation_flops(config, 11, [5, 1, 8]) == Flops(count(generate))
    assert scoring_flops(config, 11, [5, 1, 8]) == generation_flops(config, 11, [5, 1, 8])


def test_a_cached_prompt_costs_only_its_rest() -> None:
    config = config_of("qwen2")
    whole, rest = (generation_flops(config, 40, [3], cached_tokens=n).model for n in (0, 32))
    assert whole - rest == forward_flops(config, first=0, count=32, head_rows=0)


def test_training_is_the_forward_and_both_gradients_of_the_plain_decoder() -> None:
    config = config_of("qwen2")
    decoder = PlainDecoder(config)

    def train() -> None:
        prompt = decoder.empty()
        start = decoder.run(prompt, 9, has_head=False)
        loss = start + F.linear(decoder.embedding[:1], decoder.head).sum()
        for length in (6, 4):
            loss = loss + decoder.run([list(layer) for layer in prompt], length - 1, has_head=True)
        loss.backward()

    assert training_flops(config, 9, [6, 4]).model == count(train)


def test_a_prompt_that_is_not_shared_is_paid_for_each_completion() -> None:
    config = config_of("qwen2")
    shared, alone = (
        training_flops(config, 9, [6, 4, 4], shares_prompt=is_shared).model for is_shared in (True, False)
    )
    assert alone - shared == 3 * 2 * forward_flops(config, first=0, count=9, head_rows=1)


def test_what_is_recomputed_counts_for_the_hardware_and_not_for_the_model() -> None:
    config = config_of("qwen2")
    forward = scoring_flops(config, 9, [6, 4]).model
    neither = training_flops(config, 9, [6, 4], recomputes_head=False)
    both = training_flops(config, 9, [6, 4], recomputes_layers=True, recomputes_head=True)
    assert both.model == neither.model
    assert both.recomputed - neither.recomputed == forward
    assert both.hardware == both.model + both.recomputed


def test_an_adapter_needs_no_weight_gradients_of_its_base() -> None:
    config = config_of("qwen2")
    full, adapter = training_flops(config, 9, [6]), training_flops(config, 9, [6], adapter_weights=0)
    tokens, head_rows = 9 + 5, 1 + 5
    assert full.model - adapter.model == 2 * (
        body_weights(config) * tokens + head_weights(config) * head_rows
    )
    with_weights = training_flops(config, 9, [6], adapter_weights=1000)
    assert with_weights.model - adapter.model == 6 * 1000 * tokens


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma2"])
def test_the_weights_are_those_that_transformers_multiplies_with(family: str) -> None:
    """transformers computes the whole square of attention; nothing else differs."""
    raw, config, tokens = FAMILIES[family], config_of(family), 16
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**raw, attn_implementation="eager"), attn_implementation="eager"
    )
    ids = torch.zeros(1, tokens, dtype=torch.long)
    with torch.no_grad():
        found = count(lambda: model(ids, use_cache=False))
    square = 4 * config.num_layers * config.num_heads * config.head_width * tokens**2
    products = forward_flops(config, first=0, count=tokens, head_rows=tokens)
    causal = square * (tokens + 1) / (2 * tokens)
    rope = found - (products - causal + square)
    assert 0 <= rope < 0.005 * found  # the angles of RoPE are a small product there


def test_palm_s_formula_is_ours_without_the_causal_half() -> None:
    config, context = config_of("qwen2"), 64
    palm = palm_training_flops_per_token(config, context)
    ours = 3 * forward_flops(config, first=0, count=context, head_rows=context) / context
    attention = 12 * config.num_layers * config.num_heads * config.head_width * context
    assert palm - ours == pytest.approx(attention * (1 - (context + 1) / (2 * context)))


def test_the_half_billion_model_has_358_and_136_million_weights() -> None:
    """The figures that the measurements of this project were made with."""
    raw = {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "max_position_embeddings": 32768, "tie_word_embeddings": True,
    }  # fmt: skip
    config = ModelConfig.from_json(raw)
    assert (round(body_weights(config) / 1e6), round(head_weights(config) / 1e6)) == (358, 136)


@pytest.mark.parametrize(("prompt", "lengths"), [(0, [3]), (4, []), (4, [3, 0])])
def test_a_group_without_prompt_or_completion_is_refused(prompt: int, lengths: list[int]) -> None:
    with pytest.raises(BadRequest, match="1 token or more"):
        generation_flops(config_of("qwen2"), prompt, lengths)


def test_more_cached_tokens_than_the_prompt_has_are_refused() -> None:
    with pytest.raises(BadRequest, match="prompt of 4 tokens, 4 cannot"):
        generation_flops(config_of("qwen2"), 4, [2], cached_tokens=4)
