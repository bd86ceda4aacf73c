"""What the loop tells of a step, and whom it asks for scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gankit.build import GAN

__all__ = ["Record", "Scoring"]


@dataclass(frozen=True)
class Record:
    """What is known after a step; the numbers are read from the device when they are asked for."""

    step: int
    """Steps taken so far."""
    measured: Mapping[str, Tensor]

    def numbers(self) -> dict[str, float]:
        """Losses, penalties, D's mean logits and the lengths of the gradients."""
        if not self.measured:
            return {}
        together = torch.stack([value.double() for value in self.measured.values()])
        return dict(zip(self.measured, together.tolist(), strict=True))


class Scoring(Protocol):
    """Scores a generator as a run trains it."""

    every: int
    """Steps between scores."""
    best: str
    """By which score the best checkpoint is kept, as `train.best` has it; may be empty."""

    def scores(self, gan: GAN, network: nn.Module, step: int) -> Mapping[str, float]:
        """The scores at a step, by name."""
        ...
