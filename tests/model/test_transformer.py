"""Every family and every switch of the decoder against transformers: logits, greedy tokens and gradients."""

import warnings
from typing import Any

import pytest
import torch
import transformers
from tests.tiny import tiny_engine
from torch import Tensor

from groschen.model.config import ModelConfig
from groschen.model.kvcache import Rows
from groschen.model.score import score
from groschen.model.transformer import Transformer
from groschen.records import Request, SamplingParams

_BASE = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 144, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": None,
}  # fmt: skip
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 64}
_SLIDING = {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1}
_GEMMA = {"head_dim": 32, "sliding_window": 20, "query_pre_attn_scalar": 48}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama with llama3 RoPE": ("LlamaConfig", {"rope_parameters": _LLAMA3}),
    "llama with linear RoPE": (
        "LlamaConfig",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}},
    ),
    "llama with YaRN": ("LlamaConfig", {"rope_parameters": _YARN}),
    "llama with YaRN of exact borders": ("LlamaConfig", {"rope_parameters": {**_YARN, "truncate": False}}),
    "llama with every bias": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    "llama with an odd number of MLP units": ("LlamaConfig", {"intermediate_size": 145}),
    "llama with heads wider than the model": ("LlamaConfig", {"head_dim": 48}),
    "llama without shared keys": ("LlamaConfig", {"num_key_value_heads": 4}),
    "smollm (tied, 3 heads share)": (
        "LlamaConfig",
        {"tie_word_embeddings": True, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 144},
    ),
    "mistral with a window": ("MistralConfig", {"sliding_window": 20}),
    "mistral without a window": ("MistralConfig", {"sliding_window": None}),
    "qwen2": ("Qwen2Config", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2 tied, some layers sliding": ("Qwen2Config", {"tie_word_embeddings": True, **_SLIDING}),
    "qwen3": ("Qwen3Config", {"head_dim": 32}),
    "qwen3 with YaRN, sliding": ("Qwen3Config", {"head_dim": 32, "rope_parameters": _YARN, **_SLIDING}),
    "gemma2 with both soft-caps": (
        "Gemma2Config",
        {**_GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 12.0},
    ),
    "gemma3": ("Gemma3TextConfig", _GEMMA),
    "gemma3 with one key head": ("Gemma3TextConfig", {**_GEMMA, "num_key_value_heads": 1}),
}


def reference(variant: str, spread: float = 0.08, **more: Any) -> Any:
    """A transformers model with random weights whose norms and biases matter."""
    name, changes = VARIANTS[variant]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(transformers, name)(**{**_BASE, **changes, **more})
        config._attn_implementation = "eager"
        model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    generator = torch.Generator().manual_seed(len(variant))
    for parameter_name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm = "norm" in parameter_name
        centre = 1.0 if is_norm and "gemma" not in variant else 0.0
        parameter.data.copy_(centre + noise * (0.2 if parameter.dim() == 1 else spread))
    return model


def copied(model: Any, dtype: torch.dtype) -> Transformer:
    """Our decoder with the same weights."""
    ours = Transformer(ModelConfig.from_json(model.config.to_dict()), dtype)
    theirs = dict(model.state_dict())
    if ours.config.has_tied_head:
        del theirs["lm_head.weight"]
    tensors = ours.tensors()
    assert tensors.keys() == theirs.keys()
    for name, tensor in tensors.items():
        tensor.copy_(theirs[name])
    return ours


def our_logits(model: Transformer, token_ids_BT: Tensor) -> Tensor:
    rows = Rows.of_sequences([token_ids_BT.shape[1]] * len(token_ids_BT), torch.device("cpu"))
    cache = model.new_cache(int(rows.tables.max()) + 1)
    return model.logits(model(token_ids_BT.flatten(), rows, cache)).view(*token_ids_BT.shape, -1)


