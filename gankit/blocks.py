"""Stages of a network: each is made from the shape coming in and the network's Norm.

A stage is called as `stage(x, condition)` and states the shape going out as `out`. A layer stands
alone: what normalises and activates its output is the next stage, `normalise` or `activate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gankit.activations import relu
from gankit.attentions import SelfAttention2d
from gankit.registry import block, hand
from gankit.slots import Activation, Attention, Norm, Shape, conditional

__all__ = [
    "Attend",
    "Normalise",
    "Plain",
    "Residual",
    "SumPositions",
    "activate",
    "conv",
    "dense",
    "pool",
    "residual",
    "residual_down",
    "residual_stem",
    "residual_up",
    "same",
    "transposed",
    "upsample",
]

Padding = Literal["half", "none"]


class Plain(nn.Module):
    """A module that takes no condition, as a stage.

    Raises:
        ValueError: the shape going out has nothing in it.
    """

    def __init__(self, layer: nn.Module, out: Shape) -> None:
        super().__init__()
        self.layer = layer
        self.out = _something(out)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.layer(x)


def _something(out: Shape) -> Shape:
    """The shape, unless there is nothing in it."""
    if min(out) < 1:
        raise ValueError(f"nothing is left of the feature map: it would be {out}")
    return out


def _at_least_one(**options: int) -> None:
    """Refuse what torch would make into a layer of nothing, or trip over later."""
    for name, value in options.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")


@block("dense")
def dense(
    shape: Shape,
    norm: Norm,
    /,
    *,
    channels: int,
    size: tuple[int, int] = (1, 1),
    bias: bool = True,
) -> Plain:
    """A dense layer from everything that comes in to a feature map.

    Options:
        channels: feature maps going out.
        size: their height and width.
        bias: the layer has a bias.
    """
    _at_least_one(channels=channels, height=size[0], width=size[1])
    layer = norm.weight(nn.Linear(math.prod(shape), channels * math.prod(size), bias=bias))
    reshaped = nn.Sequential(nn.Flatten(), layer, nn.Unflatten(1, (channels, *size)))
    return Plain(reshaped, (channels, *size))


@block("conv")
def conv(
    shape: Shape,
    norm: Norm,
    /,
    *,
    channels: int,
    kernel: int = 3,
    stride: int = 1,
    padding: Padding = "half",
    bias: bool = True,
) -> Plain:
    """A convolution.

    Options:
        channels: feature maps going out.
        kernel: height and width of the kernel.
        stride: 2, with a kernel of 3 or 4, halves the feature map.
        padding: `half` adds (kernel - 1) // 2 zeros on each side, `none` none.
        bias: the layer has a bias.
    """
    _at_least_one(channels=channels, kernel=kernel, stride=stride)
    zeros = _zeros(kernel, padding)
    layer = norm.weight(nn.Conv2d(shape[0], channels, kernel, stride, zeros, bias=bias))
    height, width = ((side + 2 * zeros - kernel) // stride + 1 for side in shape[1:])
    return Plain(layer, (channels, height, width))


@block("transposed")
def transposed(
    shape: Shape,
    norm: Norm,
    /,
    *,
    channels: int,
    kernel: int = 4,
    stride: int = 2,
    padding: Padding = "half",
    bias: bool = True,
) -> Plain:
    """A transposed convolution.

    Options:
        channels: feature maps going out.
        kernel: height and width of the kernel.
        stride: 2, with a kernel of 4, doubles the feature map.
        padding: `half` trims (kernel - 1) // 2 from each side, `none` nothing.
        bias: the layer has a bias.
    """
    _at_least_one(channels=channels, kernel=kernel, stride=stride)
    trim = _zeros(kernel, padding)
    layer = norm.weight(nn.ConvTranspose2d(shape[0], channels, kernel, stride, trim, bias=bias))
    height, width = ((side - 1) * stride - 2 * trim + kernel for side in shape[1:])
    return Plain(layer, (channels, height, width))


def _zeros(kernel: int, padding: Padding) -> int:
    return (kernel - 1) // 2 if padding == "half" else 0


@block("normalise")
class Normalise(nn.Module):
    """The network's norm, then an activation.

    Options:
        activation: what follows the norm.

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(
        self, shape: Shape, norm: Norm = Norm(), /, *, activation: Activation = relu
    ) -> None:
        super().__init__()
        self.norm = norm.activation(shape[0])
        self.activation = activation()
        self.out = shape

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.activation(self.norm(x, condition))


