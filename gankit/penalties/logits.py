"""Penalties on what D says: that it stays near what it said before, and the same of changed images.

Logits count as in losses: every one alike, whatever their shape (B, ...).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankit.augments import flip, translation
from gankit.errors import OptionError
from gankit.penalties.checks import check_options
from gankit.registry import penalty
from gankit.slots import Augment, Turn

__all__ = ["Consistency", "LeCam"]


@penalty("lecam")
class LeCam(nn.Module):
    """Holds D's logits near the moving average of those of the other side.

    With r and f the logits of this turn, and R and F the averages of those before it:
    weight x (mean relu(r - F)^2 + mean relu(R - f)^2).

    Tseng, Jiang, Liu, Yang and Yang, "Regularizing Generative Adversarial Networks under Limited
    Data", 2021, arXiv:2104.03310, section 3.2.

    By hand, call `observe` once in each of D's turns, as the engine does.

    Options:
        weight: the paper's lambda; at least 0
        every: applied once in so many turns of D, while the averages move in each; at least 1
        decay: of the averages, the paper's gamma; in [0, 1)
        start: the first step at which it is applied; the averages move before it too
        one_sided: leave real logits alone that are below F, and fake ones above R

    Shape: logits (B, ...) to a scalar. The buffer `averages` holds those of real and fake, (2,);
        `seen` the number of turns in them. Before the first, the penalty is 0.

    Raises:
        ValueError: a negative weight or start, a decay out of [0, 1), `every` below 1.

    Differs from the paper: one-sided, as in the authors' released code; without `one_sided` it is
        the paper's equation. The averages are those of the turns before this one, so that every
        share of a batch is held to the same; the code has this turn in them. The first turn counts
        no more in them than those after it, as in the code for StyleGAN2 (its zero_debias); the
        code for CIFAR begins after 1000 steps instead.
    """

    players: ClassVar[str] = "D"
    averages: Tensor
    seen: Tensor

    def __init__(
        self,
        *,
        weight: float = 0.3,
        every: int = 1,
        decay: float = 0.99,
        start: int = 0,
        one_sided: bool = True,
    ) -> None:
        super().__init__()
        check_options("lecam", every, weight=weight, start=start)
        if not 0 <= decay < 1:
            raise ValueError(f"lecam: decay must be in [0, 1), not {decay}")
        self.weight = weight
        self.every = every
        self.decay = decay
        self.start = start
        self.one_sided = one_sided
        self.register_buffer("averages", torch.zeros(2))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, turn: Turn, /) -> Tensor:
        """The penalty of a turn of D."""
        real, fake = self.averages
        above, below = turn.real_logits - fake, real - turn.fake_logits
        if self.one_sided:
            above, below = above.relu(), below.relu()
        value = above.square().mean() + below.square().mean()
        applies = (self.seen > 0) & (turn.step >= self.start)
        return self.weight * torch.where(applies, value, torch.zeros_like(value))

    @torch.no_grad()
    def observe(self, turn: Turn) -> None:
        """Take a turn's logits into the averages; those that are not finite are left out."""
        means = torch.stack([turn.real_logits.mean(), turn.fake_logits.mean()]).to(self.averages)
        finite = means.isfinite().all()
        self.seen += finite
        # Of the first turn 1, later on ever closer to 1 - decay.
        rate = (1 - self.decay) / (1 - self.decay ** self.seen.double())
        moved = self.averages.lerp(means, rate.to(means))
        self.averages.copy_(torch.where(finite, moved, self.averages))


@penalty("consistency")
@dataclass(frozen=True, kw_only=True)
class Consistency:
    """Holds D's logits of an image to those of the image changed by augments.

    With T the augments: weight x (mean (D(x) - D(T(x)))^2 at real images, plus `fake` times the
    same at fake ones).

    Zhang, Zhang, Odena and Lee, "Consistency Regularization for Generative Adversarial Networks",
    2019, arXiv:1910.12027, section 2: real images alone. With `fake = 1` balanced consistency,
    Zhao et al., "Improved Consistency Regularization for GANs", 2020, arXiv:2002.04724, section 2.

    The adversarial loss goes on seeing images as they are. Augments of the spec itself, if any, act
    on x and on T(x), drawn for each anew.

    Options:
        weight: the papers' lambda; at least 0
        every: applied once in so many turns of D; at least 1
        fake: what fake images count, where real ones count 1; at 0 they are not looked at
        augments: applied in this order, they are T

    Shape: real and fake images (B, ...) to a scalar; logits of any shape.

    Raises:
        OptionError: an augment that has a state, as `adaptive`.
        ValueError: a negative weight or `fake`, or `every` below 1.

    Differs from the paper: of several logits of an image, the mean of squares rather than the sum.
        Where T moves images, what comes in is whatever the augment has there.
    """

    players: ClassVar[str] = "D"
    weight: float = 10.0
    every: int = 1
    fake: float = 0.0
    augments: tuple[Augment, ...] = (flip, translation)

    def __post_init__(self) -> None:
        check_options("consistency", self.every, weight=self.weight, fake=self.fake)
        for augment in self.augments:
            if isinstance(augment, nn.Module) and augment.state_dict():
                name = type(augment).__name__
                message = f"consistency: {name} has a state; it can stand in [[augment]] alone"
                raise OptionError("augments", message)

    def __call__(self, turn: Turn, /) -> Tensor:
        """The penalty of a turn of D."""
        assert turn.real is not None, "a turn of D has real images"
        total = self._change(turn, turn.real, turn.real_logits)
        if self.fake:
            total = total + self.fake * self._change(turn, turn.fake, turn.fake_logits)
        return self.weight * total

    def _change(self, turn: Turn, images: Tensor, logits: Tensor) -> Tensor:
        """What the augments change about D's logits of images."""
        images = images.detach()
        for augment in self.augments:
            images = augment(images, turn.random)
        return F.mse_loss(turn.discriminator(images), logits)
