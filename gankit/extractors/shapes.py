"""Drawn shapes by the factors they were drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gankit.datasets import Factors
from gankit.datasets.shapes import CLASSES, SIDES
from gankit.errors import SpecError
from gankit.extractors.checks import images_only
from gankit.extractors.decoding import MORE_STEPS, STEPS, decode
from gankit.registry import features
from gankit.slots import Dataset, Seen

__all__ = ["Shapes"]

NOISE = 0.005
"""The noise that logits allow for, as a share of white."""

GOOD = 0.03
"""A good image is off by less than this share of white, in root mean square."""

RANGES = {"shade": (0.1, 0.6), "x": (0.3, 0.7), "y": (0.3, 0.7), "radius": (0.15, 0.3)}
"""Between which the data set draws evenly."""


@features("shapes", needs={"positions"})
class Shapes:
    """The factors of images of the data set `shapes`, decoded from the pixels.

    A vector has the class, as a corner of a regular simplex; shade, x, y and radius; the rotation,
    as cosine and sine of so many times itself as a full turn shows the shape unchanged, or 0 for
    circles and rings; and in colour the hue, as cosine and sine. Each varies by 1 in all over the
    data set. How cleanly a shape is drawn is not in the vector: `good` says whether the image is
    off from the drawing of its factors by less than 0.03 of white in root mean square, where the
    data's own are off by 0.001, and at 16 pixels by 0.007 at most. The logits are -d^2 / (2 x
    0.005^2), where d is what a class leaves unexplained.

    Shape: images (B, C, H, W) to features (B, 10), or in colour (B, 12), logits (B, 5), good (B,).

    Raises:
        SpecError: data of points, or of neither one nor three channels.
    """

    def __init__(self, data: Dataset, /) -> None:
        images_only("shapes", data)
        self.channels = data.image.channels
        if self.channels not in (1, 3):
            raise SpecError(
                f'features "shapes" are of grey or coloured images, not of {self.channels} channels'
            )

    @property
    def width(self) -> int:
        """4 for the class and 4 for shade, place and radius, 2 for each angle."""
        return 10 if self.channels == 1 else 12

    @property
    def card(self) -> Mapping[str, str]:
        """How the factors are found, and which images are good."""
        fit = f"least squares, {STEPS} steps of each class and {MORE_STEPS} of the best"
        return {"decoder": fit, "good": f"within {GOOD:g} of white in root mean square"}

    def __call__(self, images: Tensor, /) -> Seen:
        """The factors of images, and how well each class explains them.

        Raises:
            TypeError: anything but (B, C, H, W) uint8.
            ValueError: another number of channels than the data's.
        """
        if images.dim() == 4 and images.shape[1] != self.channels:
            raise ValueError(f"shapes: images of {images.shape[1]} channels, not {self.channels}")
        factors, unexplained = decode(images)
        logits = -(unexplained / NOISE).square() / 2
        return Seen(_vectors(factors, self.channels), logits, unexplained.amin(1) < GOOD)


def _vectors(factors: Factors, channels: int) -> Tensor:
    """Factors as vectors in which distances mean something.

    Shape: (B,) each to (B, 10 or 12).
    """
    numbers = []
    for name, (low, high) in RANGES.items():
        values = getattr(factors, name)
        numbers.append((values - (low + high) / 2) * (math.sqrt(12) / (high - low)))
    folds = torch.tensor(SIDES)[factors.label]
    turn, turns = folds * factors.rotation, (folds > 0).float()
    numbers += [turn.cos() * turns, turn.sin() * turns]
    if channels == 3:
        hue = 2 * math.pi * factors.hue
        numbers += [hue.cos(), hue.sin()]
    return torch.cat([_corners()[factors.label], torch.stack(numbers, 1)], 1)


def _corners() -> Tensor:
    """A corner of the regular simplex for each class, at a distance of 1 from the middle.

    Shape: (classes, classes - 1).
    """
    count = len(CLASSES)
    rows = []
    for low in range(1, count):
        row = [1.0] * low + [-float(low)] + [0.0] * (count - low - 1)
        rows.append(torch.tensor(row) / math.sqrt(low * (low + 1)))
    return torch.stack(rows, 1) * math.sqrt(count / (count - 1))
