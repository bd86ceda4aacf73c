"""The 1797 handwritten digits that come with scikit-learn: a real data set with no download.

One by one, or three at a time as the channels of one image, which makes a thousand modes. They are
the test half of the UCI "Optical Recognition of Handwritten Digits" set (Alpaydin and Kaynak,
1998), 8x8 pixels of 17 levels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from gankit.datasets.checks import at_least, height_width, one_or_three, rows
from gankit.errors import MissingExtra
from gankit.registry import dataset
from gankit.slots import Image

__all__ = ["Digits", "StackedDigits"]


@dataset("digits")
@dataclass(frozen=True, kw_only=True)
class Digits:
    """1797 handwritten digits of 10 classes, enlarged from 8x8 (needs the extra `digits`).

    Resized bicubically by Pillow. Every fifth digit of a class, in scikit-learn's order, is in the
    split `test`, 355 in all; the other 1442 are in `train`.

    Options:
        size: height and width in pixels; one number is a square
        channels: 1, or 3 equal ones
        split: `train` or `test`, which have no image in common, or `all`

    Shape: images (B, channels, height, width) uint8, labels (B,).

    Raises:
        ValueError: an option out of range.
        MissingExtra: at the first look, where scikit-learn is not installed.
    """

    features: ClassVar[str] = "digits"
    size: int | tuple[int, int] = 32
    channels: int = 1
    split: Literal["all", "train", "test"] = "all"

    def __post_init__(self) -> None:
        height_width(self.size)
        one_or_three(self.channels)
        if self.split not in ("all", "train", "test"):
            raise ValueError(f'split = "{self.split}": must be "all", "train" or "test"')

    @property
    def image(self) -> Image:
        """Black to white, ten classes."""
        return Image(self.channels, height_width(self.size), classes=10)

    @property
    def held_out(self) -> Digits | None:
        """The split `test`, of `train`; None of the others, which leave nothing aside."""
        return replace(self, split="test") if self.split == "train" else None

    def __len__(self) -> int:
        return len(self._table[1])

    def images(self, indices: Tensor) -> Tensor:
        """The digits at the indices, (B, C, H, W) uint8."""
        grey = self._table[0][rows(indices, len(self))]
        return grey.expand(-1, self.channels, -1, -1).contiguous()

    def labels(self, indices: Tensor) -> Tensor:
        """Which digits they are, (B,) int64."""
        return self._table[1][rows(indices, len(self))]

    @cached_property
    def _table(self) -> tuple[Tensor, Tensor]:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise MissingExtra("the digits data set", "digits") from error
        levels, labels = load_digits(return_X_y=True)
        if self.split != "all":
            chosen = _fifths(labels) == (self.split == "test")
            levels, labels = levels[chosen], labels[chosen]
        small = np.rint(levels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
        height, width = height_width(self.size)
        resized = [
            np.asarray(Pillow.fromarray(digit).resize((width, height), Pillow.Resampling.BICUBIC))
            for digit in small
        ]
        return torch.from_numpy(np.stack(resized)[:, None]), torch.from_numpy(labels).long()


def _fifths(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each is the fifth, tenth, ... of its class so far."""
    place = np.zeros_like(labels)
    for label in np.unique(labels):
        these = labels == label
        place[these] = np.arange(these.sum())
    return place % 5 == 4


@dataset("stacked_digits")
@dataclass(frozen=True, kw_only=True)
class StackedDigits:
    """Three random digits as the channels of an image: a thousand modes that can be counted.

    Stacked MNIST, of Metz et al., "Unrolled Generative Adversarial Networks" (2017), section 3.3,
    arXiv:1611.02163, and PacGAN, arXiv:1712.04086; but not of MNIST: of the set `digits`, whose
    1797 images are 8x8 before they are enlarged (needs the extra `digits`). Nothing is held out:
    another seed stacks the same single digits in other ways.

    Options:
        size: height and width in pixels; one number is a square
        length: how many images; a longer set begins with the shorter one
        seed: of which digits are stacked

    Shape: images (B, 3, height, width) uint8; labels (B,), the three digits read as one number.

    Raises:
        ValueError: an option out of range.
        MissingExtra: at the first look, where scikit-learn is not installed.
    """

    features: ClassVar[str] = "digits"
    metrics: ClassVar[tuple[str, ...]] = ("modes",)
    samples: ClassVar[int] = 26_000
    """So many images the published tables are of."""
    size: int | tuple[int, int] = 16
    length: int = 128_000
    seed: int = 0

    def __post_init__(self) -> None:
        height_width(self.size)
        at_least("length", self.length, 1)
        at_least("seed", self.seed, 0)

    @property
    def image(self) -> Image:
        """A digit each in red, green and blue; a class for each number of three digits."""
        return Image(3, height_width(self.size), classes=1000)

    def __len__(self) -> int:
        return self.length

    def images(self, indices: Tensor) -> Tensor:
        """The images at the indices, (B, 3, H, W) uint8."""
        chosen = self._chosen[rows(indices, self.length)]
        return self._digits.images(chosen.flatten()).view(*chosen.shape, *self.image.size)

    def labels(self, indices: Tensor) -> Tensor:
        """Hundreds in red, tens in green, ones in blue, (B,) int64."""
        chosen = self._chosen[rows(indices, self.length)]
        digits = self._digits.labels(chosen.flatten()).view_as(chosen)
        return (digits * torch.tensor([100, 10, 1])).sum(1)

    @cached_property
    def _digits(self) -> Digits:
        return Digits(size=self.size)

    @cached_property
    def _chosen(self) -> Tensor:
        """Which digits are in each image, (length, 3)."""
        random = torch.Generator().manual_seed(self.seed)
        return torch.randint(len(self._digits), (self.length, 3), generator=random)
