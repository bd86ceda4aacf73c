"""Layers that stand alone, what follows them, and attention: most of what a stack is made of."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from gankit.activations import relu
from gankit.attentions import SelfAttention2d
from gankit.blocks.checks import at_least_one, something
from gankit.norms import BatchNorm
from gankit.registry import block, hand
from gankit.slots import Activation, Attention, Norm, Shape, conditional, unchanged

__all__ = [
    "Attend",
    "Normalise",
    "NormaliseWith",
    "Plain",
    "activate",
    "conv",
    "dense",
    "transposed",
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
        self.out = something(out)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.layer(x)


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
    at_least_one(channels=channels, height=size[0], width=size[1])
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
    groups: int = 1,
    bias: bool = True,
) -> Plain:
    """A convolution.

    Options:
        channels: feature maps going out.
        kernel: height and width of the kernel.
        stride: 2, with a kernel of 3 or 4, halves the feature map.
        padding: `half` adds (kernel - 1) // 2 zeros on each side, `none` none.
        groups: the channels coming in and going out fall into so many groups, each by itself.
        bias: the layer has a bias.
    """
    at_least_one(channels=channels, kernel=kernel, stride=stride, groups=groups)
    zeros = _zeros(kernel, padding)
    layer = nn.Conv2d(shape[0], channels, kernel, stride, zeros, groups=groups, bias=bias)
    height, width = ((side + 2 * zeros - kernel) // stride + 1 for side in shape[1:])
    return Plain(norm.weight(layer), (channels, height, width))


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
        padding: `half` trims (kernel - 1) // 2 from each side, or less from the far ones, so that
            each side is at least `stride` times what it was; `none` nothing.
        bias: the layer has a bias.
    """
    at_least_one(channels=channels, kernel=kernel, stride=stride)
    trim = _zeros(kernel, padding)
    less = max(0, stride + 2 * trim - kernel) if padding == "half" else 0
    layer = nn.ConvTranspose2d(shape[0], channels, kernel, stride, trim, less, bias=bias)
    height, width = ((side - 1) * stride - 2 * trim + kernel + less for side in shape[1:])
    return Plain(norm.weight(layer), (channels, height, width))


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


@block("normalise_with")
class NormaliseWith(Normalise):
    """A norm of its own in place of the network's, then an activation.

    Before the image, class-conditional generators have a batchnorm that is not conditional.

    Options:
        norm: on the activation.
        activation: what follows the norm.

    Shape: (B, C, H, W) -> the same.

    Raises:
        ValueError: a norm on the weight, of which there is none here.
    """

    def __init__(
        self,
        shape: Shape,
        network: Norm = Norm(),
        /,
        *,
        norm: Norm = Norm(activation=BatchNorm),
        activation: Activation = relu,
    ) -> None:
        weight, of_activation = norm.makers
        if getattr(weight, "__name__", "") not in (unchanged.__name__, "none"):
            raise ValueError("norm acts on a weight, and this stage has none")
        own = Norm(network.makers[0], of_activation, condition=network.condition)
        super().__init__(shape, own, activation=activation)


@block("activate")
def activate(shape: Shape, /, *, activation: Activation = relu) -> Plain:
    """An activation alone.

    Options:
        activation: which one.
    """
    return Plain(activation(), shape)


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
        made = hand(attention, shape[0], norm)
        self.attention = conditional(made)
        self.conditioned = self.attention is made
        self.out = shape

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.attention(x, condition)
