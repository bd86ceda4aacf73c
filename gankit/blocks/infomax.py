"""What InfoMax-GAN adds to a discriminator: one space for an image and for its places."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gankit.activations import relu
from gankit.blocks.checks import at_least_one
from gankit.blocks.residual import Shortcut, residual
from gankit.registry import block
from gankit.slots import Activation, Norm, Shape

__all__ = ["InfoMax"]


@block("infomax")
class InfoMax(nn.Module):
    """A residual block, a sum over positions, one logit; before and after it, two more heads.

    `local` is a vector for every position of what comes in, `global` one for the image as a whole;
    an `infomax` penalty teaches them, which nothing else does.

    Lee, Tran and Cheung, "InfoMax-GAN: Improved Adversarial Image Generation via Information
    Maximization and Contrastive Learning" (2021), section 3, arXiv:2007.04589.

    Options:
        features: how wide the vectors are, the paper's R.
        activation: of the residual block, and before the sum.
        shortcut: of the residual block; it and the `local` head see the `input`, or that
            `activated`, as where an activation that works in place has changed it: in mimicry.

    Shape: (B, C, H, W) -> (B, 1 + features + features H W, 1, 1), in the order of `heads`.
    """

    def __init__(
        self,
        shape: Shape,
        norm: Norm = Norm(),
        /,
        *,
        features: int = 1024,
        activation: Activation = relu,
        shortcut: Shortcut = "input",
    ) -> None:
        super().__init__()
        at_least_one(features=features)
        channels, height, width = shape
        self.heads = {"logits": 1, "global": features, "local": features * height * width}
        self.block = residual(
            shape, norm, channels=channels, activation=activation, shortcut=shortcut
        )
        self.activation = activation()
        self.dense = norm.weight(nn.Linear(channels, 1))
        self.globally = _Critic(channels, features, norm, activation)
        self.locally = _Critic(channels, features, norm, activation)
        self.out: Shape = (sum(self.heads.values()), 1, 1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        summed = self.activation(self.block(x, condition)).sum(dim=(2, 3), keepdim=True)
        places = self.block.enter(x, condition) if self.block.activated else x
        heads = (self.dense(summed.flatten(1)), self.globally(summed), self.locally(places))
        return torch.cat([head.flatten(1) for head in heads], dim=1)[:, :, None, None]


class _Critic(nn.Module):
    """Two 1x1 convolutions beside one: the projection into the space of both kinds of vectors."""

    def __init__(self, channels: int, features: int, norm: Norm, activation: Activation) -> None:
        super().__init__()
        self.enter = norm.weight(nn.Conv2d(channels, channels, 1))
        self.activation = activation()
        self.leave = norm.weight(nn.Conv2d(channels, features, 1))
        self.shortcut = norm.weight(nn.Conv2d(channels, features, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.activation(self.enter(x))) + self.shortcut(x)
