"""The 1797 handwritten digits that come with scikit-learn: a real data set with no download.

They are the test half of the UCI "Optical Recognition of Handwritten Digits" set (Alpaydin and
Kaynak, 1998), 8x8 pixels of 17 levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from gankit.datasets.checks import height_width, one_or_three, rows
from gankit.errors import MissingExtra
from gankit.registry import dataset
from gankit.slots import Image

__all__ = ["Digits"]


@dataset("digits")
@dataclass(frozen=True, kw_only=True)
class Digits:
    """1797 handwritten digits of 10 classes, enlarged from 8x8 (needs the extra `digits`).

    Resized bicubically by Pillow.

    Options:
        size: height and width in pixels; one number is a square
        channels: 1, or 3 equal ones

    Shape: images (B, channels, height, width) uint8, labels (B,).

    Raises:
        ValueError: an option out of range.
        MissingExtra: at the first look, where scikit-learn is not installed.
    """

    size: int | tuple[int, int] = 32
    channels: int = 1

    def __post_init__(self) -> None:
        height_width(self.size)
        one_or_three(self.channels)

    @property
    def image(self) -> Image:
        """Black to white, ten classes."""
        return Image(self.channels, height_width(self.size), classes=10)

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
        small = np.rint(levels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
        height, width = height_width(self.size)
        resized = [
            np.asarray(Pillow.fromarray(digit).resize((width, height), Pillow.Resampling.BICUBIC))
            for digit in small
        ]
        return torch.from_numpy(np.stack(resized)[:, None]), torch.from_numpy(labels).long()
