"""The kernel distance between features of real and fake images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gankit.metrics.checks import at_least, enough
from gankit.metrics.gathering import Kept
from gankit.randomness import generator
from gankit.registry import metric

__all__ = ["Kernel", "discrepancy"]


@metric("kernel")
@dataclass(frozen=True, kw_only=True)
class Kernel:
    """The squared maximum mean discrepancy of a cubic kernel (KID on Inception features), unbiased.

    The kernel is (x . y / D + 1)^3. The score is a mean over random subsets of both sets; its
    expectation does not depend on the number of images, and is 0 for equal distributions, so half
    of the scores of a perfect generator are below 0.

    Binkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", 2018, arXiv:1801.01401.

    Options:
        subsets: how many; at least 2
        size: images of each set in a subset; at least 2
        seed: of which images are drawn

    Raises:
        ValueError: an option out of range, or, in `scores`, sets no larger than a subset.

    Differs from the paper: `kernel_std`, over subsets, is what is often printed behind KID as its
    error. Subsets overlap, so the error is another: the deviation of a mean of as many values,
    sqrt(1 / subsets), beside that of the images themselves, sqrt(size / (count - size)), of the
    smaller set. Where both distributions are alike it is rather too large.
    """

    better: ClassVar[Mapping[str, str]] = {"kernel": "lower"}
    subsets: int = 100
    size: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("kernel", 2, subsets=self.subsets, size=self.size)
        at_least("kernel", 0, seed=self.seed)

    def gather(self) -> Kept:
        """The features."""
        return Kept("features")

    def scores(self, real: Kept, fake: Kept, /) -> dict[str, float]:
        """`kernel`, its standard error `kernel_error`, and `kernel_std` over subsets."""
        remedy = f"subsets have {self.size}: take more images, or a smaller `size`"
        enough("kernel", {"real": real.count, "fake": fake.count}, self.size + 1, remedy)
        one, other = real.rows("features", "kernel"), fake.rows("features", "kernel")
        random = generator("kernel", self.seed)

        def drawn(rows: Tensor) -> Tensor:
            return rows[torch.randperm(len(rows), generator=random)[: self.size]].double()

        values = torch.stack([discrepancy(drawn(one), drawn(other)) for _ in range(self.subsets)])
        # Drawing without replacement from few images hides how much those images are chance.
        images = self.size / (min(len(one), len(other)) - self.size)
        std = values.std(correction=0).item()
        return {
            "kernel": values.mean().item(),
            "kernel_error": std * math.sqrt(images + 1 / self.subsets),
            "kernel_std": std,
        }


def discrepancy(one: Tensor, other: Tensor) -> Tensor:
    """The unbiased estimate of the squared discrepancy, without images' likeness to themselves.

    Shape: (M, D) and (N, D) to a scalar.
    """

    def likeness(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT / a.shape[1] + 1) ** 3

    def others(a: Tensor) -> Tensor:
        to_itself = (a.square().sum(1) / a.shape[1] + 1) ** 3
        return (likeness(a, a).sum() - to_itself.sum()) / (len(a) * (len(a) - 1))

    return others(one) + others(other) - 2 * likeness(one, other).mean()
