"""LeCamEma regularization: running averages of the logits as anchors."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gankit
from gankit.slots import Turn


@gankit.penalty("lecam_ema")
class LeCamEma(nn.Module):
    """Holds D's logits near the running average of those of the other side.

    weight x (mean relu(r - mean of past f)^2 + mean relu(mean of past r - f)^2).

    Tseng, Jiang, Liu, Yang and Yang, "Regularizing Generative Adversarial Networks under Limited
    Data", 2021, arXiv:2104.03310, section 3.2, equations 4 and 5.

    Options:
        weight: the paper's lambda
        decay: of the running averages, the paper's gamma
        start: first step that is penalised; until then the averages are those of the newest batch
        every: applied once in so many turns of D; the averages move only then

    Shape: logits (B, ...) to a scalar. `real` and `fake`, the averages, are scalars, and saved.

    Raises:
        ValueError: a negative weight or start, a decay out of [0, 1), `every` below 1.

    Differs from the paper: one-sided, through the relu, as in the authors' released code.
    """

    players: ClassVar[str] = "D"
    real: Tensor
    fake: Tensor

    def __init__(
        self, *, weight: float = 0.3, decay: float = 0.99, start: int = 1000, every: int = 1
    ) -> None:
        super().__init__()
        if weight < 0 or not 0 <= decay < 1 or start < 0 or every < 1:
            given = f"weight={weight}, decay={decay}, start={start}, every={every}"
            raise ValueError(f"lecam_ema: out of range: {given}")
        self.weight = weight
        self.decay = decay
        self.start = start
        self.every = every
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))

    def forward(self, turn: Turn, /) -> Tensor:
        """The penalty of a turn of D; moves the averages first."""
        real, fake = turn.real_logits, turn.fake_logits
        keep = self.decay if turn.step >= self.start else 0.0
        with torch.no_grad():
            self.real.lerp_(real.mean(), 1 - keep)
            self.fake.lerp_(fake.mean(), 1 - keep)
        if turn.step < self.start:
            return real.new_zeros(())
        above = F.relu(real - self.fake).square().mean()
        below = F.relu(self.real - fake).square().mean()
        return self.weight * (above + below)
