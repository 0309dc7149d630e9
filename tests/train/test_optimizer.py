"""The optimizer against AdamW's formulas, its masters, and its state on the way to a file and back."""

import math

import pytest
import torch
from tests.tiny import tiny_model

from groschen.errors import BadFile
from groschen.train.alarms import RunStopped
from groschen.train.optimizer import Optimizer, OptimizerSettings, learning_rate


class Saved:
    """Tensors as a file would give them."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = {name: tensor.clone() for name, tensor in tensors.items()}

    def names(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def read(self, name: str) -> torch.Tensor:
        return self.tensors[name]


SETTINGS = OptimizerSettings(learning_rate=1e-2, weight_decay=0.1, max_grad_norm=0.5)


def give_gradients(optimizer: Optimizer, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    given = {n: torch.randn(p.shape, generator=generator) for n, p in optimizer.parameters.items()}
    for own, grad in zip(given.values(), optimizer.gradients(), strict=True):
        grad.add_(own)  # as micro-batches do: what a step does not forget stays in the next
    return given


def test_three_steps_are_those_of_the_paper() -> None:
    optimizer = Optimizer(tiny_model(), SETTINGS)
    name = "layers.1.mlp.down_proj.weight"
    expected = optimizer.masters[name].double().clone()
    first, second = torch.zeros_like(expected), torch.zeros_like(expected)
    for step in range(1, 4):
        given = give_gradients(optimizer, step)
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in given.values()))
        assert optimizer.step(1e-2) == pytest.approx(norm, rel=1e-5)
        g = given[name].double() * min(1.0, 0.5 / norm)
        first = 0.9 * first + 0.1 * g
        second = 0.99 * second + 0.01 * g * g
        expected *= 1 - 1e-2 * 0.1
        expected -= 1e-2 * (first / (1 - 0.9**step)) / ((second / (1 - 0.99**step)).sqrt() + 1e-8)
        torch.testing.assert_close(optimizer.masters[name].double(), expected, rtol=1e-5, atol=1e-6)


def test_parameters_are_their_masters_rounded_and_small_steps_are_not_lost() -> None:
    model = tiny_model()
    optimizer = Optimizer(model, OptimizerSettings(learning_rate=1e-5, max_grad_norm=1e9))
    name = "layers.0.mlp.gate_up_proj.weight"
    before = optimizer.masters[name].clone()
    for step in range(20):
        give_gradients(optimizer, step)
        optimizer.step(1e-5)
    assert not torch.equal(optimizer.masters[name], before)
    for each, parameter in optimizer.parameters.items():
        assert parameter.dtype == torch.bfloat16
        assert torch.equal(parameter, optimizer.masters[each].bfloat16())


def test_gradients_are_added_up_in_float32() -> None:
    optimizer = Optimizer(tiny_model(), SETTINGS)
    parameter = optimizer.parameters["norm.weight"]
    for value in (1.0, 1e-4):  # 1 + 1e-4 is 1 in bfloat16
        (parameter.float() * value).sum().backward()
    assert parameter.grad is not None and parameter.grad.dtype == torch.float32
    assert float(parameter.grad.min()) > 1.00005


def test_a_saved_state_goes_on_with_the_same_bits() -> None:
    one, other = Optimizer(tiny_model(), SETTINGS), Optimizer(tiny_model(seed=3), SETTINGS)
    for step in range(3):
        give_gradients(one, step)
        one.step(1e-2)
    other.load(Saved(one.tensors()), one.num_steps)
    for optimizer in (one, other):
        give_gradients(optimizer, 7)
        optimizer.step(5e-3)
    assert one.num_steps == other.num_steps == 4
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name
    for name, parameter in one.parameters.items():
        assert torch.equal(parameter, other.parameters[name]), name


def test_a_state_that_does_not_fit_is_refused() -> None:
    optimizer = Optimizer(tiny_model(), SETTINGS)
    tensors = optimizer.tensors()
    missing = {k: v for k, v in tensors.items() if k != "master.norm.weight"}
    with pytest.raises(BadFile, match=r"master\.norm\.weight"):
        optimizer.load(Saved(missing), 0)
    with pytest.raises(BadFile, match="shape"):
        optimizer.load(Saved({**tensors, "master.norm.weight": torch.zeros(3)}), 0)


def test_the_learning_rate_warms_up_and_falls() -> None:
    cosine = OptimizerSettings(learning_rate=1.0, warmup_steps=4, schedule="cosine", final_share=0.1)
    rates = [learning_rate(cosine, step, 20) for step in range(21)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0 and rates[12] == pytest.approx(0.55) and rates[20] == pytest.approx(0.1)
    linear = OptimizerSettings(learning_rate=1.0, schedule="linear", final_share=0.0)
    assert [learning_rate(linear, step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    constant = OptimizerSettings(learning_rate=3.0)
    assert {learning_rate(constant, step, 4) for step in range(4)} == {3.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_forgotten_and_changes_nothing(value: float) -> None:
    model = tiny_model()
    optimizer = Optimizer(model, SETTINGS)
    give_gradients(optimizer, 1)
    optimizer.step(1e-2)
    before = {name: tensor.clone() for name, tensor in optimizer.tensors().items()}
    parameters = {name: tensor.detach().clone() for name, tensor in optimizer.parameters.items()}
    give_gradients(optimizer, 2)
    gradient = optimizer.parameters["norm.weight"].grad
    assert gradient is not None
    gradient[3] = value
    with pytest.raises(RunStopped, match=r"gradient is (nan|inf).*learning_rate"):
        optimizer.step(1e-2)
    assert optimizer.num_steps == 1
    assert not any(grad.any() for grad in optimizer.gradients())
    assert all(torch.equal(tensor, before[name]) for name, tensor in optimizer.tensors().items())
    assert all(torch.equal(tensor, parameters[name]) for name, tensor in optimizer.parameters.items())


def test_a_state_is_taken_up_on_the_device_of_its_model() -> None:
    optimizer = Optimizer(tiny_model().to("meta"), SETTINGS)  # where a file's tensors never are
    zeros = {name: torch.zeros(tensor.shape) for name, tensor in optimizer.tensors().items()}
    optimizer.load(Saved(zeros), 3)
    states = optimizer._adamw.state.values()
    assert {tensor.device.type for state in states for tensor in state.values()} == {"meta"}
