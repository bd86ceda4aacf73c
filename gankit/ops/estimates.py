"""Estimates that follow a weight, and weights that are computed once for many readers.

An estimate is a parametrization with buffers that follow a weight through training, such as the
singular vectors of spectral norm. By hand it moves at every forward pass in training mode. Inside
`held` it stands still, and moves only where `move` says so. `computed` goes further, and is what
the engine opens for each turn: every parametrized weight is computed once, whoever reads it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = [
    "Computed",
    "Estimate",
    "computed",
    "estimates",
    "held",
    "is_running",
    "move",
    "parametrizations",
    "settle",
    "unparametrized",
]


class Estimate(nn.Module):
    """A parametrization that keeps an estimate of something about the weight."""

    held: bool = False
    """While True, `forward` leaves the estimate where it is."""

    def move(self, weight: Tensor, /) -> None:
        """Bring the estimate one step closer to the weight as it is now."""
        raise NotImplementedError

    @classmethod
    def move_all(cls, pairs: Sequence[tuple[Any, Tensor]], /) -> None:
        """Move many estimates of this kind, each with its weight."""
        for estimate, weight in pairs:
            estimate.move(weight)

    def settle(self, weight: Tensor, /) -> None:
        """Bring the estimate to where moving would leave it."""
        raise NotImplementedError


def parametrizations(network: nn.Module) -> Iterator[parametrize.ParametrizationList]:
    """Every parametrized weight of a network, each once."""
    for module in network.modules():
        if isinstance(module, parametrize.ParametrizationList):
            yield module


def estimates(network: nn.Module) -> Iterator[tuple[Estimate, Tensor]]:
    """Every estimate in a network, each once, with the raw weight that it follows."""
    for each in parametrizations(network):
        for parametrization in each:
            if isinstance(parametrization, Estimate):
                yield parametrization, each.original


@contextmanager
def held(*networks: nn.Module) -> Iterator[None]:
    """Keep every estimate of the networks where it is; what was held before stays so after."""
    found = [e for network in networks for e, _ in estimates(network) if not e.held]
    for estimate in found:
        estimate.held = True
    try:
        yield
    finally:
        for estimate in found:
            estimate.held = False


def is_running(name: str, buffer: Tensor) -> bool:
    """Whether a buffer is a running statistic, going by its name, as torch's norms have it."""
    return name.rpartition(".")[2].startswith("running_") and buffer.is_floating_point()


def move(network: nn.Module) -> None:
    """Bring every estimate one step closer to its weight, those of one kind together."""
    kinds: dict[type[Estimate], list[tuple[Estimate, Tensor]]] = {}
    for estimate, weight in estimates(network):
        kinds.setdefault(type(estimate), []).append((estimate, weight))
    for kind, pairs in kinds.items():
        kind.move_all(pairs)


def settle(network: nn.Module) -> None:
    """Bring every estimate to where it stands still; for averaged or freshly drawn weights."""
    for estimate, weight in estimates(network):
        estimate.settle(weight)


@dataclass(frozen=True)
class Computed:
    """Weights that were computed from parameters, cut off from them."""

    weights: Sequence[Tensor]
    """What layers read: leaves, where gradients gather."""
    origins: Sequence[Tensor]
    """The same values, with the graph that leads back to the parameters."""

    def carry(self) -> None:
        """Take what has gathered at the weights on to the parameters; may be called once."""
        pairs = zip(self.origins, self.weights, strict=True)
        due = [(origin, weight.grad) for origin, weight in pairs if weight.grad is not None]
        if due:
            origins, gradients = zip(*due, strict=True)
            torch.autograd.backward(origins, gradients)


@contextmanager
def computed(network: nn.Module, trained: bool = True) -> Iterator[Computed]:
    """Within, every parametrized weight of a network stays what it is at the start.

    However many forward and backward passes read them, the weights are computed once, and the
    gradients that gather at them go through that computation once, when `carry` is called. Not
    `parametrize.cached()`, whose cache cannot be gone backward through twice and remembers
    whether gradients were wanted by whoever read it first.

    A network that is not `trained` gets weights without gradients.
    """
    lists = list(parametrizations(network))
    with held(network), torch.set_grad_enabled(trained):
        origins = [each() for each in lists]
    weights = [origin.detach().requires_grad_(origin.requires_grad) for origin in origins]
    for each, weight in zip(lists, weights, strict=True):
        each.__dict__["forward"] = _Given(each, weight)
    try:
        yield Computed(weights, origins)
    finally:
        for each in lists:
            del each.__dict__["forward"]


def unparametrized(network: nn.Module) -> nn.Module:
    """A copy in which every weight is a plain parameter, of the value that it has now."""
    plain = copy.deepcopy(network)
    with torch.no_grad(), held(plain):
        for module in list(plain.modules()):
            if not parametrize.is_parametrized(module):
                continue
            module.__class__ = _again(type(module))
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
                value: Tensor = getattr(module, name)
                if not isinstance(value, nn.Parameter):
                    # What torch leaves of a weight with several originals, where gradients are off.
                    delattr(module, name)
                    module.register_parameter(name, nn.Parameter(value))
    return plain


def _again(cls: type) -> type:
    """A class like this one: torch takes parametrizations off the class, which copies share."""
    own = {key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__")}
    return type(cls.__name__, cls.__bases__, own)


class _Given:
    """In the place of a parametrization's forward; a copy made meanwhile computes for itself."""

    def __init__(self, of: nn.Module, weight: Tensor) -> None:
        self.of = of
        self.weight = weight

    def __call__(self) -> Tensor:
        return self.weight

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Tensor]:
        copied = memo[id(self.of)]
        return MethodType(type(copied).forward, copied)