@block("activate")
def activate(shape: Shape, /, *, activation: Activation = relu) -> Plain:
    """An activation alone.

    Options:
        activation: which one.
    """
    return Plain(activation(), shape)


@block("sum_positions")
class SumPositions(nn.Module):
    """The sum of each feature map over its positions; what a projection discriminator ends with.

    Shape: (B, C, H, W) -> (B, C, 1, 1).
    """

    def __init__(self, shape: Shape, /) -> None:
        super().__init__()
        self.out: Shape = (shape[0], 1, 1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return x.sum(dim=(2, 3), keepdim=True)


@block("attend")
class Attend(nn.Module):
    """Attention, as a stage.

    Options:
        attention: which one.

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(
        self, shape: Shape, norm: Norm = Norm(), /, *, attention: Attention = SelfAttention2d
    ) -> None:
        super().__init__()
        self.attention = conditional(hand(attention, shape[0], norm))
        self.out = shape

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.attention(x, condition)


# --- residual blocks: Miyato et al. (2018), appendix B.4, arXiv:1802.05957


def upsample(x: Tensor) -> Tensor:
    """Twice the height and width, by repeating each position."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def pool(x: Tensor) -> Tensor:
    """Half the height and width, by the mean of each 2x2."""
    return F.avg_pool2d(x, 2)


def same(x: Tensor) -> Tensor:
    """The feature map at the size it has."""
    return x


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
    ) -> None:
        super().__init__()
        _at_least_one(channels=channels)
        wide, height, width = shape
        self.enter = conditional(enter)
        self.conv1 = norm.weight(nn.Conv2d(wide, channels, 3, padding=1))
        self.middle = Normalise((channels, height, width), norm, activation=activation)
        self.conv2 = norm.weight(nn.Conv2d(channels, channels, 3, padding=1))
        keeps = wide == channels and up is same and down is same
        self.shortcut = nn.Identity() if keeps else norm.weight(nn.Conv2d(wide, channels, 1))
        self.up, self.down = up, down
        if up is upsample:
            height, width = 2 * height, 2 * width
        if down is pool:
            height, width = height // 2, width // 2
        self.out = _something((channels, height, width))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = self.conv1(self.up(self.enter(x, condition)))
        h = self.conv2(self.middle(h, condition))
        return self.down(h) + self.down(self.shortcut(self.up(x)))


@block("residual")
def residual(
    shape: Shape, norm: Norm, /, *, channels: int, activation: Activation = relu
) -> Residual:
    """Norm, activation, conv, norm, activation, conv, added to what came in; the size stays.

    Options:
        channels: feature maps going out.
        activation: after each norm.
    """
    enter = Normalise(shape, norm, activation=activation)
    return Residual(shape, norm, channels, activation, enter=enter)


@block("residual_up")
def residual_up(
    shape: Shape, norm: Norm, /, *, channels: int, activation: Activation = relu
) -> Residual:
    """A residual block that doubles height and width: a generator's.

    Options:
        channels: feature maps going out.
        activation: after each norm.
    """
    enter = Normalise(shape, norm, activation=activation)
    return Residual(shape, norm, channels, activation, enter=enter, up=upsample)


@block("residual_down")
def residual_down(
    shape: Shape, norm: Norm, /, *, channels: int, activation: Activation = relu
) -> Residual:
    """A residual block that halves height and width: a discriminator's.

    Options:
        channels: feature maps going out.
        activation: after each norm.
    """
    enter = Normalise(shape, norm, activation=activation)
    return Residual(shape, norm, channels, activation, enter=enter, down=pool)


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
