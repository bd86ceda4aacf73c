"""Images from a folder of one's own: any tree of JPEG, PNG and WebP files."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit.datasets.checks import height_width, rows
from gankit.datasets.decoding import Framing, opened, reason, upright
from gankit.datasets.files import is_image, names_below, refuse_none, stamp
from gankit.datasets.packing.manifest import pair
from gankit.errors import DataError
from gankit.registry import dataset
from gankit.slots import Image

__all__ = ["Folder"]


@dataset("folder")
@dataclass(frozen=True, kw_only=True)
class Folder:
    """The JPEG, PNG and WebP images of a folder and its subfolders, in the order of their paths.

    Each is turned as its EXIF says, laid on white where transparent, made RGB or grey, cropped
    around its centre and resized bicubically by Pillow, which averages over what it shrinks.
    Names that begin with a dot are passed over. Every image is decoded each time it is asked for:
    `gankit data pack folder` does so once, and the data set `packed` then reads many times faster.

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
        Framing(self.size, self.crop, self.channels)

    @property
    def image(self) -> Image:
        """As large as asked for, without classes."""
        return Image(self.channels, height_width(self.size))

    def __len__(self) -> int:
        return len(self.paths) * (2 if self.flip else 1)

    def images(self, indices: Tensor) -> Tensor:
        """The images at the indices, (B, C, H, W) uint8, read from disk each time."""
        asked = rows(indices, len(self)).tolist()
        batch = np.empty((len(asked), *self.image.shape), np.uint8)
        for place, index in enumerate(asked):
            mirrored, which = divmod(index, len(self.paths))
            image = self._read(self.paths[which])
            batch[place] = image[..., ::-1] if mirrored else image
        return torch.from_numpy(batch)

    def labels(self, indices: Tensor) -> None:
        """None: a folder has no classes."""
        return None

    @property
    def hint(self) -> str:
        """How the same images are read many times faster."""
        words = ["gankit", "data", "pack", "folder", "--root", str(self.root), "--out", "DIR"]
        words += ["--crop", pair(self.crop), "--size", pair(self.size)]
        words += ["--channels", "1"] * (self.channels == 1)
        return (
            "each image is decoded whenever it is used; packed once, they are read much faster:\n"
            f"  {shlex.join(words)}"
        )

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The image files, in order."""
        root = Path(self.root).expanduser()
        if not root.is_dir():
            kind = "not a folder" if root.exists() else "no such folder"
            raise DataError(f"{root}: {kind}\n  set data.root, or --set data.root=PATH")
        names = names_below(root)
        found = tuple(root / name for name in names if is_image(name))
        refuse_none(root, len(found), len(names))
        return found

    @cached_property
    def content(self) -> str:
        """Stands for what is in the files: which there are, how large, and changed when."""
        return stamp(Path(self.root).expanduser(), self.paths)

    @cached_property
    def _framing(self) -> Framing:
        return Framing(self.size, self.crop, self.channels)

    def _read(self, path: Path) -> NDArray[np.uint8]:
        try:
            with opened(path) as file:
                image = upright(file, self.channels)
        # A damaged file raises nearly anything: OSError, SyntaxError, struct.error, zlib.error, ...
        except Exception as error:
            raise DataError(f"cannot read {path}: {reason(error)}") from error
        try:
            return self._framing.cut(image)
        except ValueError as error:
            raise DataError(f"{path} is {error}") from error
