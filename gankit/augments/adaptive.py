"""ADA: as much augmentation as keeps D from being too sure of the real images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gankit.augments.images import color, cutout, flip, translation
from gankit.errors import OptionError
from gankit.randomness import drawn, sent
from gankit.registry import augment
from gankit.slots import Augment, Observer, Turn

__all__ = ["Adaptive"]


@augment("adaptive")
class Adaptive(nn.Module):
    """Applies other augments with a probability that follows how sure D is of real images.

    Karras et al., "Training Generative Adversarial Networks with Limited Data", 2020,
    arXiv:2006.06676, section 3.1, with the heuristic r_t: the mean sign of D's logits of real
    images. Where D has learned them by heart it is near 1, and the probability p rises; p falls
    where it lies below the target. Each augment is applied to each image on its own.

    Options:
        augments: what is applied, in this order
        target: the mean sign that is aimed at; in [-1, 1]
        speed: how many real images D must see for p to go from 0 to 1; at least 1
        every: p moves once in so many turns of D; at least 1
        start: p at the beginning; in [0, 1]

    Shape: (B, ...), kept. `p` is a scalar; it is saved with the counts since it last moved.

    Raises:
        OptionError: a number out of its range.

    Differs from the paper: the augments are those of this library, there eighteen transformations
        of its own; p is kept at most 1 as well, so that it falls as soon as it is told to; a logit
        that is not a number counts as 0.
    """

    p: Tensor
    signs: Tensor
    images: Tensor
    turns: Tensor

    def __init__(
        self,
        *,
        augments: tuple[Augment, ...] = (flip, color, translation, cutout),
        target: float = 0.6,
        speed: int = 500_000,
        every: int = 4,
        start: float = 0.0,
    ) -> None:
        super().__init__()
        if not -1 <= target <= 1:
            raise OptionError("target", f"adaptive: target must be in [-1, 1], not {target}")
        if speed < 1:
            raise OptionError("speed", f"adaptive: speed must be at least 1, not {speed}")
        if every < 1:
            raise OptionError("every", f"adaptive: every must be at least 1, not {every}")
        if not 0 <= start <= 1:
            raise OptionError("start", f"adaptive: start must be in [0, 1], not {start}")
        self.augments = augments
        self.target = target
        self.speed = speed
        self.every = every
        self.register_buffer("p", torch.tensor(float(start)))
        for counted in ("signs", "images", "turns"):
            self.register_buffer(counted, torch.zeros(()))
        # For the state of those that have one.
        self.inner = nn.ModuleList(one for one in augments if isinstance(one, nn.Module))

    def forward(self, images: Tensor, random: torch.Generator, /) -> Tensor:
        """The images, each changed by some of the augments."""
        # Everything is drawn whatever p is, so that p decides no other draw.
        chosen = sent(drawn(random, len(images), len(self.augments)), images.device) < self.p
        for change, which in zip(self.augments, chosen.unbind(1), strict=True):
            which = which.view(-1, *[1] * (images.ndim - 1))
            images = torch.where(which, change(images, random), images)
        return images

    @torch.no_grad()
    def observe(self, turn: Turn) -> None:
        """Count a turn of D, and move p if it is time; nothing waits for the device."""
        for one in self.augments:
            if isinstance(one, Observer):
                one.observe(turn)
        self.signs += turn.real_logits.sign().nan_to_num().mean()
        self.images += len(turn.real_logits)
        self.turns += 1
        due = self.turns >= self.every
        towards = (self.signs / self.turns - self.target).sign()
        self.p += torch.where(due, towards * self.images / self.speed, 0.0)
        self.p.clamp_(0, 1)
        for counted in (self.signs, self.images, self.turns):
            counted.masked_fill_(due, 0)
