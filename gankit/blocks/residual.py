"""Residual blocks: Miyato et al. (2018), appendix B.4, arXiv:1802.05957."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn

from gankit.activations import relu
from gankit.blocks.checks import at_least_one, something
from gankit.blocks.layers import Normalise
from gankit.blocks.resampled import ConvPool2d, UpsampleConv2d, Upsampling
from gankit.registry import block
from gankit.slots import Activation, Norm, Shape, conditional

__all__ = [
    "Hidden",
    "Residual",
    "Shortcut",
    "residual",
    "residual_down",
    "residual_stem",
    "residual_up",
]

Hidden = Literal["out", "in"]
"""How wide a block is between its convolutions: as what goes out, or as what comes in."""

Shortcut = Literal["input", "activated"]
"""What a discriminator's shortcut carries: what comes in, or what its activation made of it."""

_Resize = Literal["same", "up", "down"]

_Layer = Callable[[int, int, int], nn.Conv2d]
"""Makes a layer from the channels coming in and going out and the size of its kernel."""


class Residual(nn.Module):
    """enter, up, conv, norm, activation, conv, down; added to what came in, at the new size.

    The shortcut is a 1x1 convolution wherever channels or size change. `enter` is what stands
    before the first convolution on the long way only.

    Shape: (B, C, H, W) -> (B, channels, H', W'): twice the sides, half of them, or the same.

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
        resize: _Resize = "same",
        upsampling: Upsampling = "nearest",
        hidden: Hidden = "out",
        shortcut: Shortcut = "input",
    ) -> None:
        super().__init__()
        at_least_one(channels=channels)
        self.activated = shortcut == "activated"
        wide, height, width = shape
        between = {"out": channels, "in": wide}[hidden]
        up = partial(UpsampleConv2d, mode=upsampling)
        # Where the size changes: before the first convolution, after the second, by the shortcut.
        makes: dict[_Resize, tuple[_Layer, _Layer, _Layer]] = {
            "same": (_conv, _conv, _conv),
            "up": (up, _conv, up),
            "down": (_conv, ConvPool2d, ConvPool2d),
        }
        first, second, beside = makes[resize]
        self.enter = conditional(enter)
        self.conv1 = norm.weight(first(wide, between, 3))
        self.middle = Normalise((between, height, width), norm, activation=activation)
        self.conv2 = norm.weight(second(between, channels, 3))
        keeps = wide == channels and resize == "same"
        self.shortcut = nn.Identity() if keeps else norm.weight(beside(wide, channels, 1))
        if resize == "up":
            height, width = 2 * height, 2 * width
        if resize == "down":
            height, width = height // 2, width // 2
        self.out = something((channels, height, width))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        entered = self.enter(x, condition)
        h = self.conv2(self.middle(self.conv1(entered), condition))
        return h + self.shortcut(entered if self.activated else x)


def _conv(wide: int, channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(wide, channels, kernel, padding=kernel // 2)


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
    return Residual(
        shape, norm, channels, activation, enter=enter, resize="up", upsampling=upsampling
    )


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
        shape,
        norm,
        channels,
        activation,
        enter=enter,
        resize="down",
        hidden=hidden,
        shortcut=shortcut,
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
    return Residual(shape, norm, channels, activation, enter=nn.Identity(), resize="down")
