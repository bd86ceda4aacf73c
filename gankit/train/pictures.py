"""Samples as one picture: side by side, by class where the network has classes, or as points."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from PIL.Image import Image as Picture
from torch import Tensor, nn

from gankit.build import GAN
from gankit.datasets import image_grid, scatter, to_uint8
from gankit.errors import GankitError
from gankit.slots import Dataset
from gankit.train.sampling import COLUMNS, SAMPLES, draw, grid_labels, label_count

__all__ = ["class_grid", "class_names", "picture", "sample_grid"]

WIDE, HIGH = 512, 40
"""The least width of a page and the least height of an image on it, in pixels."""
LONGEST = 24
"""The most letters of a name."""


def sample_grid(gan: GAN, network: nn.Module, data: Dataset, seed: int = 0) -> Picture:
    """The picture that training draws: always of the same latents, and of the same classes."""
    labels = grid_labels(label_count(gan, network))
    count = SAMPLES if labels is None else len(labels)
    return picture(draw(gan, network, count, seed, labels=labels), data, labels)


def picture(images: Tensor, data: Dataset, labels: Tensor | None = None) -> Picture:
    """A grid of images, by class if they have labels, or points drawn over those of the data.

    Of values that have no colours the first are shown: one channel, three of many, two coordinates.
    """
    if not data.image.size:
        real = data.images(torch.arange(min(1000, len(data))))
        return scatter(_plane(images), _plane(real))
    seen = images[:, : 3 if images.shape[1] >= 3 else 1]
    return image_grid(seen) if labels is None else class_grid(seen, labels, class_names(data))


def class_names(data: Dataset) -> Sequence[str]:
    """What the classes are called: by the data's own `class_names`, else by their numbers.

    An export may have left its data behind, and the names with them.
    """
    try:
        names: Sequence[str] = getattr(data, "class_names", ())
    except (GankitError, OSError):
        names = ()
    numbers = [str(number) for number in range(data.image.classes)]
    return names if len(names) == len(numbers) else numbers


def class_grid(images: Tensor, labels: Tensor, names: Sequence[str]) -> Picture:
    """Images in blocks, one for each class, with its name before it.

    A block is a row, or several where there are more than eight images of a class; blocks stand
    side by side where they are narrow.

    Shape: images (B, 1 or 3, H, W), floats in [-1, 1] or bytes, labels (B,).
    """
    classes = labels.unique().tolist()
    most = int(labels.bincount().max())
    columns = min(most, COLUMNS)
    lines = math.ceil(most / columns)
    height, width = images.shape[2:]
    aside = max(1, round(math.sqrt(len(classes) * lines * height / (columns * width))))
    factor = max(math.ceil(HIGH / height), math.ceil(WIDE / (aside * columns * width)))
    step = width * factor + 2, height * factor + 2

    font = ImageFont.load_default(14)
    words = [_short(names[label]) for label in classes]
    gap = 2 + 4 * (lines > 1 or aside > 1)
    before = math.ceil(max(font.getlength(word) for word in words)) + 16
    block = before + columns * step[0] + 2 * gap, lines * step[1] + gap
    down = math.ceil(len(classes) / aside)
    page = Pillow.new("RGB", (aside * block[0], down * block[1] + gap), "white")
    pen = ImageDraw.Draw(page)

    pixels = to_uint8(images).cpu().expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    pixels = pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    for place, (label, word) in enumerate(zip(classes, words, strict=True)):
        left, top = place % aside * block[0], gap + place // aside * block[1]
        own = pixels[labels == label]
        middle = top + math.ceil(len(own) / columns) * step[1] / 2 - 1
        pen.text((left + before - 8, middle), word, (34, 34, 34), font, "rm")
        for number, image in enumerate(own):
            x, y = left + before + number % columns * step[0], top + number // columns * step[1]
            page.paste(Pillow.fromarray(image.contiguous().numpy()), (x, y))
    return page


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _plane(points: Tensor) -> Tensor:
    return F.pad(points, (0, max(0, 2 - points.shape[1])))[:, :2]
