"""Latents: where z is drawn from.

Drawn on the CPU in float32, so that one seed gives one z on every device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gankit.registry import latent

__all__ = ["normal", "uniform"]


@latent("normal")
def normal(count: int, width: int, random: torch.Generator, /, *, std: float = 1.0) -> Tensor:
    """Independent normal values with mean 0.

    What SAGAN, arXiv:1805.08318, and most GANs since draw from.

    Options:
        std: the standard deviation; above 0

    Shape: (count, width).

    Raises:
        ValueError: a deviation that is not above 0.
    """
    if not 0 < std < math.inf:
        raise ValueError(f"normal: std must be above 0, not {std}")
    return std * torch.randn(count, width, generator=random, dtype=torch.float32, device="cpu")


@latent("uniform")
def uniform(
    count: int, width: int, random: torch.Generator, /, *, low: float = -1.0, high: float = 1.0
) -> Tensor:
    """Independent values, equally likely anywhere between two bounds.

    DCGAN, Radford, Metz and Chintala, 2016, arXiv:1511.06434, section 3, with bounds of +-1 in its
    released code.

    Options:
        low: the smallest value
        high: the bound above; more than low

    Shape: (count, width).

    Raises:
        ValueError: bounds that are not in order.
    """
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"uniform: low must be below high, not {low} and {high}")
    empty = torch.empty(count, width, dtype=torch.float32, device="cpu")
    return empty.uniform_(low, high, generator=random)
