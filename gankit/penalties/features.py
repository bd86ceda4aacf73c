"""Penalties on what D sees in images before it says anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gankit.penalties.checks import check_options
from gankit.registry import penalty
from gankit.slots import Turn

__all__ = ["FeatureMatching"]


@penalty("feature_matching", needs={"real_in_generator"})
@dataclass(frozen=True, kw_only=True)
class FeatureMatching:
    """Draws the mean of D's features of fake images to that of real ones.

    weight x |mean f(real) - mean f(fake)|^2, the means being those over the batch.

    Salimans et al., "Improved Techniques for Training GANs", 2016, arXiv:1606.03498, section 3.1.

    Options:
        weight: the paper has 1; at least 0
        every: applied once in so many turns of G; at least 1

    Shape: real and fake images (B, ...) to a scalar; f is what D's last stage is given.

    Raises:
        ValueError: a negative weight, or `every` below 1.

    Differs from the paper: stands beside the adversarial loss, where the paper's is G's whole
        objective. The authors' code has the mean of absolute differences, not the sum of squares.
        Of a batch in several shares, the means are those of each share.
    """

    players: ClassVar[str] = "G"
    weight: float = 1.0
    every: int = 1

    def __post_init__(self) -> None:
        check_options("feature_matching", self.every, weight=self.weight)

    def __call__(self, turn: Turn, /) -> Tensor:
        """The penalty of a turn of G."""
        assert turn.real is not None, "a turn of G has real images where a part needs them"
        with torch.no_grad():
            real = turn.features(turn.real)
        fake = turn.features(turn.fake)
        return self.weight * (real.mean(0) - fake.mean(0)).square().sum()
