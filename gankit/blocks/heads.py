"""What stands at the end of a discriminator: sums, heads, and what compares images of a batch."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from gankit.blocks.checks import at_least_one
from gankit.errors import OptionError
from gankit.registry import block
from gankit.slots import Norm, Shape

__all__ = ["Classify", "MeanPositions", "MinibatchStd", "Project", "SumPositions"]


@block("sum_positions")
class SumPositions(nn.Module):
    """The sum of each feature map over its positions; what a projection discriminator ends with.

    Shape: (B, C, H, W) -> (B, C, 1, 1).
    """

    def __init__(self, shape: Shape, /) -> None:
        super().__init__()
        self.out: Shape = (shape[0], 1, 1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return x.sum(dim=(2, 3), keepdim=True)


@block("mean_positions")
class MeanPositions(SumPositions):
    """The mean of each feature map over its positions; what WGAN-GP's residual critic ends with.

    Shape: (B, C, H, W) -> (B, C, 1, 1).
    """

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return x.mean(dim=(2, 3), keepdim=True)


@block("project")
class Project(nn.Module):
    """One logit: that of a dense layer, plus the product of the features with the label's vector.

    With f the features and c the condition: w f + b + <E c, f>. In a network with `condition =
    "label"` c is one-hot and E the table of an embedding; the network's weight norm acts on both
    layers.

    Miyato and Koyama, "cGANs with Projection Discriminator" (2018), section 3, equation 4,
    arXiv:1802.05637.

    Options:
        unconditional: `dense` is the paper's; with `none` the product alone is the logit, as in
            R3GAN's code.

    Shape: (B, C, H, W), condition (B, E) -> (B, 1, 1, 1); f is all that comes in.

    Raises:
        OptionError: a network without a condition.
    """

    conditioned = True

    def __init__(
        self,
        shape: Shape,
        norm: Norm,
        /,
        *,
        unconditional: Literal["dense", "none"] = "dense",
    ) -> None:
        super().__init__()
        if not norm.condition:
            message = 'a projection needs a label: condition = "label", or an "embedding" of it'
            raise OptionError("condition", message)
        features = math.prod(shape)
        self.embedding = norm.weight(nn.Linear(norm.condition, features, bias=False))
        self.dense: nn.Module = (
            norm.weight(nn.Linear(features, 1)) if unconditional == "dense" else _Nothing()
        )
        self.out: Shape = (1, 1, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        features = x.flatten(1)
        product = (self.embedding(condition) * features).sum(1, keepdim=True)
        return (self.dense(features) + product)[:, :, None, None]


class _Nothing(nn.Module):
    """0, whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


@block("classify")
class Classify(nn.Module):
    """Two heads on the same features: `logits`, real or fake, and `classes`, one logit for each.

    Odena, Olah and Shlens, "Conditional Image Synthesis with Auxiliary Classifier GANs" (2017),
    section 3, arXiv:1610.09585. As the last stage of a stack it makes a discriminator of two
    heads: the adversarial loss is about `logits`; an `auxiliary_classifier` penalty teaches
    `classes`, which nothing else does.

    Options:
        classes: how many there are.
        head: what the second head is called: a `rotation` penalty teaches one called `rotations`.

    Shape: (B, C, H, W) -> (B, 1 + classes, 1, 1), in the order of `heads`.

    Raises:
        OptionError: a head that is called as the first one is.
    """

    def __init__(
        self, shape: Shape, norm: Norm = Norm(), /, *, classes: int, head: str = "classes"
    ) -> None:
        super().__init__()
        at_least_one(classes=classes)
        if head == "logits":
            raise OptionError("head", 'classify: "logits" is the head that tells real from fake')
        self.heads = {"logits": 1, head: classes}
        features = math.prod(shape)
        self.logits, self.classes = (
            norm.weight(nn.Linear(features, width)) for width in self.heads.values()
        )
        self.out: Shape = (1 + classes, 1, 1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        features = x.flatten(1)
        heads = [self.logits(features), self.classes(features)]
        return torch.cat(heads, dim=1)[:, :, None, None]


@block("minibatch_std", needs={"batch_statistics", "separate_batches"})
class MinibatchStd(nn.Module):
    """One more feature map: how much the images of a group differ, on average.

    The standard deviation of each feature over the images of a group, averaged over features and
    positions. A lack of variety is then plain to D.

    Karras et al., "Progressive Growing of GANs" (2018), section 3, arXiv:1710.10196.

    Options:
        group: how many images are compared with each other; must divide the batch.

    Shape: (B, C, H, W) -> (B, C + 1, H, W), one value for all positions of a group.

    Raises:
        ValueError: a group below 1; when called, a batch that the groups do not divide.

    Differs from the paper: groups as in its code, there at most as large as the batch. They are of
        neighbours, so that a batch in shares has the groups that it has in one.
    """

    def __init__(self, shape: Shape, /, *, group: int = 4) -> None:
        super().__init__()
        at_least_one(group=group)
        self.group = group
        channels, height, width = shape
        self.out: Shape = (channels + 1, height, width)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        if len(x) % self.group:
            message = f"groups of {self.group} do not divide a batch of {len(x)}"
            raise ValueError(f"minibatch_std: {message}")
        wide = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(0, (-1, self.group))
        deviation = (wide.var(dim=1, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))
        each = deviation.to(x.dtype).repeat_interleave(self.group)
        return torch.cat([x, each[:, None, None, None].expand(-1, 1, *x.shape[2:])], dim=1)
