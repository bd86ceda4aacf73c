"""Turns by hand, and discriminators to play them, for tests of penalties."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from gankit.slots import Image, Turn, features_of, heads_of


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batches(seed: int, rows: int = 5, shape: tuple[int, ...] = (3,)) -> tuple[Tensor, Tensor]:
    """Real and fake images, in float64."""
    drawn = torch.randn(2, rows, *shape, generator=seeded(seed), dtype=torch.float64)
    return drawn[0], drawn[1]


def turn_of(
    discriminator: Callable[[Tensor], Any],
    real: Tensor,
    fake: Tensor,
    seed: int = 0,
    *,
    step: int = 0,
    player: str = "D",
    random: torch.Generator | None = None,
    generator: nn.Module | None = None,
) -> Turn:
    """A turn on given images, with D's opinion of them in it."""

    def heads(images: Tensor) -> dict[str, Tensor]:
        return heads_of(discriminator(images))

    real_heads, fake_heads = heads(real.detach()), heads(fake.detach())
    return Turn(
        step=step,
        total=1,
        player=player,
        real=real,
        fake=fake,
        labels=None,
        latent=torch.zeros(len(fake), 1),
        real_heads=real_heads,
        fake_heads=fake_heads,
        image=Image(3, (), bounded=False),
        generator=generator or nn.Identity(),
        generate=nn.Identity(),
        heads=heads,
        features=partial(features_of, discriminator),
        adversarial=dict.fromkeys(real_heads, 1.0),
        random=random or seeded(seed),
    )


class Quadratic(nn.Module):
    """x' A x / 2 + b' x, whose gradient is A x + b for a symmetric A."""

    def __init__(self, seed: int, width: int) -> None:
        super().__init__()
        a = torch.randn(width, width, generator=seeded(seed), dtype=torch.float64)
        self.a = nn.Parameter(a + a.T)
        self.b = nn.Parameter(torch.randn(width, generator=seeded(seed + 1), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return ((x @ self.a) * x).sum(1) / 2 + x @ self.b

    def slope(self, x: np.ndarray) -> np.ndarray:
        a, b = self.a.detach().numpy(), self.b.detach().numpy()
        return x.reshape(len(x), -1) @ a + b


class Net(nn.Sequential):
    """A smooth little D for any shape; its features are four."""

    def __init__(self, shape: tuple[int, ...], logits: int = 1) -> None:
        width = int(np.prod(shape))
        last = nn.Linear(4, logits, bias=False)
        super().__init__(nn.Flatten(), nn.Linear(width, 4), nn.Softplus(), last)
        with torch.no_grad():
            for index, parameter in enumerate(self.parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=seeded(index)) / 2)
        self.double()


def check_derivatives(
    penalty: Any, net: nn.Module, shape: tuple[int, ...], fast: bool = False
) -> None:
    """The gradient that reaches D's parameters is the one of finite differences, and is none 0."""
    real, fake = batches(3, rows=3, shape=shape)
    names = [name for name, _ in net.named_parameters()]

    def of_parameters(*values: Tensor) -> Tensor:
        named = dict(zip(names, values, strict=True))
        return penalty(turn_of(lambda x: functional_call(net, named, x), real, fake, seed=5))

    parameters = tuple(net.parameters())
    assert torch.autograd.gradcheck(of_parameters, parameters, atol=1e-6, rtol=1e-4, fast_mode=fast)
    net.zero_grad()
    penalty(turn_of(net, real, fake, seed=5)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
