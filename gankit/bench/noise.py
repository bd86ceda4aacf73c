"""Noise in the place of data that is not there: as many bytes of the same shape."""

from __future__ import annotations

import torch
from torch import Tensor

from gankit.randomness import generator
from gankit.slots import Image

__all__ = ["Noise"]

LENGTH = 50_000
"""As many images as CIFAR-10 has."""
KEPT = 256
"""How many of them are different; so few fit into any memory."""


class Noise:
    """Images that are nothing but noise, in memory.

    Shape: images (B, C, H, W) uint8; points (B, C) float32.
    """

    def __init__(self, image: Image, batch: int) -> None:
        self.image = image
        self._length = max(LENGTH, batch)
        random = generator("noise")
        if image.size:
            self._kept = torch.randint(
                256, (KEPT, *image.shape), dtype=torch.uint8, generator=random
            )
        else:
            self._kept = torch.randn(KEPT, *image.shape, generator=random)

    def __len__(self) -> int:
        return self._length

    def images(self, indices: Tensor) -> Tensor:
        """The images at the indices."""
        return self._kept[indices % KEPT]

    def labels(self, indices: Tensor) -> Tensor | None:
        """Classes in turn, (B,) int64; None without classes."""
        return indices % self.image.classes if self.image.classes else None
