"""Whether a generator copies: how near it comes to its training images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gankit.metrics.checks import enough
from gankit.metrics.gathering import Kept
from gankit.metrics.neighbours import nearest
from gankit.registry import metric

__all__ = ["Memorisation"]


@metric("memorisation", needs={"held_out"})
@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """Whether fake images are nearer to the training images than other real images are.

    `memorisation` is the probability that a fake image is nearer to its nearest training image
    than a held-out image is to its own, ties counted half: 1/2 of a perfect generator, 1 of one
    that copies, 0 of one that is far off. `memorisation_z` is how many standard deviations the
    Mann-Whitney statistic of the same distances is from that of equal distributions, well below 0
    for copies; it grows with the counts.

    Meehan, Chaudhuri and Dasgupta, "A Non-Parametric Test to Detect Data-Copying in Generative
    Models", 2020, arXiv:2004.05675: `memorisation_z` is the statistic Z_U.

    Raises:
        ValueError: in `scores`, of an empty set.

    Differs from the paper: its C_T averages Z_U over the cells of a clustering of the training
    images, and so sees copies in one place that do not show in all places together. The deviation
    does not account for ties.
    """

    better: ClassVar[Mapping[str, str]] = {}

    def gather(self) -> Kept:
        """The features."""
        return Kept("features")

    def scores(self, real: Kept, fake: Kept, held_out: Kept, /) -> dict[str, float]:
        """`memorisation`, from 0 to 1, and `memorisation_z`."""
        counts = {"training": real.count, "fake": fake.count, "held-out": held_out.count}
        enough("memorisation", counts, 1, "take more images")
        training, generated, others = (
            each.rows("features", "memorisation") for each in (real, fake, held_out)
        )
        lead = _leading(nearest(generated, training)[:, 0], nearest(others, training)[:, 0])
        m, n = len(generated), len(others)
        z = m * n * (0.5 - lead) / math.sqrt(m * n * (m + n + 1) / 12)
        return {"memorisation": lead, "memorisation_z": z}


def _leading(one: Tensor, other: Tensor) -> float:
    """The share of pairs in which that of the first is smaller, equal ones counted half."""
    others = other.sort().values
    larger = len(others) - torch.searchsorted(others, one, right=True)
    smaller = torch.searchsorted(others, one)
    # Twice the pairs that lead, as a whole number: beyond are 2 x larger + 1 x equal.
    twice = int((len(others) + larger - smaller).sum())
    return twice / (2 * len(one) * len(others))
