"""Real images on their way to be looked at: in batches, without mirrored copies, or halved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace

import torch
from torch import Tensor

from gankit.slots import Dataset

__all__ = ["Batch", "Half", "batches", "content", "unflipped"]

BATCH = 64
"""How many images are looked at together; rows do not touch each other."""

Batch = tuple[Tensor, Tensor | None]
"""Images as they would be in a PNG, (B, C, H, W) uint8, or points; and their labels, if any."""


class Half:
    """Every second one of a data set's first so many images: the even ones, or the odd."""

    def __init__(self, data: Dataset, count: int, odd: bool) -> None:
        self.data = data
        self.image = data.image
        self._places = torch.arange(int(odd), count, 2)

    def __len__(self) -> int:
        return len(self._places)

    def images(self, indices: Tensor) -> Tensor:
        """The images at the indices."""
        return self.data.images(self._places[indices])

    def labels(self, indices: Tensor) -> Tensor | None:
        """Their labels."""
        return self.data.labels(self._places[indices])

    @property
    def content(self) -> str:
        """What is in the files of the data set, and which of it this is."""
        return f"{content(self.data)} {self._places[:2].tolist()} {len(self)}"


def batches(data: Dataset, count: int) -> Iterator[Batch]:
    """The first so many images of a data set, and their labels."""
    for start in range(0, count, BATCH):
        indices = torch.arange(start, min(start + BATCH, count))
        yield data.images(indices), data.labels(indices)


def unflipped(data: Dataset) -> Dataset:
    """The data set without mirrored copies, which are no images of their own."""
    if is_dataclass(data) and any(each.name == "flip" for each in fields(data)):
        return replace(data, flip=False)
    return data


def content(data: Dataset) -> str:
    """What is in the files of a data set, where it has any."""
    manifest = getattr(data, "manifest", None)
    return str(getattr(data, "content", "") or (repr(manifest) if manifest is not None else ""))
