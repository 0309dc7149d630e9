"""AdamW over float32 masters of the parameters that engine and trainer share, and the learning rate.

The bfloat16 parameters are rounded from their masters in place after each step, so the engine's module is
the trained one. Leaves out the loss. Sources: AdamW, arXiv 1711.05101; the arithmetic is torch's fused
implementation.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, get_args

import torch
from torch import Tensor

from groschen.errors import BadFile, Unsupported
from groschen.model.transformer import Transformer
from groschen.ranges import Range
from groschen.train.alarms import RunStopped

Schedule = Literal["constant", "linear", "cosine"]
SCHEDULES: tuple[str, ...] = get_args(Schedule)
_STATE = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """What AdamW and the schedule do."""

    learning_rate: Annotated[float, Range(least=0, most=10)] = 1e-6
    warmup_steps: Annotated[int, Range(least=0, most=1_000_000_000)] = 0
    schedule: Schedule = "constant"  # after the warm-up; linear and cosine end at `final_share`
    final_share: Annotated[float, Range(least=0, most=1)] = 0.1
    betas: Annotated[tuple[float, float], Range(least=0, below=1)] = (0.9, 0.99)
    eps: Annotated[float, Range(above=0, most=1)] = 1e-8
    weight_decay: Annotated[float, Range(least=0, most=1_000)] = 0.0
    max_grad_norm: Annotated[
        float, Range(above=0, because="0 makes every gradient 0; to clip none take a large number, as 1e9")
    ] = 1.0


class TensorSource(Protocol):
    """Saved tensors that are read one by one."""

    def names(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each tensor by its name."""

    def read(self, name: str) -> Tensor:
        """The whole tensor `name`."""


class Optimizer:
    """Masters, moments and gradients of every parameter of a model, all float32."""

    def __init__(self, model: Transformer, settings: OptimizerSettings) -> None:
        if settings.schedule not in SCHEDULES:
            raise Unsupported(
                f"schedule {settings.schedule!r} is not known; take one of {', '.join(SCHEDULES)}"
            )
        model.requires_grad_(True)  # refuses quantised weights by name
        self.settings, self._operations = settings, model.kit.operations
        self.parameters = dict(model.named_parameters())
        self.masters: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            parameter.grad_dtype = torch.float32  # micro-batches are added up in float32
            self.masters[name] = parameter.detach().float().clone()
            # Made once, as the moments below: what comes and goes between activations leaves holes in a heap.
            parameter.grad = torch.zeros_like(self.masters[name])
        self._adamw = torch.optim.AdamW(
            self.masters.values(), lr=settings.learning_rate, betas=settings.betas, eps=settings.eps,
            weight_decay=settings.weight_decay, fused=True,
        )  # fmt: skip
        self.num_steps = 0
        for master in self.masters.values():
            self._remember(master, 0, {part: torch.zeros_like(master) for part in _STATE})

    def _remember(self, master: Tensor, num_steps: int, moments: Mapping[str, Tensor]) -> None:
        """Give AdamW its state of one parameter."""
        counted = torch.tensor(float(num_steps), device=master.device)  # a fused step wants it there
        self._adamw.state[master] = {"step": counted, **moments}

    def grad_norm(self) -> float:
        """The norm over all gradients. Each row is added up on its own, so the number of threads changes no
        bit.
        """
        total = 0.0
        for grad in self.gradients():
            total += math.fsum(self._operations.squares(grad.view(len(grad), -1)).tolist())
        return math.sqrt(total)

    def gradients(self) -> Iterator[Tensor]:
        """What was added up since the last step, of each parameter."""
        for parameter in self.parameters.values():
            assert parameter.grad is not None
            yield parameter.grad

    @torch.no_grad()
    def step(self, learning_rate: float) -> float:
        """Clip, step, round the masters into the parameters, forget the gradients. Returns the norm before
        clipping.

        Raises RunStopped if that norm is not finite: the gradients are forgotten, all else is as it was.
        """
        norm = self.grad_norm()
        if not math.isfinite(norm):
            self.forget_gradients()
            raise RunStopped(
                f"the norm of the gradient is {norm}, so this update was not taken; lower learning_rate, or "
                "look at the rewards of this step"
            )
        scale = min(1.0, self.settings.max_grad_norm / norm) if norm > 0 else 1.0
        for master, grad in zip(self.masters.values(), self.gradients(), strict=True):
            master.grad = grad.mul_(scale) if scale < 1 else grad
        self._adamw.param_groups[0]["lr"] = learning_rate
        self._adamw.step()
        for name, parameter in self.parameters.items():
            self.masters[name].grad = None
            parameter.copy_(self.masters[name])
        self.forget_gradients()
        self.num_steps += 1
        return norm

    def forget_gradients(self) -> None:
        """Drop what was added up."""
        for grad in self.gradients():
            grad.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that has to be saved, by name: masters and both moments."""
        found = {f"master.{name}": master for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for part in _STATE:
                found[f"{part}.{name}"] = self._adamw.state[master][part]
        return found

    @torch.no_grad()
    def load(self, saved: TensorSource, num_steps: int) -> None:
        """Take up a saved state, bit for bit and one tensor at a time; raises BadFile if a tensor is
        missing or of another shape.
        """
        expected = {
            f"{part}.{name}": tuple(master.shape)
            for part in ("master", *_STATE)
            for name, master in self.masters.items()
        }
        found = saved.names()
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise BadFile(
                    f"the optimizer state does not fit this model: {name} has the shape {found.get(name)}, "
                    f"expected {expected.get(name)}"
                )
        for name, master in self.masters.items():
            master.copy_(saved.read(f"master.{name}"))
            self.parameters[name].copy_(master)
            moments = {part: saved.read(f"{part}.{name}").to(master.device) for part in _STATE}
            self._remember(master, num_steps, moments)
        self.num_steps = num_steps


def learning_rate(settings: OptimizerSettings, step: int, num_steps: int) -> float:
    """The rate of step 0, 1, ... of `num_steps`."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - settings.warmup_steps) / max(1, num_steps - settings.warmup_steps)
    share = 1 - done if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return settings.learning_rate * (settings.final_share + (1 - settings.final_share) * share)
