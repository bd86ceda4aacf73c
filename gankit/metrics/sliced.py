"""The sliced Wasserstein distance between features of real and fake images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gankit.metrics.checks import at_least, enough
from gankit.metrics.gathering import Kept
from gankit.randomness import generator
from gankit.registry import metric

__all__ = ["SlicedWasserstein", "transport"]

AT_ONCE = 64
"""Directions whose coordinates are sorted at a time."""


@metric("swd")
@dataclass(frozen=True, kw_only=True)
class SlicedWasserstein:
    """The sliced Wasserstein distance: what it takes to move one set's shadows onto the other's.

    Both sets are projected onto random directions. The distances there, exact also for sets of two
    sizes, are raised to `order`, averaged over directions, and the root taken of that.

    Rabin, Peyre, Delon and Bernot, "Wasserstein Barycenter and Its Application to Texture Mixing",
    2011, with order 2; Bonneel et al., "Sliced and Radon Wasserstein Barycenters of Measures",
    2015. The SWD of Karras et al., 2018, arXiv:1710.10196, section 5, is another: of order 1, on
    normalised 7x7 patches of a Laplacian pyramid, times a thousand.

    Options:
        projections: how many directions; at least 1
        order: p of the Wasserstein distance; at least 1
        seed: of the directions

    Raises:
        ValueError: an option out of range, or, in `scores`, an empty set.
    """

    better: ClassVar[Mapping[str, str]] = {"swd": "lower"}
    projections: int = 512
    order: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("swd", 1, projections=self.projections, order=self.order)
        at_least("swd", 0, seed=self.seed)

    def gather(self) -> Kept:
        """The features."""
        return Kept("features")

    def scores(self, real: Kept, fake: Kept, /) -> dict[str, float]:
        """`swd`, in the features' unit."""
        enough("swd", {"real": real.count, "fake": fake.count}, 1, "take more images")
        one, other = real.rows("features", "swd"), fake.rows("features", "swd")
        shape = (one.shape[1], self.projections)
        random = generator("swd", self.seed)
        directions = torch.randn(shape, generator=random, dtype=torch.float64)
        directions /= torch.linalg.vector_norm(directions, dim=0)
        total = 0.0
        for some in directions.split(AT_ONCE, 1):
            total += transport(_onto(one, some), _onto(other, some), self.order).sum().item()
        return {"swd": (total / self.projections) ** (1 / self.order)}


def _onto(rows: Tensor, directions: Tensor) -> Tensor:
    """Coordinates along directions, (N, P), without the rows being in float64 all at once."""
    return torch.cat([part.double() @ directions for part in rows.split(4096)])


def transport(one: Tensor, other: Tensor, order: int) -> Tensor:
    """Wasserstein distances on the line to the power of `order`, column by column.

    In one dimension the best plan keeps the order: the q-th part of one set goes to the q-th part
    of the other, and both are constant between steps of 1 / M and 1 / N.

    Shape: (M, P) and (N, P) to (P,).
    """
    m, n = len(one), len(other)
    # In units of 1 / (M N), so that steps of both sets that meet do so exactly.
    steps = torch.cat([torch.arange(1, m + 1) * n, torch.arange(1, n + 1) * m]).unique()
    widths = torch.diff(steps, prepend=steps.new_zeros(1)).double() / (m * n)
    one, other = one.sort(0).values[(steps - 1) // n], other.sort(0).values[(steps - 1) // m]
    return widths @ (one - other).abs() ** order
