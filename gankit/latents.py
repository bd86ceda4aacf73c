"""Latents: where z is drawn from.

Drawn on the CPU in float32, so that one seed gives one z on every device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gankit.errors import OptionError
from gankit.registry import latent

__all__ = ["normal", "truncated", "uniform"]


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


@latent("truncated")
def truncated(
    count: int,
    width: int,
    random: torch.Generator,
    /,
    *,
    std: float = 1.0,
    threshold: float = 2.0,
) -> Tensor:
    """Independent normal values of which none lies beyond a threshold.

    Brock, Donahue and Simonyan, "Large Scale GAN Training for High Fidelity Natural Image
    Synthesis", 2019, arXiv:1809.11096, section 3.1: values beyond the threshold are drawn again.
    The nearer it lies, the more alike and the more typical the images are.

    Options:
        std: the standard deviation before anything is cut off; above 0
        threshold: the largest magnitude, in units of std; above 0

    Shape: (count, width).

    Raises:
        OptionError: a deviation or threshold that is not above 0.

    Differs from the paper: one draw per value, through the inverse of the distribution function, so
        that no value depends on how often others are drawn again; and latents are drawn so in
        training too, there only of a generator that has been trained without.
    """
    if not 0 < std < math.inf:
        raise OptionError("std", f"truncated: std must be above 0, not {std}")
    if not 0 < threshold < math.inf:
        raise OptionError("threshold", f"truncated: threshold must be above 0, not {threshold}")
    # In float64, because float32 has no values between 1 and what lies beyond five deviations.
    drawn = torch.rand(count, width, generator=random, dtype=torch.float64, device="cpu")
    within = math.erf(threshold / math.sqrt(2))
    z = math.sqrt(2) * torch.erfinv(within * (2 * drawn - 1))
    return (std * z.clamp(-threshold, threshold)).float()


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
