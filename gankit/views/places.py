"""Positions of a feature map: those of chosen pixels, and those worth asking about."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from gankit.errors import UsageError

__all__ = ["DETAILED", "positions", "positions_of"]

DETAILED = 4
"""Positions asked where the image has most detail; one more is asked where it has least."""


def positions_of(
    at: Iterable[tuple[int, int]], image: Tensor, height: int, width: int
) -> list[tuple[int, int]]:
    """The positions of a feature map that pixels of its image belong to.

    Raises:
        UsageError: there is no such pixel.
    """
    high, wide = image.shape[1:]
    for y, x in at:
        if not (0 <= y < high and 0 <= x < wide):
            raise UsageError(f"--at {y},{x} is outside of an image of {high} rows of {wide} pixels")
    return [(y * height // high, x * width // wide) for y, x in at]


def positions(image: Tensor, height: int, width: int) -> list[tuple[int, int]]:
    """Which positions of a feature map to ask: where the image has most detail, and where least.

    Detail is the mean difference between neighbouring pixels; the positions keep a distance of a
    quarter of the map.

    Shape: image (C, H, W).
    """
    grey = image.float().mean(0, keepdim=True)
    down = F.pad((grey[:, 1:] - grey[:, :-1]).abs(), (0, 0, 0, 1))
    right = F.pad((grey[:, :, 1:] - grey[:, :, :-1]).abs(), (0, 1))
    detail = F.adaptive_avg_pool2d(down + right, (height, width))[0]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    free = torch.ones_like(detail, dtype=torch.bool)
    chosen = []
    for rank in range(DETAILED + 1):
        least = rank == DETAILED
        scored = detail.masked_fill(~free, math.inf if least else -math.inf)
        flat = int(scored.argmin() if least else scored.argmax())
        y, x = divmod(flat, width)
        chosen.append((y, x))
        near = ((rows - y).abs() < height / 4) & ((columns - x).abs() < width / 4)
        free &= ~near
    return chosen
