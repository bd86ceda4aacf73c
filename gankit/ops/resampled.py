"""Convolutions next to a change of size, as one convolution of fewer products.

To repeat every position twice and then convolve 3x3 is one transposed convolution 4x4 of stride 2;
to convolve 3x3 and then average 2x2 is one convolution 4x4 of stride 2. Their kernel is the 3x3 one
summed over its four shifts, so that an output takes 4 products a channel in place of 9, or 16 in
place of 36. A 1x1 convolution does its work on the small side of either. All are identities, at
borders and under derivatives of any order; only rounding differs.

Spectral norm and all else that looks at a weight sees the kernel as it is, not the sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankit.ops.matrices import full_precision

__all__ = ["channels_last", "conv_pool", "folded_kernel", "plainly", "upsample_conv"]

LEAST = 256
"""Of so many positions of the small side, over all rows, summing a kernel is worth while.

With fewer it costs more than the products it saves, as measured on CPUs (docs/benchmarks.md)."""


def upsample_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, mode: str = "nearest", *, fast: bool = True
) -> Tensor:
    """Twice the height and width, then a convolution that keeps the size.

    `mode` is that of torch's interpolation. Without `fast`, as it is written.

    Shape: x (B, C, H, W), weight (O, C, k, k) of odd k -> (B, O, 2H, 2W).
    """
    size = weight.shape[2]
    if fast and size == 1:
        return F.interpolate(F.conv2d(x, weight, bias), scale_factor=2, mode=mode)
    if fast and size == 3 and mode == "nearest" and _worth(x.shape[0] * x.shape[2] * x.shape[3]):
        kernel = folded_kernel(weight.flip(2, 3).transpose(0, 1))
        return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
    return F.conv2d(F.interpolate(x, scale_factor=2, mode=mode), weight, bias, padding=size // 2)


def conv_pool(x: Tensor, weight: Tensor, bias: Tensor | None, *, fast: bool = True) -> Tensor:
    """A convolution that keeps the size, then the mean of each 2x2.

    Without `fast`, as it is written.

    Shape: x (B, C, H, W), weight (O, C, k, k) of odd k -> (B, O, H // 2, W // 2).
    """
    size = weight.shape[2]
    if fast and size == 1:
        return F.conv2d(F.avg_pool2d(x, 2), weight, bias)
    # Of an odd side the last row or column is in no mean.
    height, width = x.shape[2] // 2, x.shape[3] // 2
    if fast and size == 3 and _worth(x.shape[0] * height * width):
        y = F.conv2d(x, folded_kernel(weight) / 4, bias, stride=2, padding=1)
        return y[:, :, :height, :width]
    return F.avg_pool2d(F.conv2d(x, weight, bias, padding=size // 2), 2)


def _worth(positions: int) -> bool:
    return positions >= LEAST


def folded_kernel(weight: Tensor) -> Tensor:
    """A 3x3 kernel summed over its four shifts.

    Shape: (A, B, 3, 3) -> (A, B, 4, 4).
    """
    # Made on the device, where nobody waits for it: each output row takes two of three input rows.
    shifts = weight.new_ones(4, 3).tril().triu(-1)
    with full_precision(weight):
        summed = weight.reshape(-1, 9) @ torch.kron(shifts, shifts).t()
    return summed.view(*weight.shape[:2], 4, 4)


def channels_last(x: Tensor) -> Tensor:
    """Feature maps laid out with the channels of a position beside one another, where that is fast.

    On CPUs, and on GPUs in half precision. What has one position is as it is.

    Shape: (B, C, H, W), kept.
    """
    device = x.device.type
    half = x.dtype in (torch.float16, torch.bfloat16) or (
        not x.is_meta and torch.is_autocast_enabled(device)
    )
    if x.shape[2] * x.shape[3] == 1 or not (device == "cpu" or half):
        return x
    return x.contiguous(memory_format=torch.channels_last)


@contextmanager
def plainly(*networks: nn.Module) -> Iterator[None]:
    """Within, every module with a fast form, and so a `fast_path`, computes as it is written."""
    modules = (module for network in networks for module in network.modules())
    fast = [module for module in modules if hasattr(module, "fast_path") and module.fast]
    for module in fast:
        module.fast = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in fast:
            module.fast = True  # type: ignore[assignment]
