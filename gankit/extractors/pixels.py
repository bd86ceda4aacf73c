"""Images as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from gankit.datasets import height_width
from gankit.errors import OptionError
from gankit.extractors.checks import of_images
from gankit.registry import features
from gankit.slots import Dataset, Seen

__all__ = ["Pixels"]


@features("pixels")
class Pixels:
    """Every value of an image, of 1; or the coordinates of a point.

    For small images and for points: distances between large images say little, and a covariance
    of D values needs more than D images.

    Options:
        size: height and width to average the images down to, over whole pixels; one number is a
            square, and 0 leaves them as they are

    Shape: images (B, C, H, W) to (B, C x height x width), or points (B, C) as they are.

    Raises:
        OptionError: a size that does not divide that of the images, or any size for points.
    """

    def __init__(self, data: Dataset, /, *, size: int | tuple[int, int] = 0) -> None:
        self.image = data.image
        self.size: tuple[int, ...] = self.image.size
        if size == 0:
            return
        try:
            self.size = height_width(size)
        except ValueError as error:
            raise OptionError("size", f"pixels: {error}") from error
        if not self.image.size:
            raise OptionError("size", f"pixels: size is {size}, but points in space have none")
        if any(whole % part for whole, part in zip(self.image.size, self.size, strict=True)):
            there = " x ".join(map(str, self.image.size))
            raise OptionError(
                "size",
                f"pixels: size {size} must divide that of the images, {there} (height x width)",
            )

    @property
    def width(self) -> int:
        """As many as a small image has values."""
        return math.prod((self.image.channels, *self.size))

    @property
    def card(self) -> Mapping[str, str]:
        """Whether and how far the images were averaged down."""
        if not self.image.size:
            return {"pixels": "coordinates"}
        height, width = self.size
        how = "as they are" if self.size == self.image.size else "averaged over whole pixels"
        return {"pixels": f"{height} x {width} (height x width), {how}"}

    def __call__(self, images: Tensor, /) -> Seen:
        """The values, in [0, 1]; coordinates as they are.

        Raises:
            TypeError: images that are not (B, C, H, W) uint8.
            ValueError: images or points of another shape than the data's.
        """
        if self.image.size:
            of_images(images)
        if tuple(images.shape[1:]) != self.image.shape:
            shapes = f"{tuple(images.shape[1:])}, not {self.image.shape}"
            raise ValueError(f"pixels: images have the shape {shapes} as the data has")
        if not self.image.size:
            return Seen(images.float())
        channels, (height, width) = self.image.channels, self.size
        cells = images.view(
            -1, channels, height, images.shape[2] // height, width, images.shape[3] // width
        )
        # Sums of bytes are exact in float64, so that the order of adding makes no difference.
        sums = cells.double().sum((3, 5))
        most = 255 * cells.shape[3] * cells.shape[5]
        return Seen((sums / most).float().flatten(1))
