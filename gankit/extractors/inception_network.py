"""The Inception-v3 network of 2015-12-05, whose features all published FIDs are made of.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015, arXiv:1512.00567,
as Google trained it and released it for TensorFlow. Its layers have the names of torchvision's
port, under which the published weights are kept.

Differs from the paper, and from torchvision's network: averages at a border are over the pixels
that exist, and the last stage takes a maximum where the one before it averages. So it was trained.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["CLASSES", "EPS", "SIDE", "WIDTH", "Branches", "Convolution", "Layer", "Network"]

SIDE = 299
"""Height and width of what it looks at."""

WIDTH = 2048
"""How many features it sees."""

CLASSES = 1008
"""The thousand of ImageNet, one for none of them, and seven that were never used."""

EPS = 1e-3
"""Of every batchnorm."""


class Network(nn.Module):
    """Images to the mean of the last maps, and to logits of it.

    Shape: (B, 3, 299, 299) in [-1, 1] to features (B, 2048) and logits (B, 1008).
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = _named(
            Conv2d_1a_3x3=Convolution(3, 32, 3, stride=2),
            Conv2d_2a_3x3=Convolution(32, 32, 3),
            Conv2d_2b_3x3=Convolution(32, 64, 3, padding=1),
            MaxPool_1=nn.MaxPool2d(3, 2),
            Conv2d_3b_1x1=Convolution(64, 80, 1),
            Conv2d_4a_3x3=Convolution(80, 192, 3),
            MaxPool_2=nn.MaxPool2d(3, 2),
            Mixed_5b=_fives(192, 32),
            Mixed_5c=_fives(256, 64),
            Mixed_5d=_fives(288, 64),
            Mixed_6a=_to_17(288),
            Mixed_6b=_sevens(768, 128),
            Mixed_6c=_sevens(768, 160),
            Mixed_6d=_sevens(768, 160),
            Mixed_6e=_sevens(768, 192),
            Mixed_7a=_to_8(768),
            Mixed_7b=_split(1280, _mean()),
            Mixed_7c=_split(WIDTH, nn.MaxPool2d(3, 1, padding=1)),
        )
        # Trained with a bias, which the Inception Score's first code left out, and others with it.
        self.fc = nn.Linear(WIDTH, CLASSES, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits."""
        features = self.body(images).mean((2, 3))
        return features, self.fc(features)


class Convolution(nn.Conv2d):
    """A convolution, the batchnorm behind it folded into its weights, and a ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to maps of its channels."""
        return super().forward(x).relu_()


class Branches(nn.ModuleList):
    """Networks side by side on the same maps; their channels are joined."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to maps of the channels of all."""
        return torch.cat([branch(x) for branch in self], 1)


class Layer(NamedTuple):
    """A convolution in a row of them: one that strides has no padding, any other keeps the size."""

    name: str
    channels: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1


def _fives(channels: int, pooled: int) -> Branches:
    """At 35x35, with a 5x5 convolution."""
    return Branches(
        _row(channels, Layer("branch1x1", 64)),
        _row(channels, Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, 5)),
        _row(
            channels,
            Layer("branch3x3dbl_1", 64),
            Layer("branch3x3dbl_2", 96, 3),
            Layer("branch3x3dbl_3", 96, 3),
        ),
        _row(channels, Layer("branch_pool", pooled), pool=_mean()),
    )


def _to_17(channels: int) -> Branches:
    """From 35x35 to 17x17."""
    return Branches(
        _row(channels, Layer("branch3x3", 384, 3, stride=2)),
        _row(
            channels,
            Layer("branch3x3dbl_1", 64),
            Layer("branch3x3dbl_2", 96, 3),
            Layer("branch3x3dbl_3", 96, 3, stride=2),
        ),
        nn.MaxPool2d(3, 2),
    )


def _sevens(channels: int, inner: int) -> Branches:
    """At 17x17, with convolutions along rows and along columns."""
    return Branches(
        _row(channels, Layer("branch1x1", 192)),
        _row(
            channels,
            Layer("branch7x7_1", inner),
            Layer("branch7x7_2", inner, (1, 7)),
            Layer("branch7x7_3", 192, (7, 1)),
        ),
        _row(
            channels,
            Layer("branch7x7dbl_1", inner),
            Layer("branch7x7dbl_2", inner, (7, 1)),
            Layer("branch7x7dbl_3", inner, (1, 7)),
            Layer("branch7x7dbl_4", inner, (7, 1)),
            Layer("branch7x7dbl_5", 192, (1, 7)),
        ),
        _row(channels, Layer("branch_pool", 192), pool=_mean()),
    )


def _to_8(channels: int) -> Branches:
    """From 17x17 to 8x8."""
    return Branches(
        _row(channels, Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, 3, stride=2)),
        _row(
            channels,
            Layer("branch7x7x3_1", 192),
            Layer("branch7x7x3_2", 192, (1, 7)),
            Layer("branch7x7x3_3", 192, (7, 1)),
            Layer("branch7x7x3_4", 192, 3, stride=2),
        ),
        nn.MaxPool2d(3, 2),
    )


def _split(channels: int, pool: nn.Module) -> Branches:
    """At 8x8, with rows that end in two convolutions side by side."""

    def ends(name: str) -> Branches:
        return Branches(
            _row(384, Layer(f"{name}a", 384, (1, 3))),
            _row(384, Layer(f"{name}b", 384, (3, 1))),
        )

    return Branches(
        _row(channels, Layer("branch1x1", 320)),
        nn.Sequential(_row(channels, Layer("branch3x3_1", 384)), ends("branch3x3_2")),
        nn.Sequential(
            _row(channels, Layer("branch3x3dbl_1", 448), Layer("branch3x3dbl_2", 384, 3)),
            ends("branch3x3dbl_3"),
        ),
        _row(channels, Layer("branch_pool", 192), pool=pool),
    )


def _row(channels: int, *layers: Layer, pool: nn.Module | None = None) -> nn.Sequential:
    """Convolutions one after the other, behind a pool where there is one."""
    modules: dict[str, nn.Module] = {} if pool is None else {"pool": pool}
    for name, out, kernel, stride in layers:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if stride == 1 else 0
        modules[name] = Convolution(channels, out, (height, width), stride, padding)
        channels = out
    return _named(**modules)


def _named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def _mean() -> nn.AvgPool2d:
    return nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
