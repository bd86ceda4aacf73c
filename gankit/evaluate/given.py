"""Images that somebody has made and saved: a folder of picture files, or an .npz."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from gankit.datasets.checks import rows
from gankit.datasets.decoding import opened, reason
from gankit.datasets.files import is_image, names_below, refuse_none, stamp
from gankit.errors import DataError, UsageError
from gankit.slots import Dataset, Image

__all__ = ["Arrays", "Pictures", "given"]

NAMES = ("images", "labels", "arr_0", "arr_1")
"""The arrays that are read; how large others are makes no difference."""


def given(path: Path) -> Dataset:
    """The images at a path.

    Raises:
        UsageError: there is nothing.
        DataError: there are no images, or they cannot be read as they are.
    """
    if not path.exists():
        raise UsageError(f"there is no {path}")
    return Pictures(path) if path.is_dir() else Arrays(path)


class Pictures:
    """The picture files of a folder and its subfolders, all of one size, as their pixels are.

    Nothing is cropped, resized or turned: what is scored is what is there.

    Shape: images (B, 1 or 3, H, W) uint8; no labels.

    Raises:
        DataError: there are none; later, one that cannot be read or is of another size.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        names = names_below(root)
        self.paths = [root / name for name in names if is_image(name)]
        refuse_none(root, len(self.paths), len(names))

    @cached_property
    def image(self) -> Image:
        """As the first."""
        channels, *size = _pixels(self.paths[0]).shape
        return Image(channels, (size[0], size[1]))

    def __len__(self) -> int:
        return len(self.paths)

    def images(self, indices: Tensor) -> Tensor:
        """The images at the indices, (B, C, H, W) uint8, read each time."""
        found = []
        for index in rows(indices, len(self)).tolist():
            pixels = _pixels(self.paths[index])
            if pixels.shape != self.image.shape:
                raise DataError(
                    f"{self.paths[index]} is {_words(pixels.shape)}, and {self.paths[0]} is "
                    f"{_words(self.image.shape)}: images that are scored together are alike"
                )
            found.append(pixels)
        return torch.from_numpy(np.stack(found))

    def labels(self, indices: Tensor) -> None:
        """None: a folder has no classes."""
        return None

    @cached_property
    def content(self) -> str:
        """Stands for what is in the files: which there are, how large, and changed when."""
        return stamp(self.root, self.paths)


class Arrays:
    """An .npz as `gankit sample` writes it, or as other libraries do: bytes, channels last.

    `images` (N, C, H, W) or `arr_0` (N, H, W, C) uint8, points (N, C) float; `labels` or `arr_1`
    (N,) may stand beside them. Never unpickled.

    Raises:
        DataError: it cannot be read, or holds something else.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            with np.load(file, allow_pickle=False) as arrays:
                held = {name: arrays[name] for name in arrays.files if name in NAMES}
                others = [name for name in arrays.files if name not in NAMES]
        # A damaged file raises nearly anything: BadZipFile, zlib.error, ValueError, EOFError, ...
        except Exception as error:
            raise DataError(f"{file} is no .npz of arrays: {reason(error)}") from error
        names = [name for name in ("images", "arr_0") if name in held]
        if not names:
            found = ", ".join([*held, *others]) or "none"
            raise DataError(f"{file} has no array `images` or `arr_0`, but {found}")
        if held[names[0]].dtype.kind not in "uif" or not held[names[0]].dtype.isnative:
            raise DataError(f"{file} holds {names[0]} of the type {held[names[0]].dtype}")
        values = torch.from_numpy(held[names[0]])
        if values.ndim == 4 and values.shape[3] in (1, 3) and values.shape[1] not in (1, 3):
            values = values.permute(0, 3, 1, 2).contiguous()
        images = values.ndim == 4 and values.shape[1] in (1, 3) and values.dtype == torch.uint8
        points = values.ndim == 2 and values.is_floating_point()
        if not values.numel() or not (images or points):
            raise DataError(
                f"{file} holds {names[0]} {tuple(values.shape)} {str(values.dtype)[6:]}\n"
                "  images are (N, C, H, W) or (N, H, W, C) uint8 of 1 or 3 channels, points (N, C)"
            )
        self._labels = _labels(file, held.get("labels", held.get("arr_1")), len(values))
        self._values = values.float() if points else values

    @property
    def image(self) -> Image:
        """As the array is."""
        channels, *size = self._values.shape[1:]
        classes = 0 if self._labels is None else int(self._labels.max()) + 1
        return Image(channels, (size[0], size[1]) if size else (), classes, bounded=bool(size))

    def __len__(self) -> int:
        return len(self._values)

    def images(self, indices: Tensor) -> Tensor:
        """The rows at the indices."""
        return self._values[rows(indices, len(self))]

    def labels(self, indices: Tensor) -> Tensor | None:
        """Their labels, if there are any."""
        return None if self._labels is None else self._labels[rows(indices, len(self))]

    @cached_property
    def content(self) -> str:
        """The file's SHA-256."""
        with self.file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def _labels(file: Path, held: NDArray[Any] | None, count: int) -> Tensor | None:
    """A class for each image, counted from 0, or none at all."""
    if held is None:
        return None
    if held.shape != (count,):
        raise DataError(f"{file} has {count} images, and labels of the shape {held.shape}")
    if held.dtype.kind not in "ui" or held.min() < 0:
        raise DataError(f"{file}: labels are whole numbers from 0, not {held.dtype}")
    return torch.from_numpy(held.astype(np.int64))


def _pixels(path: Path) -> NDArray[np.uint8]:
    """(1 or 3, H, W) uint8."""
    try:
        with opened(path) as file:
            modes = {"L": file, "RGB": file}
            image: Pillow.Image = modes[file.mode] if file.mode in modes else file.convert("RGB")
            if image is not file and file.has_transparency_data:
                raise ValueError("transparent images are not scored: what is behind them decides")
            array = np.array(image)
    except DataError:
        raise
    # A damaged file raises nearly anything: OSError, SyntaxError, struct.error, zlib.error, ...
    except Exception as error:
        raise DataError(f"cannot read {path}: {reason(error)}") from error
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _words(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{height} x {width} of {channels} channel{'s' * (channels != 1)}"
