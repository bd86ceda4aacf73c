"""AC-GAN: a discriminator that also says which class it sees, and the penalty that teaches it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

import gankit
from gankit import blocks
from gankit.activations import leaky_relu
from gankit.errors import OptionError
from gankit.initializers import xavier
from gankit.networks import StackDiscriminator, initialize
from gankit.slots import Activation, Block, Image, Initializer, Norm, Turn


@gankit.discriminator("acgan", needs={"labels"})
class ClassifyingDiscriminator(nn.Module):
    """Strided convolutions down to 4 to 7 positions, from which two dense layers read.

    Odena, Olah and Shlens, "Conditional Image Synthesis with Auxiliary Classifier GANs" (2017),
    section 3, arXiv:1610.09585.

    Options:
        width: channels of the first stage, doubled per halving.
        norm: for every stage; the activation norm acts from the second on.
        activation: after each norm.
        initializer: of every layer's weight.

    Shape: images (B, C, H, W) -> `logits` (B, 1), `classes` (B, classes).

    Raises:
        OptionError: points rather than images.
    """

    adversarial: ClassVar[Mapping[str, float]] = {"logits": 1.0}

    def __init__(
        self,
        image: Image,
        /,
        *,
        width: int = 64,
        norm: Norm = Norm(),
        activation: Activation = leaky_relu,
        initializer: Initializer = xavier,
    ) -> None:
        super().__init__()
        if not image.size:
            raise OptionError("use", '"acgan" looks at images; the data are points')
        stages: list[Block] = []
        side, channels = min(image.size), width
        while side >= 8:
            follows = blocks.Normalise if stages else blocks.activate
            stages.append(partial(blocks.conv, channels=channels, kernel=4, stride=2))
            stages.append(partial(follows, activation=activation))
            side, channels = side // 2, 2 * channels
        self.trunk = StackDiscriminator(image, stages=tuple(stages), norm=norm)
        features = math.prod(self.trunk.out)
        self.logits = norm.weight(nn.Linear(features, 1))
        self.classes = norm.weight(nn.Linear(features, image.classes))
        initialize(self, initializer)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.trunk(images)
        return {"logits": self.logits(features), "classes": self.classes(features)}


@gankit.penalty("recognised_class", needs={"labels"})
@dataclass(frozen=True, kw_only=True)
class RecognisedClass:
    """Both players want D to recognise the class: of real and fake images D, of its fakes G.

    weight x cross-entropy of D's head `classes`; in D's turn on the real plus on the fake batch.

    Odena et al. (2017), section 3, equation 3, arXiv:1610.09585.

    Options:
        weight: of both players' shares; at least 0
        every: applied once in so many turns of either; at least 1

    Shape: head (B, classes) with labels (B,) to a scalar.

    Raises:
        ValueError: a negative weight, `every` below 1; when called, a D without that head.
    """

    players: ClassVar[str] = "DG"
    weight: float = 1.0
    every: int = 1

    def __post_init__(self) -> None:
        if self.weight < 0 or self.every < 1:
            raise ValueError(f"recognised_class: weight {self.weight}, every {self.every}")

    def __call__(self, turn: Turn, /) -> Tensor:
        """The share of a player."""
        if "classes" not in turn.fake_heads:
            have = ", ".join(turn.fake_heads)
            raise ValueError(f'recognised_class: D has no head "classes", only {have}')
        assert turn.labels is not None, "labels are declared as needed"
        loss = F.cross_entropy(turn.fake_heads["classes"].float(), turn.labels)
        if turn.player == "D":
            assert turn.real_heads is not None, "a turn of D has real images"
            loss = loss + F.cross_entropy(turn.real_heads["classes"].float(), turn.labels)
        return self.weight * loss
