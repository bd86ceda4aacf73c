"""Drawn shapes read back from their pixels: the inverse of `gankit.datasets.render`."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gankit.datasets import Factors
from gankit.datasets.shapes import CHROMA, CLASSES, MIDDLE, SIDES
from gankit.extractors.checks import of_images
from gankit.extractors.fitting import Outline, coverage, first_guess, fitted

__all__ = ["MORE_STEPS", "STEPS", "Decoded", "decode"]

STEPS = 2
"""Of the fit for every class."""

MORE_STEPS = 6
"""Of the fit for the class that explains the image best."""

ENOUGH = 32
"""Classes are told apart at so many pixels along the shorter side, or up to twice as many."""

PIXELS = 2**20
"""How many are looked at together; more at a time are no faster."""


class Decoded(NamedTuple):
    """What images show."""

    factors: Factors
    unexplained: Tensor
    """(B, classes): the root mean square of image minus drawing, as a share of white."""


class _Scene(NamedTuple):
    """Images, and what of them does not depend on the shape."""

    pixels: Tensor
    shade: Tensor
    hue: Tensor
    colour: Tensor
    """(B, C): of the shape."""
    covered: Tensor
    """(B, H, W): how much of each pixel the shape covers."""


def decode(images: Tensor) -> Decoded:
    """The factors of images, and what each class leaves unexplained.

    Of an image that shows no shape, they are those of the drawing that is least unlike it. Grey
    images have hue 0.

    Of drawn images of 24 pixels or more, lengths are found to a hundredth of a pixel or two; of 16,
    a fifth of a pixel may be missed once in thousands. Hues are found to 0.001 turns, and shades
    to half a level of 255.

    Shape: (B, C, H, W) uint8, with one channel or three.

    Raises:
        TypeError: anything but (B, C, H, W) uint8.
    """
    of_images(images)
    rows = max(1, PIXELS // (images.shape[2] * images.shape[3]))
    parts = [_decoded(part) for part in images.cpu().split(rows)]
    factors = (torch.cat(each) for each in zip(*(part.factors for part in parts), strict=True))
    return Decoded(Factors(*factors), torch.cat([part.unexplained for part in parts]))


@torch.no_grad()
def _decoded(images: Tensor) -> Decoded:
    scene = _seen(images)
    height, width = size = images.shape[2], images.shape[3]
    times = max(1, min(size) // ENOUGH)
    small = F.avg_pool2d(scene.covered[:, None], times)[:, 0]
    outlines = [
        fitted(label, first_guess(label, small), small, steps=STEPS).scaled(times)
        for label in range(len(CLASSES))
    ]
    left = [_unexplained(scene, label, outline) for label, outline in enumerate(outlines)]
    unexplained = torch.stack(left, 1)
    labels = unexplained.argmin(1)
    found = torch.empty(len(Outline._fields), len(images))
    for label, outline in enumerate(outlines):
        chosen = labels == label
        start, these = (
            Outline(*(part[chosen] for part in outline)),
            _Scene(*(p[chosen] for p in scene)),
        )
        better = fitted(label, start, these.covered, steps=MORE_STEPS)
        unexplained[chosen, label] = _unexplained(these, label, better)
        found[:, chosen] = torch.stack(better)
    x, y, radius, rotation = found
    turn = torch.tensor([2 * math.pi / folds if folds else math.inf for folds in SIDES])[labels]
    rotation = torch.where(turn.isinf(), 0, rotation % turn)
    lengths = x / width, y / height, radius / min(size)
    return Decoded(Factors(labels, scene.hue, scene.shade, *lengths, rotation), unexplained)


def _seen(images: Tensor) -> _Scene:
    pixels = images.float() / 255
    # Shapes cover less than a third of any image.
    shade = pixels.mean(1).flatten(1).median(1).values
    if pixels.shape[1] == 1:
        lighter = (pixels[:, 0] - _each(shade)) / (1 - _each(shade)).clamp_min(1 / 255)
        return _Scene(
            pixels, shade, torch.zeros_like(shade), torch.ones_like(shade)[:, None], lighter
        )
    red, green, blue = pixels.unbind(1)
    chroma = torch.complex(red - (green + blue) / 2, (green - blue) * (math.sqrt(3) / 2))
    total = chroma.sum((1, 2))
    covered = (chroma * _each(total.sgn().conj())).real / (1.5 * CHROMA)
    hue = total.angle() / (2 * math.pi) % 1
    colour = MIDDLE + CHROMA * (2 * math.pi * (hue[:, None] - torch.arange(3) / 3)).cos()
    return _Scene(pixels, shade, hue, colour, covered)


def _unexplained(scene: _Scene, label: int, outline: Outline) -> Tensor:
    """The root mean square of image minus drawing.

    Shape: (B,).
    """
    size = scene.pixels.shape[2], scene.pixels.shape[3]
    shade = scene.shade[:, None, None, None]
    colour = scene.colour[:, :, None, None]
    drawn = shade + coverage(label, outline, size)[:, None] * (colour - shade)
    return (scene.pixels - drawn).square().mean((1, 2, 3)).sqrt()


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)
