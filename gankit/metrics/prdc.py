"""Precision, recall, density and coverage, by nearest neighbours of features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from gankit.metrics.checks import at_least, enough
from gankit.metrics.gathering import Kept
from gankit.metrics.neighbours import blocks, nearest
from gankit.registry import metric

__all__ = ["PRDC"]


@metric("prdc")
@dataclass(frozen=True, kw_only=True)
class PRDC:
    """Improved precision and recall, density and coverage: what is within whose reach.

    An image's reach is the ball that ends at its k-th nearest neighbour in its own set. Precision:
    the share of fake images within reach of any real one. Recall: of real images within reach of
    any fake one. Density: how many real images reach a fake one, over k; above 1 where fake images
    crowd. Coverage: the share of real images that reach any fake one.

    Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models",
    2019, arXiv:1904.06991, section 2 (precision and recall, k = 3, 50,000 images); Naeem et al.,
    "Reliable Fidelity and Diversity Metrics for Generative Models", 2020, arXiv:2002.09797,
    section 3 (density and coverage, k = 5, 10,000 images). All depend on the counts.

    Options:
        precision_k: which neighbour ends a reach, for precision and recall; at least 1
        density_k: the same for density and coverage; at least 1
        most: images of each set, drawn from all; the work grows with its square
        seed: of which images are drawn

    Raises:
        ValueError: an option out of range, or, in `scores`, sets no larger than k.
    """

    better: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("precision", "recall", "density", "coverage"), "higher"
    )
    precision_k: int = 3
    density_k: int = 5
    most: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("prdc", 1, precision_k=self.precision_k, density_k=self.density_k)
        at_least("prdc", 2, most=self.most)
        at_least("prdc", 0, seed=self.seed)

    def gather(self) -> Kept:
        """The features, of at most so many images."""
        return Kept("features", most=self.most, seed=self.seed)

    def scores(self, real: Kept, fake: Kept, /) -> dict[str, float]:
        """`precision`, `recall` and `coverage` from 0 to 1, `density` 0 or more."""
        most = max(self.precision_k, self.density_k)
        remedy = "one more than neighbours count: take more images, or a smaller k"
        enough("prdc", {"real": len(real), "fake": len(fake)}, most + 1, remedy)
        one, other = real.rows("features", "prdc"), fake.rows("features", "prdc")
        # A copy of the neighbour that ends a reach is within it, whatever rounding does.
        reaches = nearest(one, count=most) * (1 + 1e-9)
        reach, dense_reach = reaches[:, self.precision_k - 1], reaches[:, self.density_k - 1]
        fake_reach = nearest(other, count=self.precision_k)[:, -1] * (1 + 1e-9)

        precise = dense = 0
        recalled, covered = torch.zeros(2, len(one), dtype=torch.bool)
        for start, squares in blocks(other, one):
            precise += int((squares <= reach).any(1).sum())
            within = squares <= dense_reach
            dense += int(within.sum())
            covered |= within.any(0)
            ends = fake_reach[start : start + len(squares), None]
            recalled |= (squares <= ends).any(0)
        return {
            "precision": precise / len(other),
            "recall": recalled.double().mean().item(),
            "density": dense / (self.density_k * len(other)),
            "coverage": covered.double().mean().item(),
        }
