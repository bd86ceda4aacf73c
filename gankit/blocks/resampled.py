"""Convolutions with a change of size before or after them, as one layer each.

What the layers compute is in `gankit.ops`: `fast` says whether in the form of fewer products or as
it is written. The build sets it, by `fast` in [train].
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from gankit.ops import conv_pool, upsample_conv

__all__ = ["ConvPool2d", "UpsampleConv2d", "Upsampling"]

Upsampling = Literal["nearest", "bilinear"]


class UpsampleConv2d(nn.Conv2d):
    """Twice the height and width, then a convolution.

    Shape: (B, C, H, W) -> (B, channels, 2H, 2W).
    """

    fast_path = "folded"
    fast = True

    def __init__(self, wide: int, channels: int, kernel: int, mode: Upsampling = "nearest") -> None:
        super().__init__(wide, channels, kernel, padding=kernel // 2)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return upsample_conv(x, self.weight, self.bias, self.mode, fast=self.fast)


class ConvPool2d(nn.Conv2d):
    """A convolution, then the mean of each 2x2.

    Shape: (B, C, H, W) -> (B, channels, H // 2, W // 2).
    """

    fast_path = "folded"
    fast = True

    def __init__(self, wide: int, channels: int, kernel: int) -> None:
        super().__init__(wide, channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return conv_pool(x, self.weight, self.bias, fast=self.fast)
