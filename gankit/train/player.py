"""A player: one of the two networks, with all that moves its weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gankit.ops import Computed, computed, move, parametrizations
from gankit.train.faults import Faults
from gankit.train.precision import LossScale
from gankit.train.processes import Processes

__all__ = ["Player"]


class Player:
    """D or G: its network, optimizer and loss scale."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer],
        scale: LossScale,
        section: str,
    ) -> None:
        self.name = name
        self.network = network
        self.optimizer = optimizer(network.parameters())
        self.scale = scale
        self.section = section
        """The table of the spec that its optimizer is from."""
        # What each turn goes over, so that no turn has to look for it.
        self.parameters = dict(network.named_parameters())
        self.parametrized = nn.ModuleList(parametrizations(network))
        self.settings = _settings(self.optimizer)
        self.turns_taken = 0
        self.noted: list[str] = []
        """What each number of an update is that `Faults` looks at."""

    @contextmanager
    def playing(self) -> Iterator[Computed]:
        """A turn of this player's: estimates move once, weights are computed once.

        At its end the gradients are where the parameters are.
        """
        move(self.parametrized)
        self.optimizer.zero_grad(set_to_none=True)
        with computed(self.parametrized) as weights:
            yield weights
            weights.carry()

    @contextmanager
    def watching(self) -> Iterator[Computed]:
        """A turn of the opponent's alone: nothing moves here, and there are no gradients."""
        with computed(self.parametrized, trained=False) as weights, self.frozen(weights):
            yield weights

    @contextmanager
    def frozen(self, weights: Computed) -> Iterator[None]:
        """Compute no gradients for this player's parameters."""
        everything = (*self.parameters.values(), *weights.weights)
        trained = [parameter for parameter in everything if parameter.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)

    def update(
        self,
        values: Mapping[str, Tensor],
        clip: float,
        processes: Processes,
        faults: Faults,
        at: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Move the weights by their gradients, unless one of these or of `values` is not finite.

        Nobody waits for the device: the update is masked there, and the fault noted, `at` this
        step and turn. Gives the values, means over all processes, and the length of the gradient.
        """
        named = self._gradients(processes)
        gradients, told = list(named.values()), torch.stack(list(values.values()))
        processes.average([*gradients, told])
        self.scale.unscale(gradients)
        norms = dict(zip(named, torch._foreach_norm(gradients), strict=True))
        # A place for every parameter, so that a fault's place means the same whenever it is read.
        none = told.new_zeros(())
        lengths = torch.stack([norms.get(name, none) for name in self.parameters])
        length = torch.linalg.vector_norm(lengths)
        finite = torch.cat([lengths, told.to(lengths)]).isfinite()
        self.noted = [*(f"gradient {name}" for name in self.parameters), *values]
        faults.note(*at, self.name, finite, self.scale.exhausted())
        good = finite.all()
        self.scale.update(good)
        if clip:
            torch._foreach_mul_(gradients, (clip / length).clamp_max(1.0))
        _step(self.optimizer, gradients, good)
        self.turns_taken += 1
        return dict(zip(values, told, strict=True)) | {f"gradient_{self.name}": length}

    def _gradients(self, processes: Processes) -> dict[str, Tensor]:
        """The gradients by parameter; several processes have the same ones.

        What no process has a gradient for stays without: an optimizer leaves it alone.
        """
        trained = {n: p for n, p in self.parameters.items() if p.requires_grad}
        there = processes.largest([p.grad is not None for p in trained.values()])
        for parameter, anywhere in zip(trained.values(), there, strict=True):
            if anywhere and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return {name: p.grad for name, p in trained.items() if p.grad is not None}

    def set_rate(self, rate: float, factors: Mapping[str, float]) -> None:
        """Set what schedules scale: the learning rate, and any other number of the optimizer."""
        for group, given in zip(self.optimizer.param_groups, self.settings, strict=True):
            for key, value in given.items():
                path = f"{self.section}.{key}"
                group[key] = value * factors[path] if path in factors else value
            group["lr"] *= rate

    def state(self) -> dict[str, Any]:
        """What has to be saved beside the weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scale": self.scale.state(),
            "turns_taken": self.turns_taken,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a state; hyper-parameters stay those of the spec."""
        named = _options(self.optimizer)
        kept = [
            {key: value for key, value in group.items() if key in named}
            for group in self.optimizer.param_groups
        ]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, values in zip(self.optimizer.param_groups, kept, strict=True):
            group.update(values)
        self.scale.load_state(state["scale"])
        self.turns_taken = int(state["turns_taken"])


def _step(optimizer: torch.optim.Optimizer, gradients: Sequence[Tensor], good: Tensor) -> None:
    """An optimizer's step, unless it is not `good`, which the device alone knows."""
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.grad_scale = None  # type: ignore[attr-defined]
        optimizer.found_inf = (~good).float()  # type: ignore[attr-defined]
    else:
        # Of an optimizer that cannot leave a step out, at least nothing bad gets in.
        for gradient in gradients:
            gradient.copy_(torch.where(good, gradient, 0.0))
    optimizer.step()


def _options(optimizer: torch.optim.Optimizer) -> set[str]:
    """What an optimizer is made with; whatever else its groups hold is its state."""
    return set(inspect.signature(type(optimizer).__init__).parameters) - {"params"}


def _settings(optimizer: torch.optim.Optimizer) -> list[dict[str, float]]:
    """The numbers of an optimizer's groups, as the spec gave them."""
    named = _options(optimizer)
    return [
        {k: v for k, v in group.items() if k in named and type(v) in (int, float)}
        | {"lr": float(group["lr"])}
        for group in optimizer.param_groups
    ]
