"""What the sources check alike: options when they are made, indices when they are asked."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["above", "at_least", "height_width", "one_or_three", "rows"]


def height_width(
    size: int | tuple[int, int], *, name: str = "size", least: int = 1
) -> tuple[int, int]:
    """The (height, width) that `size` stands for; one number is a square.

    Raises:
        ValueError: when either is below `least`, or there are not two of them.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2:
        raise ValueError(f"{name} = {list(pair)}: must be one number, or [height, width]")
    for side in pair:
        at_least(name, side, least)
    return pair


def at_least(name: str, value: int, least: int) -> None:
    """Refuse a count below `least`.

    Raises:
        ValueError: naming the option and what is allowed.
    """
    if value < least:
        raise ValueError(f"{name} = {value}: must be {least} or more")


def above(name: str, value: float, bound: float) -> None:
    """Refuse a number that is not finite and above `bound`.

    Raises:
        ValueError: naming the option and what is allowed.
    """
    if not (math.isfinite(value) and value > bound):
        raise ValueError(f"{name} = {value}: must be a finite number above {bound}")


def one_or_three(channels: int) -> None:
    """Refuse channels that are neither grey (1) nor colour (3).

    Raises:
        ValueError: naming what is allowed.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels = {channels}: must be 1 (grey) or 3 (colour)")


def rows(indices: Tensor, length: int) -> Tensor:
    """The indices as int64 on the CPU.

    Shape: (B,) to (B,).

    Raises:
        TypeError: when they are not whole numbers in a row.
        IndexError: when one is negative or not below `length`.
    """
    if indices.dim() != 1 or indices.dtype not in (torch.int64, torch.int32):
        shape = tuple(indices.shape)
        raise TypeError(f"indices are (B,) int64, not {shape} {str(indices.dtype)[6:]}")
    indices = indices.to("cpu", torch.int64)
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < length:
        low, high = int(indices.min()), int(indices.max())
        raise IndexError(f"indices from {low} to {high} in a data set of {length}")
    return indices
