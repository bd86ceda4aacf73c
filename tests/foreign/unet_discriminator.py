"""U-Net GAN's discriminator: it judges the image as a whole and every pixel of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

import gankit
from gankit import blocks
from gankit.activations import relu
from gankit.errors import OptionError
from gankit.initializers import xavier
from gankit.networks import initialize
from gankit.slots import Activation, Image, Initializer, Norm, Shape


@gankit.discriminator("unet")
class UNet(nn.Module):
    """Residual blocks down to a global logit, and up again, past skips, to a logit per pixel.

    Schönfeld, Schiele and Khoreva, "A U-Net Based Discriminator for Generative Adversarial
    Networks" (2020), section 3.1, arXiv:2002.12655.

    Options:
        width: channels of the first stage, doubled per halving.
        depth: how often the size is halved.
        norm: for every stage.
        activation: after each norm.
        initializer: of every layer's weight.

    Shape: images (B, C, H, W) -> `global` (B, 1), `pixels` (B, 1, H, W).

    Raises:
        OptionError: points rather than images, or sides that cannot be halved so often.
    """

    adversarial: ClassVar[Mapping[str, float]] = {"global": 1.0, "pixels": 1.0}

    def __init__(
        self,
        image: Image,
        /,
        *,
        width: int = 64,
        depth: int = 2,
        norm: Norm = Norm(),
        activation: Activation = relu,
        initializer: Initializer = xavier,
    ) -> None:
        super().__init__()
        if not image.size:
            raise OptionError("use", '"unet" looks at images; the data are points')
        if depth < 1 or any(side % 2**depth for side in image.size):
            raise OptionError("depth", f"{image.size} cannot be halved {depth} times")
        shape: Shape = (image.channels, *image.size)
        channels = [width << level for level in range(depth)]
        skips: list[Shape] = []
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, wide in enumerate(channels):
            make = blocks.residual_down if level else blocks.residual_stem
            stage = make(shape, norm, channels=wide, activation=activation)
            self.down.append(stage)
            skips.append(shape := stage.out)
        self.whole = norm.weight(nn.Linear(shape[0], 1))
        for level, wide in enumerate([*channels[-2::-1], width]):
            # From the second on, what came down at this size stands beside what comes up.
            joined = shape[0] + (skips[-1 - level][0] if level else 0)
            entering = (joined, shape[1], shape[2])
            stage = blocks.residual_up(entering, norm, channels=wide, activation=activation)
            self.up.append(stage)
            shape = stage.out
        self.activation = activation()
        self.pixel = norm.weight(nn.Conv2d(shape[0], 1, 1))
        initialize(self, initializer)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x, skips = images, []
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        whole = self.whole(self.activation(x).sum((2, 3)))
        for level, stage in enumerate(self.up):
            x = stage(torch.cat([x, skips[-1 - level]], 1) if level else x)
        return {"global": whole, "pixels": self.pixel(self.activation(x))}
