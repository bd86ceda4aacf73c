"""A packed data set kept on the GPU as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from gankit.datasets.checks import rows
from gankit.datasets.packed import Packed
from gankit.randomness import sent
from gankit.slots import Dataset, Image

__all__ = ["Resident", "resident"]

SHARE = 0.5
"""The share of a GPU's free memory that images may take; the rest is for training."""
CHUNK = 256
"""How many images are sent at a time."""


def resident(data: Dataset, device: torch.device, tell: Callable[[str], object]) -> Dataset:
    """The data set, moved to a GPU if it asks for that (`on_gpu`) and fits there."""
    if not isinstance(data, Packed) or not data.on_gpu or device.type != "cuda":
        return data
    free, _ = torch.cuda.mem_get_info(device)
    needed = data.bytes
    if needed > SHARE * free:
        tell(
            f"the images stay on the disk: {needed:,} bytes are more than half of the {free:,}"
            f" that are free on {device}"
        )
        return data
    tell(f"the images are kept on {device}: {needed:,} bytes")
    return Resident(data, device)


class Resident:
    """Packed images in the memory of a device: those of the file, to the bit.

    Mirrored images are made where they are asked for, and take no memory.
    """

    def __init__(self, source: Packed, device: torch.device) -> None:
        self.source = source
        plain = replace(source, flip=False)
        shape = (len(plain), *source.image.shape)
        self._kept = torch.empty(shape, dtype=torch.uint8, device=device)
        for indices in torch.arange(len(plain)).split(CHUNK):
            self._kept[indices[0] : indices[-1] + 1] = sent(plain.images(indices), device)

    @property
    def image(self) -> Image:
        """That of the source."""
        return self.source.image

    def __len__(self) -> int:
        return len(self.source)

    def images(self, indices: Tensor) -> Tensor:
        """The images at the indices, (B, C, H, W) uint8, on the device."""
        asked = rows(indices, len(self))
        count, device = len(self._kept), self._kept.device
        batch = self._kept[sent(asked % count, device)]
        # Not by index: how many are mirrored is not for the device to be asked.
        mirrored = sent(asked >= count, device)[:, None, None, None]
        return torch.where(mirrored, batch.flip(-1), batch)

    def labels(self, indices: Tensor) -> Tensor | None:
        """Their classes, (B,) int64; None without classes."""
        return self.source.labels(indices)
