"""Images from a folder of one's own: any tree of JPEG, PNG and WebP files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError
from torch import Tensor

from gankit.datasets.checks import at_least, height_width, one_or_three, rows
from gankit.errors import DataError
from gankit.registry import dataset
from gankit.slots import Image

__all__ = ["Folder"]

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
# Only these decoders: others of Pillow's run programs (Ghostscript) or are rarely looked at.
FORMATS = ("JPEG", "PNG", "WEBP")


@dataset("folder")
@dataclass(frozen=True, kw_only=True)
class Folder:
    """The JPEG, PNG and WebP images of a folder and its subfolders, in the order of their paths.

    Each is turned as its EXIF says, laid on white where transparent, made RGB or grey, cropped
    around its centre and resized bicubically by Pillow, which averages over what it shrinks.
    Names that begin with a dot are passed over.

    Options:
        root: the folder; `~` is the home folder
        size: height and width in pixels; one number is a square
        crop: height and width to cut out first, in pixels of the file; one number is a square,
            and 0 the largest piece that has the proportions of `size`
        flip: whether to have each image twice, the second half of the data set being mirrored
        channels: 3 for RGB, 1 for grey

    Shape: images (B, channels, height, width) uint8; no labels.

    Raises:
        ValueError: an option out of range.
        DataError: at the first look, a folder that is missing or has no images; later, an image
            that cannot be read or is smaller than the crop.
    """

    root: str
    size: int | tuple[int, int] = 128
    crop: int | tuple[int, int] = 0
    flip: bool = False
    channels: int = 3

    def __post_init__(self) -> None:
        if not str(self.root):
            raise ValueError("root is empty: must be the path of a folder")
        height_width(self.size)
        if isinstance(self.crop, int):
            at_least("crop", self.crop, 0)
        else:
            height_width(self.crop, name="crop")
        one_or_three(self.channels)

    @property
    def image(self) -> Image:
        """As large as asked for, without classes."""
        return Image(self.channels, height_width(self.size))

    def __len__(self) -> int:
        return len(self.paths) * (2 if self.flip else 1)

    def images(self, indices: Tensor) -> Tensor:
        """The images at the indices, (B, C, H, W) uint8, read from disk each time."""
        asked = rows(indices, len(self)).tolist()
        batch = torch.empty(len(asked), *self.image.shape, dtype=torch.uint8)
        for place, index in enumerate(asked):
            mirrored, which = divmod(index, len(self.paths))
            image = self._read(self.paths[which])
            batch[place] = image.flip(-1) if mirrored else image
        return batch

    def labels(self, indices: Tensor) -> None:
        """None: a folder has no classes."""
        return None

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The image files, in order."""
        root = Path(self.root).expanduser()
        if not root.is_dir():
            kind = "not a folder" if root.exists() else "no such folder"
            raise DataError(f"{root}: {kind}\n  set data.root, or --set data.root=PATH")
        files = _files(root)
        found = [file for file in files if file.suffix.lower() in SUFFIXES]
        if not found:
            raise DataError(
                f"{root}: none of the {len(files)} files in it is an image\n"
                f"  looked for {', '.join(SUFFIXES)} there and in its subfolders"
            )
        return tuple(sorted(found, key=lambda file: file.relative_to(root).as_posix()))

    def _read(self, path: Path) -> Tensor:
        try:
            with Pillow.open(path, formats=FORMATS) as opened:
                _refuse_bomb(opened)
                image = _converted(ImageOps.exif_transpose(opened), self.channels)
        # A damaged file raises nearly anything: OSError, SyntaxError, struct.error, zlib.error, ...
        except Exception as error:
            raise DataError(f"cannot read {path}: {_reason(error)}") from error
        height, width = height_width(self.size)
        crop_height, crop_width = self._crop(path, image)
        # torchvision's CenterCrop rounds so, to the even side at a half: published crops agree.
        left, top = round((image.width - crop_width) / 2), round((image.height - crop_height) / 2)
        image = image.crop((left, top, left + crop_width, top + crop_height))
        resized = np.array(image.resize((width, height), Pillow.Resampling.BICUBIC))
        return torch.from_numpy(resized.reshape(height, width, -1)).permute(2, 0, 1)

    def _crop(self, path: Path, image: Pillow.Image) -> tuple[int, int]:
        if self.crop == 0:
            height, width = height_width(self.size)
            scale = min(image.height / height, image.width / width)
            return max(1, round(height * scale)), max(1, round(width * scale))
        height, width = height_width(self.crop)
        if image.height < height or image.width < width:
            raise DataError(
                f"{path} is smaller than the crop: {image.height} x {image.width} pixels"
                f" (height x width), crop {height} x {width}"
            )
        return height, width


def _files(root: Path) -> list[Path]:
    """Every file below `root`, through links to folders too, each folder once."""

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read {error.filename}: {_reason(error)}") from error

    seen, files = {os.path.realpath(root)}, []
    for parent, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        inside = {name: os.path.realpath(Path(parent, name)) for name in folders}
        folders.clear()
        # In order, so that of two links to one folder the same one is always followed.
        for name, real in sorted(inside.items()):
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                folders.append(name)
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return files


def _refuse_bomb(image: Pillow.Image) -> None:
    """Refuse what Pillow only warns of: a small file of very many pixels."""
    if Pillow.MAX_IMAGE_PIXELS and image.width * image.height > Pillow.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"{image.width * image.height:,} pixels, more than Pillow's limit of"
            f" {Pillow.MAX_IMAGE_PIXELS:,}"
        )


def _converted(image: Pillow.Image, channels: int) -> Pillow.Image:
    """The image in RGB or grey, of 8 bits."""
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16 bits at 255 instead of scaling them.
        scaled = np.rint(np.asarray(image, dtype=np.float64) / 257).clip(0, 255)
        image = Pillow.fromarray(scaled.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Pillow.alpha_composite(Pillow.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a JPEG, PNG or WebP image"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
