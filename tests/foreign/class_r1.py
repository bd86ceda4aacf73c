"""R1 with a strength for every class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import gankit
from gankit.slots import Turn


@gankit.penalty("class_r1", needs={"second_order", "labels"})
@dataclass(frozen=True, kw_only=True)
class ClassR1:
    """Holds D flat at the real images, for some classes more than for others.

    weight / 2 x mean of factor(label) x squared norm of D's gradient at the image.

    R1 is Mescheder, Geiger and Nowozin, 2018, arXiv:1801.04406, equation 9; the factors are ours,
    for classes of which there are few images.

    Options:
        weight: the paper's gamma; at least 0
        factors: one for each class, at least 0; none are all 1
        every: applied once in so many turns of D; at least 1

    Shape: real images (B, ...) with labels (B,) to a scalar.

    Raises:
        ValueError: a negative weight or factor, `every` below 1; when called, a class that has no
            factor.
    """

    players: ClassVar[str] = "D"
    weight: float = 10.0
    factors: tuple[float, ...] = ()
    every: int = 1

    def __post_init__(self) -> None:
        if not all(0 <= number < math.inf for number in (self.weight, *self.factors)):
            raise ValueError(f"class_r1: below 0: weight {self.weight}, factors {self.factors}")
        if self.every < 1:
            raise ValueError(f"class_r1: every must be at least 1, not {self.every}")

    def __call__(self, turn: Turn, /) -> Tensor:
        """The penalty of a turn of D."""
        assert turn.real is not None, "a turn of D has real images"
        assert turn.labels is not None, "labels are declared as needed"
        images = turn.real.detach().requires_grad_()
        logits = turn.discriminator(images).sum()
        (gradient,) = torch.autograd.grad(logits, images, create_graph=True)
        squared = gradient.flatten(1).square().sum(1)
        return self.weight / 2 * (self._of(turn.labels).to(squared) * squared).mean()

    def _of(self, labels: Tensor) -> Tensor:
        """The factor of each row, (B,)."""
        if not self.factors:
            return torch.ones(labels.shape, device=labels.device)
        highest = int(labels.max())
        if highest >= len(self.factors):
            raise ValueError(f"class_r1: {len(self.factors)} factors, and a class {highest}")
        return torch.tensor(self.factors, device=labels.device)[labels]
