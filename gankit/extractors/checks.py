"""What extractors of images check alike: data when they are made, batches when they are asked."""

from __future__ import annotations

import torch
from torch import Tensor

from gankit.errors import SpecError
from gankit.slots import Dataset

__all__ = ["images_only", "of_images"]


def images_only(name: str, data: Dataset) -> None:
    """Refuse a data set of points.

    Raises:
        SpecError: naming the features that see points.
    """
    if not data.image.size:
        raise SpecError(
            f'features "{name}" are of images, and this data is of points in space:'
            ' "pixels" or "mixture" see those'
        )


def of_images(images: Tensor) -> Tensor:
    """The batch as it is, if it is one of images.

    Raises:
        TypeError: anything but (B, C, H, W) uint8, such as floats in [-1, 1].
    """
    if images.dim() != 4 or images.dtype != torch.uint8:
        shape = tuple(images.shape)
        raise TypeError(f"images are (B, C, H, W) uint8, not {shape} {str(images.dtype)[6:]}")
    return images