def some_ids(num_rows: int, length: int) -> Tensor:
    return torch.randint(0, 300, (num_rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_fp32_logits_are_within_1e_4_of_transformers(variant: str) -> None:
    theirs, token_ids = reference(variant), some_ids(2, 150)
    with torch.no_grad():
        expected = theirs(token_ids).logits
        found = our_logits(copied(theirs, torch.float32), token_ids)
    assert expected.std() > 0.2
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("head_dim", [2, 4, 6, 12, 24, 40])
def test_heads_that_leave_a_rest_beside_whole_vectors_are_computed_like_any(head_dim: int) -> None:
    """As transformers, and with the bits of a row alone and of layers run one by one."""
    theirs, token_ids = reference("llama", head_dim=head_dim), some_ids(3, 70)
    ours = copied(theirs, torch.float32)
    with torch.no_grad():
        expected, found = theirs(token_ids).logits, our_logits(ours, token_ids)
        assert torch.equal(our_logits(ours, token_ids[:1]), found[:1])
    assert (found - expected).abs().max() < 1e-4
    assert torch.equal(our_logits(ours, token_ids).detach(), found)


def make_decisive(model: Any) -> None:
    """Each word now speaks for a certain next one about as loudly as the layers speak for any.

    A plain random model is no judge of greedy decoding: of 300 words the best two are often nearer to each
    other than bfloat16 rounds (0.05 of their spread), so that 64 equal tokens would be luck.
    """
    embedding = model.get_input_embeddings().weight.data
    embedding.mul_(1.0 / embedding.std())
    if not model.config.tie_word_embeddings:
        model.lm_head.weight.data.copy_(embedding.roll(7, 0) * 0.1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_64_greedy_tokens_in_bf16_equal_those_of_transformers(variant: str) -> None:
    theirs, prompt = reference(variant), some_ids(1, 30)
    make_decisive(theirs)
    theirs = theirs.bfloat16()
    with torch.no_grad():
        expected = theirs.generate(prompt, max_new_tokens=64, do_sample=False, eos_token_id=None)
    engine = tiny_engine(copied(theirs, torch.bfloat16))
    sampling = SamplingParams(max_tokens=64, temperature=0.0, ignore_end=True)
    (completion,) = engine.generate([Request(prompt_ids=tuple(prompt[0].tolist()), sampling=sampling)])[0]
    assert list(completion.token_ids) == expected[0, 30:].tolist()


@pytest.mark.parametrize("variant", VARIANTS)
def test_bf16_prefers_another_word_than_transformers_only_where_both_are_level(variant: str) -> None:
    """A random model, 300 positions: another best word is allowed if float32 sees the two closer than 0.15 of
    the spread.
    """
    theirs, token_ids = reference(variant), some_ids(2, 150)
    with torch.no_grad():
        exact = theirs(token_ids).logits
        expected = theirs.bfloat16()(token_ids).logits.argmax(-1)
        found = our_logits(copied(theirs, torch.bfloat16), token_ids).argmax(-1)
    assert (found == expected).float().mean() > 0.9
    lead = (exact.gather(2, found[..., None]) - exact.gather(2, expected[..., None])).abs()
    assert lead.max() < 0.15 * exact.std()


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_a_training_forward_equal_those_of_transformers(variant: str) -> None:
    theirs, token_ids = reference(variant), some_ids(2, 60)
    ours = copied(theirs, torch.float32)
    weights = torch.linspace(-1, 1, 2 * 59)
    logits = theirs(token_ids).logits[:, :-1].log_softmax(-1)
    (logits.gather(2, token_ids[:, 1:, None])[..., 0].flatten() * weights).sum().backward()
    rows = Rows.of_sequences([60, 60], torch.device("cpu"))
    hidden = ours(token_ids.flatten(), rows, ours.new_cache(8)).view(2, 60, -1)
    logprobs, _ = score(ours, hidden[:, :-1].flatten(0, 1), token_ids[:, 1:].flatten())
    (logprobs * weights).sum().backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        for part, found in ours.named_views(name, parameter.grad).items():
            gradient = expected[part]
            assert gradient is not None
            assert (found - gradient).abs().max() <= 2e-5 * gradient.abs().max() + 1e-7, part


def test_a_stale_packed_weight_is_never_used() -> None:
    model = copied(reference("qwen2"), torch.float32)
    token_ids = some_ids(1, 20)
    with torch.no_grad():
        before = our_logits(model, token_ids)
        model.tensors()["model.layers.0.mlp.up_proj.weight"].mul_(1.5)
        after = our_logits(model, token_ids)
    assert not torch.equal(before, after)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_run_in_one_call_have_the_bits_of_layers_run_one_by_one(
    variant: str, dtype: torch.dtype
) -> None:
    """The engine's way and the trainer's: without and with gradients."""
    model, token_ids = copied(reference(variant), dtype), some_ids(3, 40)
    with torch.no_grad():
        fused = our_logits(model, token_ids)
    assert torch.equal(fused, our_logits(model, token_ids).detach())
