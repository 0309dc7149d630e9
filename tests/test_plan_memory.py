"""plan_memory.py against what models really hold: their parameters, and the tensors that autograd keeps."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tiny import FAMILIES, tiny_model
from torch.autograd.graph import saved_tensors_hooks

from groschen.errors import DoesNotFit
from groschen.model.config import ModelConfig
from groschen.model.kvcache import Rows
from groschen.plan_memory import (
    Layout,
    MemoryPlan,
    activation_floats,
    parameter_count,
    plan_memory,
    refuse_if_too_much,
)

LAYOUT = Layout(weight_bytes=2, activation_dtype=torch.float32, product="compiled")
HALF_BILLION = ModelConfig.from_json(
    {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "max_position_embeddings": 32768, "tie_word_embeddings": True,
    }
)  # fmt: skip


def planned(config: ModelConfig = HALF_BILLION, **changes: Any) -> MemoryPlan:
    settings = {
        "available": 20 << 30,
        "cache_tokens": 64 * 300,
        "micro_batch_tokens": 1024,
        "scored_tokens": 512,
        **changes,
    }
    return plan_memory(config, settings.pop("layout", LAYOUT), **settings)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_parameters_are_counted_as_the_model_has_them(family: str) -> None:
    model = tiny_model(family)
    assert parameter_count(model.config) == sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_kept_activations_are_about_what_autograd_saves(family: str) -> None:
    """Each saved storage once, without parameters; without what only passes through a layer."""
    model, tokens = tiny_model(family), 200
    model.requires_grad_(True)
    parameters = {each.untyped_storage().data_ptr() for each in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters and tensor.is_floating_point():
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    rows = Rows.of_sequences([tokens], torch.device("cpu"))
    cache = model.new_cache(-(-tokens // 16))
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model(torch.arange(tokens) % 250, rows, cache)
    angles = sum(each.numel() * 4 for pair in model._angles.values() for each in pair)
    saved = (sum(kept.values()) - angles) / tokens / model.activation_dtype.itemsize
    passing = 2 * model.config.width + 6 * model.config.mlp_width
    estimate = activation_floats(model.config, recomputes_layers=False) - passing
    assert hidden.requires_grad
    assert estimate / 1.15 <= saved <= estimate * 1.15


def test_full_training_holds_sixteen_bytes_more_for_each_weight_than_the_model() -> None:
    memory = planned()
    count = parameter_count(HALF_BILLION)
    assert memory.weights == 2 * count
    assert memory.master_weights + memory.gradients + memory.optimizer == 16 * count
    assert memory.total == sum(size for _, size in memory.parts)


def test_an_adapter_holds_optimizer_state_for_its_own_weights_only() -> None:
    memory = planned(adapter_weights=1_000_000)
    assert memory.optimizer == 8_000_000
    assert memory.total < planned().total - 7e9


def test_recomputing_layers_and_smaller_micro_batches_hold_less() -> None:
    whole = planned().activations
    assert planned(recomputes_layers=True).activations < whole / 5
    assert planned(micro_batch_tokens=512).activations == pytest.approx(whole / 2, rel=0.001)


@pytest.mark.parametrize(("product", "times"), [("compiled", 2), ("onednn", 2), ("widened", 4), ("plain", 4)])
def test_packed_weights_take_what_the_product_of_the_machine_needs(product: str, times: int) -> None:
    products = round((358 + 136) * 1e6)
    packed = planned(layout=replace(LAYOUT, product=product)).packed_weights
    assert packed == pytest.approx(times * products, rel=0.003)


def test_a_product_that_reads_the_weight_itself_packs_nothing() -> None:
    layout = replace(LAYOUT, product="plain", activation_dtype=torch.bfloat16)
    assert planned(layout=layout).packed_weights == 0


def test_a_reference_costs_a_second_model() -> None:
    memory = planned(has_reference=True)
    assert memory.reference == memory.weights + memory.packed_weights


def test_what_does_not_fit_is_refused_with_its_parts_and_the_greatest_lever_first() -> None:
    refuse_if_too_much(planned())
    with pytest.raises(DoesNotFit, match=r"needs \d+\.\d GB and 4\.0 GB .*; train an adapter") as caught:
        refuse_if_too_much(planned(available=4_000_000_000))
    assert "optimizer 3.95" in str(caught.value)
    with pytest.raises(DoesNotFit, match="; lower the tokens of a micro-batch"):
        refuse_if_too_much(planned(available=4_000_000_000, micro_batch_tokens=16384))
    with pytest.raises(DoesNotFit, match="; let fewer rows decode together"):
        refuse_if_too_much(planned(available=4_000_000_000, cache_tokens=1_000_000))


def test_a_run_that_fits_exactly_is_not_refused() -> None:
    memory = planned()
    refuse_if_too_much(replace(memory, available=memory.total))
    with pytest.raises(DoesNotFit):
        refuse_if_too_much(replace(memory, available=memory.total - 1))
