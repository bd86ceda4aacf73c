"""Augments: what D sees of an image, real and fake alike, in D's turn and in G's.

Differentiable, so that G's gradient comes back through them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gankit.registry import augment

__all__ = ["flip"]


@augment("flip", needs={"positions"})
def flip(images: Tensor, random: torch.Generator, /, *, p: float = 0.5) -> Tensor:
    """Mirrors each image left to right with a probability.

    One of the operations of ADA, Karras et al., "Training Generative Adversarial Networks with
    Limited Data", 2020, arXiv:2006.06676, section 2.

    At 0.5, D cannot tell an image from its mirror, so G is free to make either.

    Options:
        p: the probability, for every image on its own

    Shape: (B, C, H, W), kept.

    Raises:
        ValueError: a probability out of [0, 1], or points rather than images.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"flip: p must be in [0, 1], not {p}")
    if images.ndim != 4:
        raise ValueError(f"flip: needs images (B, C, H, W), not a shape of {tuple(images.shape)}")
    # The CPU draws, so that every device flips the same images.
    drawn = torch.rand(len(images), generator=random, dtype=torch.float32, device="cpu")
    chosen = (drawn < p).to(images.device).view(-1, 1, 1, 1)
    return torch.where(chosen, images.flip(-1), images)
