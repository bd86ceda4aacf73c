"""Engines that several test files let take turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gankit.build import build
from gankit.ops import Computed, held
from gankit.slots import Turn
from gankit.spec import loads
from gankit.train.engine import Engine

CPU = torch.device("cpu")

SMALL = """
gankit = 1
name = "small"
data = { use = "digits", size = 8 }
generator = { use = "mlp", latent = 4, width = 6, layers = 2, initializer = "orthogonal" }
discriminator = { use = "mlp", width = 6, layers = 2, initializer = "orthogonal" }
loss = "hinge"
optimizer = { use = "sgd", lr = 0.05 }
train = { steps = 20, batch = 8 }
"""
"""Dense networks of images 8 x 8, whose update says what the gradient was.

Of weights near 0, as they are by default, hardly anything would reach G's first layer.
"""


def engine_of(text: str, *overrides: str) -> Engine:
    spec = loads(text, overrides)
    gan, data = build(spec)
    return Engine(gan, data, spec.train, CPU)


def wide_engine_of(text: str, *overrides: str) -> Engine:
    """In float64, the state of parts too, where sums in another order agree to many digits."""
    spec = loads(text, overrides)
    gan, data = build(spec)
    for module in (gan.generator, gan.discriminator, *gan.stateful().values()):
        module.double()
    return Engine(gan, data, spec.train, CPU)


def take(engine: Engine, players: str, step: int = 0, index: int = 0) -> dict[str, Tensor]:
    """A turn alone, outside any step."""
    draws = engine.draws(step, index)
    return engine.turn(players, step, index, engine.batch(players, draws), draws)


def gradients(engine: Engine, player: str) -> dict[str, Tensor]:
    """What the player's last update went by."""
    named = engine.networks[player].named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def weights(engine: Engine) -> dict[str, Tensor]:
    """Parameters and buffers of both networks."""
    return {
        f"{player}.{name}": tensor.detach().clone()
        for player, network in engine.networks.items()
        for name, tensor in network.state_dict().items()
    }


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], within: float = 1e-10) -> None:
    """The same names and shapes, and nothing further apart than that, relative to the largest."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.shape == other[name].shape, name
        if tensor.numel():
            apart = float((tensor.double() - other[name].double()).abs().max())
            size = max(0.01, float(other[name].double().abs().max()))
            assert apart <= within * size, f"{name}: {apart} apart"


@contextmanager
def anew(network: nn.Module, trained: bool = True) -> Iterator[Computed]:
    """In the place of `computed`: every forward computes its weights anew, from held estimates."""
    with held(network):
        yield Computed((), ())


class Constant:
    """A penalty of 1, for whom and as often as it is told; it remembers its turns."""

    def __init__(self, players: str, every: int = 1, **more: Any) -> None:
        self.players, self.every, self.turns = players, every, list[Turn]()

    def __call__(self, turn: Turn, /) -> Tensor:
        self.turns.append(turn)
        return torch.ones(())
