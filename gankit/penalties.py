"""Penalties: what is added to a player's loss, given all that its turn has.

A penalty says for whom it is (`players`) and how often (`every`); whoever applies it every so many
turns multiplies it by `every`, so that its expected strength stays the same.

Both penalties here hold down the slope of D: the gradient of the summed logits with respect to the
images. The sum runs over everything D returns, so an image with several logits (patches, packed
rows) has one gradient, that of their sum; the papers have one logit per image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gankit.registry import penalty
from gankit.slots import Turn

__all__ = ["R1", "WGANGP"]


@penalty("r1", needs={"second_order"})
@dataclass(frozen=True, kw_only=True)
class R1:
    """Holds D flat at the real images.

    weight / 2 x mean squared norm of D's gradient at real images.

    Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do actually Converge?", 2018,
    arXiv:1801.04406, section 4.1, equation 9; applied every 16th turn (lazily) since StyleGAN2,
    arXiv:1912.04958, appendix B.

    Options:
        weight: the paper's gamma; at least 0
        every: applied once in so many turns of D; at least 1

    Shape: real images (B, ...) to a scalar.

    Raises:
        ValueError: a negative weight, or `every` below 1.
    """

    players: ClassVar[str] = "D"
    weight: float = 10.0
    every: int = 1

    def __post_init__(self) -> None:
        _check("r1", self.weight, self.every)

    def __call__(self, turn: Turn, /) -> Tensor:
        """The penalty of a turn of D."""
        assert turn.real is not None, "a turn of D has real images"
        return self.weight / 2 * _slopes(turn, turn.real).square().sum(1).mean()


@penalty("wgan_gp", needs={"second_order", "independent_rows"})
@dataclass(frozen=True, kw_only=True)
class WGANGP:
    """Holds D's slope at 1 between real and fake images.

    weight x mean (norm - 1)^2, the norm being that of D's gradient at a point drawn uniformly from
    the line between a real and a fake image, a line and a point for every row.

    Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, arXiv:1704.00028, section 4,
    equation 3. One-sided: Petzka, Fischer and Lukovnikov, "On the regularization of Wasserstein
    GANs", 2018, arXiv:1709.08894.

    Options:
        weight: the paper's lambda; at least 0
        every: applied once in so many turns of D; at least 1
        one_sided: leave slopes below 1 alone

    Shape: real and fake images of one shape (B, ...) to a scalar.

    Raises:
        ValueError: a negative weight, `every` below 1, or real and fake images of different shapes.
    """

    players: ClassVar[str] = "D"
    weight: float = 10.0
    every: int = 1
    one_sided: bool = False

    def __post_init__(self) -> None:
        _check("wgan_gp", self.weight, self.every)

    def __call__(self, turn: Turn, /) -> Tensor:
        """The penalty of a turn of D."""
        real, fake = turn.real, turn.fake
        assert real is not None, "a turn of D has real images"
        if real.shape != fake.shape:
            shapes = f"{tuple(real.shape)} and {tuple(fake.shape)}"
            raise ValueError(f"wgan_gp: real and fake images are joined in pairs, not {shapes}")
        # The CPU draws, so that every device sees the same epsilons.
        epsilon = torch.rand(len(real), generator=turn.random, dtype=torch.float32, device="cpu")
        epsilon = epsilon.to(real).view(-1, *[1] * (real.ndim - 1))
        between = torch.lerp(fake.detach().to(real), real.detach(), epsilon)
        # Not a root of squares, whose gradient is NaN where D is flat.
        norms: Tensor = torch.linalg.vector_norm(_slopes(turn, between), dim=1)
        excess = norms - 1
        if self.one_sided:
            excess = excess.relu()
        return self.weight * excess.square().mean()


def _slopes(turn: Turn, images: Tensor) -> Tensor:
    """D's gradient at each image, (B, values), itself differentiable."""
    images = images.detach().requires_grad_()
    summed = turn.discriminator(images).sum()
    (gradient,) = torch.autograd.grad(summed, images, create_graph=True)
    return gradient.flatten(1)


def _check(name: str, weight: float, every: int) -> None:
    if not 0 <= weight < math.inf:
        raise ValueError(f"{name}: weight must be at least 0, not {weight}")
    if every < 1:
        raise ValueError(f"{name}: every must be at least 1, not {every}")
