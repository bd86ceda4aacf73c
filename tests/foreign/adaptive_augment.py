"""ADA's controller: as much augmentation as keeps D from being too sure."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import gankit
from gankit.slots import Turn


@gankit.augment("adaptive_flip")
class AdaptiveFlip(nn.Module):
    """Changes the brightness of an image with a probability that follows how sure D is.

    p rises while the mean sign of D's real logits lies above the target, and falls below it.

    Karras et al., "Training Generative Adversarial Networks with Limited Data", 2020,
    arXiv:2006.06676, section 3 (the heuristic r_t).

    Options:
        target: the mean sign that is aimed at; in [-1, 1]
        images: how many D must see for p to go from 0 to 1; at least 1
        std: deviation of the change, in units of the image's values

    Shape: (B, ...), kept. `p`, the probability, is a scalar, and saved.

    Raises:
        ValueError: an option out of range.

    Differs from the paper: one transformation of its eighteen; p moves after every turn of D, there
        after every fourth.
    """

    p: Tensor

    def __init__(self, *, target: float = 0.6, images: int = 500_000, std: float = 0.2) -> None:
        super().__init__()
        if not -1 <= target <= 1 or images < 1 or std < 0:
            raise ValueError(f"adaptive: target={target}, images={images}, std={std}")
        self.target = target
        self.images = images
        self.std = std
        self.register_buffer("p", torch.zeros(()))

    def forward(self, images: Tensor, random: torch.Generator, /) -> Tensor:
        """The images, some of them lighter or darker."""
        # Drawn whatever p is, so that p decides no other draw.
        drawn = torch.rand(len(images), generator=random, dtype=torch.float32, device="cpu")
        offset = torch.randn(len(images), generator=random, dtype=torch.float32, device="cpu")
        chosen = drawn.to(images.device) < self.p
        change = self.std * torch.where(chosen, offset.to(images.device), 0.0)
        return images + change.to(images).view(-1, *[1] * (images.ndim - 1))

    def observe(self, turn: Turn) -> None:
        """Move p by the sign of D's real logits."""
        above = (turn.real_logits.sign().mean() - self.target).sign()
        self.p.add_(above * (len(turn.fake) / self.images)).clamp_(0, 1)
