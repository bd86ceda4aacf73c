"""BigGAN's generator: every stage is given a slice of the latent of its own."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

import gankit
from gankit import blocks
from gankit.activations import relu, tanh
from gankit.errors import OptionError
from gankit.initializers import xavier
from gankit.networks import Condition, initialize
from gankit.slots import Activation, Image, Initializer, Norm, Shape


@gankit.generator("sliced_latent")
class SlicedLatent(nn.Module):
    """The first slice of z opens the image; each residual block's norms are given another.

    Brock, Donahue and Simonyan, "Large Scale GAN Training for High Fidelity Natural Image
    Synthesis" (2019), appendix B.1, arXiv:1809.11096.

    Options:
        latent: width of z; one slice for the stem and one for each doubling must fit evenly.
        width: channels of the last stage, doubled per halving towards z.
        norm: for every stage; must have a conditional one, which the slices reach.
        activation: after each norm.
        label: what stands beside each slice in the condition: `none`, the one-hot `label` or its
            `embedding`.
        embedding: width of the label's embedding, shared by all stages.
        initializer: of every layer's weight.

    Shape: z (B, latent), labels (B,) or None -> (B, C, H, W).

    Raises:
        OptionError: points rather than images, a latent that does not divide, no conditional norm.

    Differs from the paper: the last norm is given the last slice too; theirs is unconditional.
    """

    def __init__(
        self,
        image: Image,
        /,
        *,
        latent: int = 120,
        width: int = 64,
        norm: Norm = Norm(),
        activation: Activation = relu,
        label: Literal["none", "label", "embedding"] = "none",
        embedding: int = 128,
        initializer: Initializer = xavier,
    ) -> None:
        super().__init__()
        if not image.size:
            raise OptionError("use", '"sliced_latent" makes images; the data are points')
        if not norm.needs_condition:
            raise OptionError("norm", "no norm here takes a condition, so z would end at the stem")
        doublings = 0
        while min(image.size) >> doublings >= 8 and not any(s >> doublings & 1 for s in image.size):
            doublings += 1
        height, wide = (side >> doublings for side in image.size)
        slices = doublings + 1
        if latent % slices:
            raise OptionError("latent", f"{slices} slices do not fit evenly into {latent}")
        self.latent = latent
        self.slice = latent // slices
        self.label = Condition(label, image, 0, embedding)
        given = norm.given(self.slice + self.label.width)
        channels = width << doublings
        self.stem = blocks.dense((self.slice, 1, 1), given, channels=channels, size=(height, wide))
        self.stages = nn.ModuleList()
        shape: Shape = self.stem.out
        for level in reversed(range(doublings)):
            stage = blocks.residual_up(shape, given, channels=width << level, activation=activation)
            self.stages.append(stage)
            shape = stage.out
        self.last = blocks.Normalise(shape, given, activation=activation)
        self.image = blocks.conv(shape, given, channels=image.channels)
        self.range = tanh() if image.bounded else nn.Identity()
        initialize(self, initializer)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        first, *slices = z.split(self.slice, dim=1)
        label = self.label(None, labels)
        conditions = [part if label is None else torch.cat([part, label], 1) for part in slices]
        x = self.stem(first[:, :, None, None])
        for stage, condition in zip(self.stages, conditions, strict=True):
            x = stage(x, condition)
        return self.range(self.image(self.last(x, conditions[-1])))
