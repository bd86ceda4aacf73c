"""From a file to the pixels that are asked for: opened with care, turned, cut out and resized."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from gankit.datasets.checks import at_least, height_width, one_or_three

__all__ = ["FILTER", "Framing", "opened", "orientation", "reason", "upright"]

# Only these decoders: others of Pillow's run programs (Ghostscript) or are rarely looked at.
FORMATS = ("JPEG", "PNG", "WEBP")

FILTER = Pillow.Resampling.BICUBIC


@contextmanager
def opened(file: Path | BinaryIO) -> Iterator[Pillow.Image]:
    """An image of which the header is read, and nothing decoded yet.

    Raises:
        ValueError: a small file of very many pixels, of which Pillow only warns.
        OSError: no JPEG, PNG or WebP image; a damaged one raises nearly anything.
    """
    with Pillow.open(file, formats=FORMATS) as image:
        if Pillow.MAX_IMAGE_PIXELS and image.width * image.height > Pillow.MAX_IMAGE_PIXELS:
            raise ValueError(
                f"{image.width * image.height:,} pixels, more than Pillow's limit of"
                f" {Pillow.MAX_IMAGE_PIXELS:,}"
            )
        yield image


def upright(image: Pillow.Image, channels: int) -> Pillow.Image:
    """The image turned as its EXIF says, on white where transparent, in RGB or grey of 8 bits."""
    if orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    image.load()  # so that it may outlive its file
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16 bits at 255 instead of scaling them.
        scaled = np.rint(np.asarray(image, dtype=np.float64) / 257).clip(0, 255)
        image = Pillow.fromarray(scaled.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Pillow.alpha_composite(Pillow.new("RGBA", image.size, "white"), image)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def orientation(image: Pillow.Image) -> int:
    """How EXIF says that an image lies: 1 to 8, where 1 is upright."""
    value = image.getexif().get(0x0112, 1)
    return value if value in range(1, 9) else 1


@dataclass(frozen=True)
class Framing:
    """Which piece of an image is taken, around its centre, and how large it becomes.

    A crop of 0 is the largest piece that has the proportions of `size`.

    Raises:
        ValueError: a size, a crop or a number of channels that cannot be.
    """

    size: int | tuple[int, int]
    crop: int | tuple[int, int] = 0
    channels: int = 3

    def __post_init__(self) -> None:
        height_width(self.size)
        if isinstance(self.crop, int):
            at_least("crop", self.crop, 0)
        else:
            height_width(self.crop, name="crop")
        one_or_three(self.channels)

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what comes out."""
        return (self.channels, *height_width(self.size))

    def cut(self, image: Pillow.Image) -> NDArray[np.uint8]:
        """The piece of an upright image, (channels, height, width); not to be written to.

        Raises:
            ValueError: the image is smaller than the crop.
        """
        height, width = self._crop(image)
        # torchvision's CenterCrop rounds so, to the even side at a half: published crops agree.
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        piece = image
        if piece.size != (width, height):  # to cut nothing off would still copy it all
            piece = image.crop((left, top, left + width, top + height))
        piece = piece.resize(self.shape[:0:-1], FILTER)
        if piece.mode == "L":
            return np.asarray(piece)[None]
        # By lines of one colour: much faster than to turn each pixel around.
        lines = np.frombuffer(piece.tobytes("raw", "RGB;L"), np.uint8)
        channels, rows, columns = self.shape
        return np.ascontiguousarray(lines.reshape(rows, channels, columns).swapaxes(0, 1))

    @cached_property
    def piece(self) -> tuple[int, int] | Literal[0]:
        """Height and width of what is cut out; 0 for the largest piece."""
        return height_width(self.crop, name="crop") if self.crop else 0

    def _crop(self, image: Pillow.Image) -> tuple[int, int]:
        if not self.piece:
            _, height, width = self.shape
            scale = min(image.height / height, image.width / width)
            return max(1, round(height * scale)), max(1, round(width * scale))
        height, width = self.piece
        if image.height < height or image.width < width:
            raise ValueError(
                f"smaller than the crop: {image.height} x {image.width} pixels"
                f" (height x width), crop {height} x {width}"
            )
        return height, width


def reason(error: Exception) -> str:
    """Why a file could not be read, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "not a JPEG, PNG or WebP image"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
