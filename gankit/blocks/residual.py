"""Residual blocks: Miyato et al. (2018), appendix B.4, arXiv:1802.05957."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gankit.activations import relu
from gankit.blocks.checks import at_least_one, something
from gankit.blocks.layers import Normalise
from gankit.registry import block
from gankit.slots import Activation, Norm, Shape, conditional

__all__ = [
    "Hidden",
    "Residual",
    "Shortcut",
    "Upsampling",
    "pool",
    "residual",
    "residual_down",
    "residual_stem",
    "residual_up",
    "same",
    "upsample",
    "upsample_bilinear",
]

Hidden = Literal["out", "in"]
"""How wide a block is between its convolutions: as what goes out, or as what comes in."""

Upsampling = Literal["nearest", "bilinear"]

Shortcut = Literal["input", "activated"]
"""What a discriminator's shortcut carries: what comes in, or what its activation made of it."""


def upsample(x: Tensor) -> Tensor:
    """Twice the height and width, by repeating each position."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def upsample_bilinear(x: Tensor) -> Tensor:
    """Twice the height and width, by bilinear interpolation."""
    return F.interpolate(x, scale_factor=2, mode="bilinear")


def pool(x: Tensor) -> Tensor:
    """Half the height and width, by the mean of each 2x2."""
    return F.avg_pool2d(x, 2)


def same(x: Tensor) -> Tensor:
    """The feature map at the size it has."""
    return x


_UP: dict[Upsampling, Callable[[Tensor], Tensor]] = {
    "nearest": upsample,
    "bilinear": upsample_bilinear,
}


class Residual(nn.Module):
    """enter, up, conv, norm, activation, conv, down; added to what came in, at the new size.

    The shortcut is a 1x1 convolution wherever channels or size change. `enter` is what stands
    before the first convolution on the long way only.

    Shape: (B, C, H, W) -> (B, channels, H', W'), as `up` and `down` make it.

    Raises:
        ValueError: the shape going out has nothing in it.
    """

    def __init__(
        self,
        shape: Shape,
        norm: Norm,
        channels: int,
        activation: Activation,
        *,
        enter: nn.Module,
        up: Callable[[Tensor], Tensor] = same,
        down: Callable[[Tensor], Tensor] = same,
        hidden: Hidden = "out",
        shortcut: Shortcut = "input",
    ) -> None:
        super().__init__()
        at_least_one(channels=channels)
        self.activated = shortcut == "activated"
        wide, height, width = shape
        between = {"out": channels, "in": wide}[hidden]
        self.enter = conditional(enter)
        self.conv1 = norm.weight(nn.Conv2d(wide, between, 3, padding=1))
        self.middle = Normalise((between, height, width), norm, activation=activation)
        self.conv2 = norm.weight(nn.Conv2d(between, channels, 3, padding=1))
        keeps = wide == channels and up is same and down is same
        self.shortcut = nn.Identity() if keeps else norm.weight(nn.Conv2d(wide, channels, 1))
        self.up, self.down = up, down
        if up is not same:
            height, width = 2 * height, 2 * width
        if down is not same:
            height, width = height // 2, width // 2
        self.out = something((channels, height, width))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        entered = self.enter(x, condition)
        h = self.conv1(self.up(entered))
        h = self.conv2(self.middle(h, condition))
        x = entered if self.activated else x
        return self.down(h) + self.down(self.shortcut(self.up(x)))


@block("residual")
def residual(
    shape: Shape,
    norm: Norm,
    /,
    *,
    channels: int,
    activation: Activation = relu,
    hidden: Hidden = "out",
    shortcut: Shortcut = "input",
) -> Residual:
    """Norm, activation, conv, norm, activation, conv, added to what came in; the size stays.

    Options:
        channels: feature maps going out.
        activation: after each norm.
        hidden: the channels between the convolutions: as many as go `out`, or as come `in`.
        shortcut: it carries the `input`, or that `activated`, as where an activation that works
            in place has changed it: in the D of mimicry and StudioGAN.
    """
    enter = Normalise(shape, norm, activation=activation)
    return Residual(
        shape, norm, channels, activation, enter=enter, hidden=hidden, shortcut=shortcut
    )


@block("residual_up")
def residual_up(
    shape: Shape,
    norm: Norm,
    /,
    *,
    channels: int,
    activation: Activation = relu,
    upsampling: Upsampling = "nearest",
) -> Residual:
    """A residual block that doubles height and width: a generator's.

    Options:
        channels: feature maps going out.
        activation: after each norm.
        upsampling: `nearest` as in the authors' code, or `bilinear` as in mimicry.
    """
    enter = Normalise(shape, norm, activation=activation)
    return Residual(shape, norm, channels, activation, enter=enter, up=_UP[upsampling])


@block("residual_down")
def residual_down(
    shape: Shape,
    norm: Norm,
    /,
    *,
    channels: int,
    activation: Activation = relu,
    hidden: Hidden = "out",
    shortcut: Shortcut = "input",
) -> Residual:
    """A residual block that halves height and width: a discriminator's.

    Options:
        channels: feature maps going out.
        activation: after each norm.
        hidden: the channels between the convolutions: as many as go `out`, as in SAGAN's and
            BigGAN's code, or as come `in`, as in SNGAN's.
        shortcut: it carries the `input`, or that `activated`, as where an activation that works
            in place has changed it: in the D of mimicry and StudioGAN.
    """
    enter = Normalise(shape, norm, activation=activation)
    return Residual(
        shape, norm, channels, activation, enter=enter, down=pool, hidden=hidden, shortcut=shortcut
    )


@block("residual_stem")
def residual_stem(
    shape: Shape, norm: Norm, /, *, channels: int, activation: Activation = relu
) -> Residual:
    """A discriminator's first residual block: the image itself is not normalised or rectified.

    Options:
        channels: feature maps going out.
        activation: between the convolutions.
    """
    return Residual(shape, norm, channels, activation, enter=nn.Identity(), down=pool)
