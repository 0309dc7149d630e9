"""Shared prompts change no bit, and how groups are split changes no value."""

from dataclasses import replace

import pytest
import torch
from tests.tiny import FAMILIES, tiny_model
from tests.train.samples import scored_groups

from groschen.errors import Unsupported
from groschen.model.kvcache import Rows
from groschen.model.score import score
from groschen.model.transformer import Transformer
from groschen.train.batch import MicroBatch, Scored, batch, split
from groschen.train.optimizer import Optimizer, OptimizerSettings
from groschen.train.step import Objective, StepStats, accumulate

CPU = torch.device("cpu")


def one_batch(groups: list[list[Scored]]) -> MicroBatch:
    (found,) = batch(groups, "token", 30, 10**9, CPU).micro_batches
    return found


def logprobs_of(model: Transformer, micro_batch: MicroBatch) -> torch.Tensor:
    hidden = model(micro_batch.token_ids_N, micro_batch.rows, model.new_cache(micro_batch.num_blocks))
    return score(model, hidden[micro_batch.before_M], micro_batch.targets_M)[0]


def unshared_logprobs(model: Transformer, groups: list[list[Scored]]) -> torch.Tensor:
    """Every completion with a prompt of its own, whole sequences end to end."""
    flat = [each.completion for group in groups for each in group]
    ids = [[*c.prompt_ids, *c.token_ids] for c in flat]
    rows = Rows.of_sequences([len(row) for row in ids], CPU)
    hidden = model(
        torch.tensor([t for row in ids for t in row]), rows, model.new_cache(int(rows.tables.max()) + 1)
    )
    found, start = [], 0
    for row, completion in zip(ids, flat, strict=True):
        first = start + len(completion.prompt_ids) - 1
        found.append(
            score(model, hidden[first : start + len(row) - 1], torch.tensor(completion.token_ids))[0]
        )
        start += len(row)
    return torch.cat(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_prompt_gives_the_bits_that_the_engine_sampled_with(family: str) -> None:
    model = tiny_model(family)
    groups = scored_groups(model)
    model.requires_grad_(True)
    micro_batch = one_batch(groups)
    prompts = sum(len(group[0].completion.prompt_ids) for group in groups)
    assert len(micro_batch.token_ids_N) == prompts + sum(n - 1 for n in micro_batch.lengths)
    found = logprobs_of(model, micro_batch).detach()
    assert torch.equal(found, micro_batch.old_logprobs_M)
    assert torch.equal(found, unshared_logprobs(model, groups).detach())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_prompt_gives_the_gradient_of_prompts_of_their_own(family: str) -> None:
    gradients = []
    for is_shared in (True, False):
        model = tiny_model(family, torch.float32)
        groups = scored_groups(model)
        model.requires_grad_(True)
        weights = one_batch(groups).advantages_M
        found = logprobs_of(model, one_batch(groups)) if is_shared else unshared_logprobs(model, groups)
        (found * weights).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    for name, shared in gradients[0].items():
        own = gradients[1][name]
        assert float((shared - own).abs().max()) <= 2e-5 * float(own.abs().max()), name


def gradients_for(
    tokens_at_once: int, normalisation: str = "constant", dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    model = tiny_model("qwen3", dtype)
    groups = scored_groups(model)
    optimizer = Optimizer(model, OptimizerSettings())
    made = batch(groups, normalisation, 30, tokens_at_once, CPU)  # type: ignore[arg-type]
    for micro_batch in made.micro_batches:
        accumulate(model, micro_batch, Objective(), made.denominator, StepStats())
    return {name: p.grad for name, p in optimizer.parameters.items() if p.grad is not None}


@pytest.mark.parametrize("normalisation", ["constant", "token", "sequence"])
@pytest.mark.parametrize("tokens_at_once", [1, 90, 150, 400])
def test_the_update_is_the_same_for_every_split(tokens_at_once: int, normalisation: str) -> None:
    whole, parts = gradients_for(10**9, normalisation), gradients_for(tokens_at_once, normalisation)
    assert whole.keys() == parts.keys() and whole
    for name, gradient in whole.items():
        assert float((gradient - parts[name]).abs().max()) <= 1e-5 * float(gradient.abs().max()), name


def test_a_split_between_groups_keeps_the_value_where_gradients_flow_in_bfloat16() -> None:
    """Within a group it cannot: what its prompt receives is then rounded to bfloat16 in two parts."""
    whole, parts = (gradients_for(size, dtype=torch.bfloat16) for size in (10**9, 400))
    for name, gradient in whole.items():
        assert float((gradient - parts[name]).abs().max()) <= 1e-5 * float(gradient.abs().max()), name


def test_one_denominator_counts_the_whole_update_not_the_part() -> None:
    groups = scored_groups(tiny_model())
    completions = [each.completion for group in groups for each in group]
    num_tokens = sum(len(c.token_ids) for c in completions)
    expected = {"constant": len(completions) * 30, "token": num_tokens, "sequence": len(completions)}
    for name, denominator in expected.items():
        for tokens_at_once in (1, 200, 10**9):
            made = batch(groups, name, 30, tokens_at_once, CPU)  # type: ignore[arg-type]
            assert made.denominator == denominator
            assert made.num_trained_tokens == num_tokens


def test_completions_without_signal_count_where_they_are_said_to_and_tokens_never_do() -> None:
    groups = scored_groups(tiny_model())
    count, num_tokens = sum(map(len, groups)), sum(len(e.completion.token_ids) for g in groups for e in g)
    expected = {"constant": 4 * count * 30, "token": num_tokens, "sequence": 4 * count}
    for name, denominator in expected.items():
        assert batch(groups, name, 30, 200, CPU, 0.25).denominator == denominator  # type: ignore[arg-type]


def test_no_part_is_longer_than_asked_unless_it_is_one_completion() -> None:
    groups = scored_groups(tiny_model())
    for limit in (40, 120, 300):
        parts = list(split(groups, limit))
        for part in parts:
            fed = sum(
                len(g[0].completion.prompt_ids) + sum(len(e.completion.token_ids) - 1 for e in g)
                for g in part
            )
            assert fed <= limit or sum(map(len, part)) == 1
        assert [e for part in parts for group in part for e in group] == [e for g in groups for e in g]


def test_weights_of_the_sequence_mean_add_up_to_one_for_each_completion() -> None:
    groups = scored_groups(tiny_model())
    (made,) = batch(groups, "sequence", 30, 10**9, CPU).micro_batches
    sums = [float(part.sum()) for part in made.weights_M.split(list(made.lengths))]
    assert sums == pytest.approx([1.0] * len(made.lengths))


def test_a_completion_of_one_token_is_scored_from_its_prompt_alone() -> None:
    model = tiny_model()
    group = scored_groups(model, prompt_lengths=(20,))[0]
    short = replace(
        group[0].completion,
        token_ids=group[0].completion.token_ids[:1],
        logprobs=group[0].completion.logprobs[:1],
    )
    micro_batch = one_batch([[Scored(short, 1.0), *group[1:]]])
    assert torch.equal(logprobs_of(model, micro_batch).detach(), micro_batch.old_logprobs_M)
    assert micro_batch.lengths[0] == 1


def test_an_unknown_normalisation_is_named() -> None:
    with pytest.raises(Unsupported, match=r"'mean'.*constant"):
        batch(scored_groups(tiny_model()), "mean", 30, 100, CPU)  # type: ignore[arg-type]


def test_the_gradient_has_the_same_bits_with_one_thread_two_and_again() -> None:
    model = tiny_model("qwen3", hidden_size=256, intermediate_size=512, num_hidden_layers=1)
    groups = scored_groups(model, prompt_lengths=range(10, 60), group_size=8, max_tokens=60)
    made = batch(groups, "token", 60, 4096, CPU)
    assert made.num_trained_tokens > 10_000, "enough for torch to split the work between threads"
    optimizer = Optimizer(model, OptimizerSettings())
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 2, 2):
            torch.set_num_threads(threads)
            optimizer.forget_gradients()
            for micro_batch in made.micro_batches:
                accumulate(model, micro_batch, Objective(), made.denominator, StepStats())
            found.append({n: p.grad.clone() for n, p in optimizer.parameters.items() if p.grad is not None})
    finally:
        torch.set_num_threads(before)
    for name, gradient in found[0].items():
        assert all(torch.equal(gradient, other[name]) for other in found[1:]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_that_are_computed_again_give_the_same_bits_and_keep_less(family: str) -> None:
    """Shared prompts and several rows, so that the cache is written a second time while it is read."""
    model = tiny_model(family)
    made = one_batch(scored_groups(model, prompt_lengths=range(5, 12), group_size=4))
    optimizer = Optimizer(model, OptimizerSettings())
    found, kept, stats = [], [], [StepStats(), StepStats()]
    for again, seen in zip((False, True), stats, strict=True):
        model.recomputes_layers = again
        held = set[int]()

        def hold(tensor: torch.Tensor, held: set[int] = held) -> torch.Tensor:
            held.add(tensor.untyped_storage().data_ptr())
            return tensor

        optimizer.forget_gradients()
        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            hidden = model(made.token_ids_N, made.rows, model.new_cache(made.num_blocks))
        kept.append(len(held))
        del hidden
        accumulate(model, made, Objective(), 100.0, seen)
        found.append({n: p.grad.clone() for n, p in optimizer.parameters.items() if p.grad is not None})
    assert stats[0].logprob_gap_max == stats[1].logprob_gap_max == 0.0
    assert found[0].keys() == found[1].keys() and len(found[0]) > 5
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name
    assert kept[1] < kept[0] / 2
