"""Images to the size that a network looks at, by filters that published scores have used.

They differ enough to move a score: Parmar, Zhang and Zhu, "On Aliased Resizing and Surprising
Subtleties in GAN Evaluation", 2022, arXiv:2104.11222.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

__all__ = ["FILTERS", "Filter", "resized"]

Filter = Literal["tensorflow", "clean", "pillow"]

FILTERS: dict[Filter, str] = {
    "tensorflow": "bilinear without antialiasing (TensorFlow 1)",
    "clean": "bicubic with antialiasing (Pillow, unrounded; clean-fid)",
    "pillow": "bicubic with antialiasing (Pillow, in 8 bits)",
}


def resized(images: Tensor, side: int, how: Filter) -> Tensor:
    """Square images, whatever their proportions were; of 0 to 255 still.

    Shape: (B, C, H, W) uint8 to (B, C, side, side) float32.
    """
    if how == "tensorflow":
        return _bilinear(images, side)
    # Pillow's filter is separable and per channel: planes give what whole images would.
    planes = images.flatten(0, 1).cpu().numpy()
    bicubic = _bicubic if how == "clean" else _bicubic_8_bits
    done = np.empty((len(planes), side, side), np.float32)
    for place, plane in enumerate(planes):
        done[place] = bicubic(plane, side)
    return torch.from_numpy(done).to(images.device).unflatten(0, images.shape[:2])


def _bilinear(images: Tensor, side: int) -> Tensor:
    """Between the two nearest rows and columns, corner on corner; none is averaged over.

    The arithmetic is TensorFlow's, to the last bit.
    """
    x = images.float()
    for dim in (3, 2):
        last = images.shape[dim] - 1
        scale = torch.tensor(images.shape[dim] / side, dtype=torch.float32, device=x.device)
        at = torch.arange(side, dtype=torch.float32, device=x.device) * scale
        low = at.long()
        share = (at - low).view(-1, *[1] * (3 - dim))
        below = x.index_select(dim, low)
        above = x.index_select(dim, (low + 1).clamp_max(last))
        x = below + (above - below) * share
    return x


def _bicubic(plane: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    image = Pillow.fromarray(plane.astype(np.float32))
    # A cubic filter overshoots at edges.
    return np.asarray(image.resize((side, side), Pillow.Resampling.BICUBIC)).clip(0, 255)


def _bicubic_8_bits(plane: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    image = Pillow.fromarray(plane)
    return np.asarray(image.resize((side, side), Pillow.Resampling.BICUBIC))
