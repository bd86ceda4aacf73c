"""Penalties on D's slope: the gradient of the summed logits with respect to the images.

The sum runs over everything D returns, so an image with several logits (patches, packed rows) has
one gradient, that of their sum; the papers have one logit per image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gankit.penalties.checks import check_options
from gankit.randomness import drawn, sent
from gankit.registry import penalty
from gankit.slots import Turn

__all__ = ["DRAGAN", "R1", "R2", "WGANGP"]


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
        check_options("r1", self.every, weight=self.weight)

    def __call__(self, turn: Turn, /) -> Tensor:
        """The penalty of a turn of D."""
        assert turn.real is not None, "a turn of D has real images"
        return self.weight / 2 * _slopes(turn, turn.real).square().sum(1).mean()


@penalty("r2", needs={"second_order"})
@dataclass(frozen=True, kw_only=True)
class R2:
    """Holds D flat at the fake images.

    weight / 2 x mean squared norm of D's gradient at fake images.

    Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do actually Converge?", 2018,
    arXiv:1801.04406, section 4.1, equation 10; together with R1 in R3GAN, Huang et al., 2024,
    arXiv:2501.05441, section 2.

    Options:
        weight: the paper's gamma; at least 0
        every: applied once in so many turns of D; at least 1

    Shape: fake images (B, ...) to a scalar.

    Raises:
        ValueError: a negative weight, or `every` below 1.
    """

    players: ClassVar[str] = "D"
    weight: float = 10.0
    every: int = 1

    def __post_init__(self) -> None:
        check_options("r2", self.every, weight=self.weight)

    def __call__(self, turn: Turn, /) -> Tensor:
        """The penalty of a turn of D."""
        return self.weight / 2 * _slopes(turn, turn.fake).square().sum(1).mean()


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
        check_options("wgan_gp", self.every, weight=self.weight)

    def __call__(self, turn: Turn, /) -> Tensor:
        """The penalty of a turn of D."""
        real, fake = turn.real, turn.fake
        assert real is not None, "a turn of D has real images"
        if real.shape != fake.shape:
            shapes = f"{tuple(real.shape)} and {tuple(fake.shape)}"
            raise ValueError(f"wgan_gp: real and fake images are joined in pairs, not {shapes}")
        epsilon = sent(drawn(turn.random, len(real)), real.device).to(real)
        epsilon = epsilon.view(-1, *[1] * (real.ndim - 1))
        excess = _norms(turn, torch.lerp(fake.detach().to(real), real.detach(), epsilon)) - 1
        if self.one_sided:
            excess = excess.relu()
        return self.weight * excess.square().mean()


@penalty("dragan", needs={"second_order", "independent_rows"})
@dataclass(frozen=True, kw_only=True)
class DRAGAN:
    """Holds D's slope at 1 around the real images.

    weight x mean (norm - 1)^2, the norm being that of D's gradient at a real image plus normal
    noise, drawn anew for every value.

    Kodali, Abernethy, Hays and Kira, "On Convergence and Stability of GANs", 2017,
    arXiv:1705.07215, equation 1, with k = 1.

    Options:
        weight: the paper's lambda; at least 0
        every: applied once in so many turns of D; at least 1
        std: the noise's standard deviation, in units of the images; at least 0

    Shape: real images (B, ...) to a scalar.

    Raises:
        ValueError: a negative weight or std, or `every` below 1.

    Differs from the paper: not in form. The authors' released code is of its first version: it adds
    U(0, 1) x U(0, 1) x half the standard deviation of the whole batch, so images only get brighter,
    and one row's noise depends on the others. On images in [-1, 1] that is 0.1 or so in root mean
    square, hence the default.
    """

    players: ClassVar[str] = "D"
    weight: float = 10.0
    every: int = 1
    std: float = 0.1

    def __post_init__(self) -> None:
        check_options("dragan", self.every, weight=self.weight, std=self.std)

    def __call__(self, turn: Turn, /) -> Tensor:
        """The penalty of a turn of D."""
        assert turn.real is not None, "a turn of D has real images"
        noise = drawn(turn.random, *turn.real.shape, draw=torch.randn)
        noise = sent(noise, turn.real.device).to(turn.real)
        excess = _norms(turn, turn.real + self.std * noise) - 1
        return self.weight * excess.square().mean()


def _norms(turn: Turn, images: Tensor) -> Tensor:
    """The norm of D's gradient at each image, (B,)."""
    # Not a root of squares, whose gradient is NaN where D is flat.
    norms: Tensor = torch.linalg.vector_norm(_slopes(turn, images), dim=1)
    return norms


def _slopes(turn: Turn, images: Tensor) -> Tensor:
    """D's gradient at each image, (B, values), itself differentiable."""
    images = images.detach().requires_grad_()
    summed = turn.discriminator(images).sum()
    (gradient,) = torch.autograd.grad(summed, images, create_graph=True)
    return gradient.flatten(1)
