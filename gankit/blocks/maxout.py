"""Maxout and dropout: what the first GAN's discriminator is made of."""

from __future__ import annotations

import math

from torch import Tensor, nn

from gankit.blocks.checks import at_least_one
from gankit.blocks.layers import Plain
from gankit.errors import OptionError
from gankit.registry import block
from gankit.slots import Norm, Shape

__all__ = ["Maxout", "dropout"]


@block("maxout")
class Maxout(nn.Module):
    """Units that are each the greatest of several dense layers of everything that comes in.

    Goodfellow, Warde-Farley, Mirza, Courville and Bengio, "Maxout Networks" (2013), section 3,
    arXiv:1302.4389.

    Options:
        channels: how many units.
        pieces: how many layers each is the greatest of, the paper's k.

    Shape: (B, C, H, W) -> (B, channels, 1, 1).
    """

    def __init__(
        self, shape: Shape, norm: Norm = Norm(), /, *, channels: int, pieces: int = 5
    ) -> None:
        super().__init__()
        at_least_one(channels=channels, pieces=pieces)
        self.pieces = pieces
        self.dense = norm.weight(nn.Linear(math.prod(shape), channels * pieces))
        self.out: Shape = (channels, 1, 1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        pieces = self.dense(x.flatten(1)).unflatten(1, (-1, self.pieces))
        return pieces.amax(dim=2)[:, :, None, None]


@block("dropout")
def dropout(shape: Shape, /, *, rate: float = 0.5) -> Plain:
    """Sets values to 0 at random while training, and makes up for it in those that are left.

    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout" (2014), section 4.

    Options:
        rate: the share that is set to 0; in [0, 1)

    Shape: (B, C, H, W) -> the same.

    Raises:
        OptionError: a rate out of [0, 1).
    """
    if not 0 <= rate < 1:
        raise OptionError("rate", f"dropout: rate must be in [0, 1), not {rate}")
    return Plain(nn.Dropout(rate), shape)
