"""What R3GAN's networks are made of.

Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline" (2024), section 4,
arXiv:2501.05441, as released in brownvc/R3GAN.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankit.activations import leaky_relu
from gankit.blocks.checks import at_least_one
from gankit.blocks.layers import Plain
from gankit.errors import OptionError
from gankit.registry import block
from gankit.slots import Norm, Shape, keep

__all__ = [
    "Basis",
    "InvertedBottleneck",
    "interpolate_down",
    "interpolate_up",
    "smooth",
]


def smooth(x: Tensor) -> Tensor:
    """Each map filtered by [1, 2, 1] / 4 along both axes, with zeros around it."""
    x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 2, stride=1)
    return F.avg_pool2d(x, 2, stride=1)


class _Enlarge(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return smooth(F.interpolate(x, scale_factor=2, mode="nearest"))


class _Shrink(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(smooth(x), 2)


def _to(channels: int, wide: int, norm: Norm) -> list[nn.Module]:
    """A 1x1 convolution without bias, where there is something to change."""
    at_least_one(channels=channels)
    if wide == channels:
        return []
    return [norm.weight(nn.Conv2d(wide, channels, 1, bias=False))]


@block("interpolate_up")
def interpolate_up(shape: Shape, norm: Norm, /, *, channels: int) -> Plain:
    """Twice the height and width by interpolation; a 1x1 convolution first, if channels change.

    Huang et al. (2024), section 4, arXiv:2501.05441: the filter is [1, 3, 3, 1] / 4 along each
    axis, with zeros around the map.

    Options:
        channels: feature maps going out.

    Shape: (B, C, H, W) -> (B, channels, 2 H, 2 W).
    """
    wide, height, width = shape
    layers = nn.Sequential(*_to(channels, wide, norm), _Enlarge())
    return Plain(layers, (channels, 2 * height, 2 * width))


@block("interpolate_down")
def interpolate_down(shape: Shape, norm: Norm, /, *, channels: int) -> Plain:
    """Half the height and width by interpolation; a 1x1 convolution after, if channels change.

    Huang et al. (2024), section 4, arXiv:2501.05441: the filter is [1, 3, 3, 1] / 8 along each
    axis, with zeros around the map.

    Options:
        channels: feature maps going out.

    Shape: (B, C, H, W) -> (B, channels, H / 2, W / 2), rounded down.
    """
    wide, height, width = shape
    layers = nn.Sequential(_Shrink(), *_to(channels, wide, norm))
    return Plain(layers, (channels, height // 2, width // 2))


@block("basis")
class Basis(nn.Module):
    """A learned feature map for each channel, scaled by a dense layer of all that comes in.

    What R3GAN's generator starts with: Huang et al. (2024), section 4, arXiv:2501.05441.

    Options:
        channels: feature maps going out.
        size: their height and width.

    Shape: (B, C, H, W) -> (B, channels, *size).
    """

    def __init__(
        self, shape: Shape, norm: Norm, /, *, channels: int, size: tuple[int, int] = (4, 4)
    ) -> None:
        super().__init__()
        at_least_one(channels=channels, height=size[0], width=size[1])
        self.basis = nn.Parameter(torch.randn(channels, *size))
        self.scale = norm.weight(nn.Linear(math.prod(shape), channels, bias=False))
        self.out: Shape = (channels, *size)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.basis * self.scale(x.flatten(1))[:, :, None, None]


@block("inverted_bottleneck")
class InvertedBottleneck(nn.Module):
    """1x1 to more channels, a grouped convolution, 1x1 back, added to what came in; no norm.

    A leaky ReLU stands between the convolutions. The first two are drawn from a normal
    distribution of deviation sqrt(2 / (1 + slope^2) / inputs) / depth^(1/4), the last is 0, so the
    block starts as the identity: Zhang, Dauphin and Ma, "Fixup Initialization" (2019),
    arXiv:1901.09321. Huang et al. (2024), section 4, arXiv:2501.05441.

    Options:
        groups: the middle convolution's, the paper's cardinality; must divide its channels.
        depth: how many of these blocks the whole network has.
        expansion: the middle has so many times the channels.
        kernel: height and width of the middle kernel; odd.
        slope: of the leaky ReLU, below 0.

    Shape: (B, C, H, W) -> the same.

    Raises:
        OptionError: groups that do not divide the channels, an even kernel.

    Differs from the paper: the network's weight norm, if it has one, acts on the first two layers;
        the last starts at 0, which has no direction to normalise.
    """

    def __init__(
        self,
        shape: Shape,
        norm: Norm,
        /,
        *,
        groups: int,
        depth: int,
        expansion: int = 2,
        kernel: int = 3,
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        at_least_one(groups=groups, depth=depth, expansion=expansion, kernel=kernel)
        channels = shape[0]
        wide = channels * expansion
        if wide % groups:
            raise OptionError("groups", f"{groups} groups do not divide {wide} channels")
        if kernel % 2 == 0:
            raise OptionError("kernel", f"an even kernel, {kernel}, would move the feature map")
        gain = math.sqrt(2 / (1 + slope**2)) * depth ** (-1 / 4)
        middle = nn.Conv2d(wide, wide, kernel, padding=kernel // 2, groups=groups)
        last = nn.Conv2d(wide, channels, 1, bias=False)
        self.conv1 = norm.weight(_drawn(nn.Conv2d(channels, wide, 1), gain))
        self.conv2 = norm.weight(_drawn(middle, gain))
        self.conv3 = _drawn(last, 0.0)
        self.activation = leaky_relu(slope=slope)
        self.out = shape

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = self.conv2(self.activation(self.conv1(x)))
        return x + self.conv3(self.activation(h))


@torch.no_grad()
def _drawn(layer: nn.Conv2d, gain: float) -> nn.Conv2d:
    """The layer with weights of deviation gain / sqrt(inputs), which the network leaves alone."""
    layer.weight.normal_(0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        layer.bias.zero_()
    keep(layer)
    return layer
