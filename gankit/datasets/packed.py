"""Images that `gankit data pack` decoded once, read from one file of bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit.datasets.checks import at_least, height_width, one_or_three, rows
from gankit.datasets.packing.listing import SPLITS, refuse_empty_classes
from gankit.datasets.packing.manifest import IMAGES, Manifest, command, read
from gankit.datasets.packing.verifying import refuse_altered, rows_of
from gankit.errors import DataError
from gankit.registry import dataset
from gankit.slots import Image

__all__ = ["Packed"]


@dataclass(frozen=True)
class _Open:
    """A packed folder that is being read: of each image its place in `pixels`, and its class."""

    pixels: NDArray[np.uint8]
    places: NDArray[np.int64]
    labels: Tensor


@dataset("packed")
@dataclass(frozen=True, kw_only=True)
class Packed:
    """A folder that `gankit data pack` wrote: images decoded, cropped and resized beforehand.

    Read from a memory-mapped file, in any order. At the first look the manifest is compared with
    the options and with the size of the file, and every sum if the file was written to after the
    manifest; `gankit data verify` compares them in any case.

    Options:
        root: the packed folder; `~` is the home folder
        size: height and width that it was packed with; one number is a square
        channels: 3 for RGB, 1 for grey, as it was packed
        classes: how many classes it was packed with; 0 leaves labels aside
        split: which of CelebA's splits; `all` for every image
        flip: whether to have each image twice, the second half of the data set being mirrored
        on_gpu: whether to keep all images on the GPU while training, if they take no more than
            half of what is free there; the bits are the same

    Shape: images (B, channels, height, width) uint8, labels (B,) where there are classes.

    Raises:
        ValueError: an option out of range.
        DataError: at the first look, a folder that is missing, unfinished, cut short or changed, or
            that holds something else than the options say.
    """

    root: str
    size: int | tuple[int, int] = 128
    channels: int = 3
    classes: int = 0
    split: Literal["all", "train", "valid", "test"] = "all"
    flip: bool = False
    on_gpu: bool = False

    def __post_init__(self) -> None:
        if not str(self.root):
            raise ValueError("root is empty: must be the path of a packed folder")
        height_width(self.size)
        one_or_three(self.channels)
        at_least("classes", self.classes, 0)

    @property
    def image(self) -> Image:
        """What the options say; the manifest must agree."""
        return Image(self.channels, height_width(self.size), self.classes)

    def __len__(self) -> int:
        return len(self._open.places) * (2 if self.flip else 1)

    def images(self, indices: Tensor) -> Tensor:
        """The images at the indices, (B, C, H, W) uint8."""
        asked = rows(indices, len(self)).numpy()
        count = len(self._open.places)
        batch = np.take(self._open.pixels, self._open.places[asked % count], axis=0)
        mirrored = asked >= count
        if mirrored.any():
            batch[mirrored] = batch[mirrored, ..., ::-1]
        return torch.from_numpy(batch)

    def labels(self, indices: Tensor) -> Tensor | None:
        """Their classes, (B,) int64; None without classes."""
        if not self.classes:
            return None
        return self._open.labels[rows(indices, len(self)) % len(self._open.places)]

    @property
    def class_names(self) -> tuple[str, ...]:
        """What its classes were called where it was packed."""
        return tuple(one.name for one in self.manifest.classes)

    @property
    def held_out(self) -> Packed | None:
        """The split `test`, of `train`, where it was packed with one; None of the others."""
        if self.split != "train" or not self.manifest.splits.get("test"):
            return None
        return replace(self, split="test")

    @property
    def bytes(self) -> int:
        """How much memory the images take, mirrored ones aside."""
        return len(self._open.places) * math.prod(self.image.shape)

    @cached_property
    def manifest(self) -> Manifest:
        """What the folder says of itself."""
        return read(self._folder)

    @property
    def _folder(self) -> Path:
        return Path(self.root).expanduser()

    @cached_property
    def _open(self) -> _Open:
        manifest = self.manifest
        self._refuse_other(manifest)
        refuse_altered(self._folder, manifest)
        table = rows_of(self._folder, manifest)
        if self.split != "all":
            table = table[table[:, 2] == SPLITS.index(self.split)]
        if not len(table):
            held = ", ".join(f"{name} {count:,}" for name, count in manifest.splits.items())
            raise DataError(
                f"{self._folder} has no images of the split {self.split}: {held or 'no splits'}"
            )
        places, labels, _ = np.ascontiguousarray(table.T, np.int64)
        if self.classes:
            refuse_empty_classes([one.name for one in manifest.classes], labels.tolist())
        # Read only: what may be written to counts as memory, and may be larger than all there is.
        pixels = np.memmap(
            self._folder / IMAGES, np.uint8, "r", shape=(manifest.source.files, *self.image.shape)
        )
        return _Open(pixels, places, torch.from_numpy(labels))

    def _refuse_other(self, manifest: Manifest) -> None:
        """Refuse what the options do not describe.

        Raises:
            DataError: with what there is, what was expected, and how to make them agree.
        """
        recipe, folder = manifest.recipe, self._folder
        there = {
            "size": (recipe.height, recipe.width),
            "channels": recipe.channels,
            "classes": len(manifest.classes),
        }
        said = {
            "size": height_width(self.size),
            "channels": self.channels,
            # Labels that nobody asks for do no harm.
            "classes": self.classes or there["classes"],
        }
        wrong = [name for name in there if there[name] != said[name]]
        if wrong:
            differ = "".join(
                f"\n  {name} is {_toml(there[name])} there and {_toml(said[name])} in the options"
                for name in wrong
            )
            settings = " ".join(f"--set 'data.{name}={_toml(there[name])}'" for name in wrong)
            raise DataError(
                f"{folder} holds other images{differ}\n"
                f"  to take them as they are: {settings}\n"
                f"  they were made by: {command(manifest, folder)}"
            )


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        height, width = value
        return str(height) if height == width else f"[{height}, {width}]"
    return str(value)
