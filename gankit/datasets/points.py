"""Mixtures of Gaussians in the plane, on which mode collapse can be counted.

The ring of 8 and the grid of 25 are those of VEEGAN (arXiv:1705.07761) and PacGAN
(arXiv:1712.04086), with the constants of their public code.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from gankit.datasets.checks import above, at_least, rows
from gankit.registry import dataset
from gankit.slots import Image

__all__ = ["Grid", "Mixture", "Ring"]


class Mixture(ABC):
    """Equally likely round Gaussians of one width; a source says only where their centres are."""

    features: ClassVar[str] = "mixture"
    metrics: ClassVar[tuple[str, ...]] = ("modes",)
    samples: ClassVar[int] = 2500
    """So many points the published tables are of."""
    std: float
    length: int
    seed: int

    def __post_init__(self) -> None:
        above("std", self.std, 0)
        at_least("length", self.length, 1)
        at_least("seed", self.seed, 0)

    @property
    @abstractmethod
    def centres(self) -> Tensor:
        """Where the modes are, (modes, 2)."""

    @property
    def image(self) -> Image:
        """Points in the plane, unbounded, without classes."""
        return Image(channels=2, size=(), classes=0, bounded=False)

    @property
    def held_out(self) -> Self:
        """As many points of the next seed."""
        return replace(self, seed=self.seed + 1)  # type: ignore[type-var]  # every source is one

    def __len__(self) -> int:
        return self.length

    def images(self, indices: Tensor) -> Tensor:
        """The points at the indices, (B, 2) float32."""
        return self._table[rows(indices, self.length)]

    def labels(self, indices: Tensor) -> None:
        """None: which mode a point came from is what a generator has to find out."""
        return None

    @cached_property
    def _table(self) -> Tensor:
        random = torch.Generator().manual_seed(self.seed)
        centres = self.centres
        modes = torch.randint(len(centres), (self.length,), generator=random)
        return centres[modes] + self.std * torch.randn(self.length, 2, generator=random)


@dataset("ring")
@dataclass(frozen=True, kw_only=True)
class Ring(Mixture):
    """Points of Gaussians that stand evenly on a circle, the first at (radius, 0).

    Options:
        modes: how many Gaussians
        radius: of the circle
        std: of each Gaussian, along both axes
        length: how many points
        seed: of the points

    Shape: images (B, 2) float32; no labels.

    Raises:
        ValueError: an option out of range.
    """

    modes: int = 8
    radius: float = 1.0
    std: float = 0.01
    length: int = 100_000
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("modes", self.modes, 1)
        above("radius", self.radius, 0)

    @property
    def centres(self) -> Tensor:
        """Where the modes are, (modes, 2), counter-clockwise."""
        angles = torch.arange(self.modes, dtype=torch.float64) * (2 * math.pi / self.modes)
        return (self.radius * torch.stack([angles.cos(), angles.sin()], 1)).float()


@dataset("grid")
@dataclass(frozen=True, kw_only=True)
class Grid(Mixture):
    """Points of Gaussians that stand on a square grid around the origin.

    Options:
        side: Gaussians along each axis; side x side in all
        spacing: between neighbours
        std: of each Gaussian, along both axes
        length: how many points
        seed: of the points

    Shape: images (B, 2) float32; no labels.

    Raises:
        ValueError: an option out of range.
    """

    side: int = 5
    spacing: float = 2.0
    std: float = 0.05
    length: int = 100_000
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("side", self.side, 1)
        above("spacing", self.spacing, 0)

    @property
    def centres(self) -> Tensor:
        """Where the modes are, (side x side, 2)."""
        ticks = (torch.arange(self.side, dtype=torch.float64) - (self.side - 1) / 2) * self.spacing
        return torch.cartesian_prod(ticks, ticks).view(-1, 2).float()
