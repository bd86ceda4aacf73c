"""The Inception Score: how sure and how varied a classifier finds images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from gankit.metrics.checks import at_least, enough
from gankit.metrics.gathering import Kept
from gankit.registry import metric

__all__ = ["InceptionScore"]


@metric("inception")
@dataclass(frozen=True, kw_only=True)
class InceptionScore:
    """exp of the mean divergence of an image's class probabilities from those of all images.

    From 1, where all images look alike to the classifier, to the number of classes. Real images
    play no part in it.

    Salimans et al., "Improved Techniques for Training GANs", 2016, arXiv:1606.03498, section 4.

    Options:
        splits: of the fake images, in the order in which they were made; at least 1

    Raises:
        ValueError: an option out of range, or, in `scores`, features without logits or fewer
            images than splits.
    """

    better: ClassVar[Mapping[str, str]] = {"inception": "higher"}
    reference_free: ClassVar[bool] = True
    splits: int = 10

    def __post_init__(self) -> None:
        at_least("inception", 1, splits=self.splits)

    def gather(self) -> Kept:
        """The logits."""
        return Kept("logits")

    def scores(self, real: Kept, fake: Kept, /) -> dict[str, float]:
        """`inception`, the mean over splits, and `inception_std`, their deviation."""
        logits = fake.rows("logits", "inception")
        remedy = "an image for each split: take more images, or fewer `splits`"
        enough("inception", {"fake": len(logits)}, self.splits, remedy)
        ends = [split * len(logits) // self.splits for split in range(self.splits + 1)]
        values = torch.stack([_score(logits[i:j]) for i, j in pairwise(ends)])
        return {
            "inception": values.mean().item(),
            "inception_std": values.std(correction=0).item(),
        }


def _score(logits: Tensor) -> Tensor:
    """That of one split: (B, K) to a scalar."""
    probabilities = logits.double().softmax(1)
    # The mean divergence is the entropy of the mean less the mean entropy; 0 log 0 is 0 in both.
    entropy = torch.special.entr(probabilities).sum(1).mean()
    return (torch.special.entr(probabilities.mean(0)).sum() - entropy).exp()
