"""Drawn shapes whose every factor is known: an endless data set that needs no disk.

The factors of image i are a hash of (seed, i): any image can be had without those before it, and a
longer data set begins with the shorter one. In colour, red, green and blue are cosines a third of a
turn apart around one middle, and the background is grey, so that a pixel's chroma is its coverage
and the chroma's angle is the hue: what a generator drew can be read back exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gankit.datasets.checks import at_least, height_width, one_or_three, rows
from gankit.registry import dataset
from gankit.slots import Image

__all__ = [
    "CHROMA",
    "CLASSES",
    "HOLE",
    "MIDDLE",
    "SIDES",
    "Factors",
    "Shapes",
    "outside",
    "render",
]

CLASSES = ("circle", "ring", "triangle", "square", "star")
"""The names of the labels."""

SIDES = (0, 0, 3, 4, 5)
"""Per class, how often a full turn shows it unchanged; 0 where no turn is seen."""

MIDDLE = 0.55
"""A shape's colour is MIDDLE + CHROMA x cosine, of 1."""

CHROMA = 0.45
"""How far its red, green and blue are from their mean at most."""

HOLE = 0.55
"""The inner radius of a ring, of its outer one."""


class Factors(NamedTuple):
    """What an image shows, one entry per image; label is int64, the others float32."""

    label: Tensor
    """Its place in CLASSES, evenly drawn."""
    hue: Tensor
    """In turns, [0, 1): 0 is red, 1/3 green, 2/3 blue. Grey images show a white shape instead."""
    shade: Tensor
    """Of the background, 0.1 to 0.6 of white."""
    x: Tensor
    """The centre from the left, 0.3 to 0.7 of the width."""
    y: Tensor
    """The centre from the top, 0.3 to 0.7 of the height."""
    radius: Tensor
    """Of the circle around the shape, 0.15 to 0.3 of the shorter side."""
    rotation: Tensor
    """Clockwise, in radians, from 0 to the first turn that shows the shape unchanged."""


@dataset("shapes")
@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Anti-aliased circles, rings, triangles, squares and stars of known factors, on grey.

    Options:
        size: height and width in pixels, 8 or more; one number is a square
        channels: 3 for coloured shapes, 1 for white ones
        length: how many images; a longer set begins with the shorter one
        seed: of the factors

    Shape: images (B, channels, height, width) uint8, labels (B,).

    Raises:
        ValueError: an option out of range.
    """

    features: ClassVar[str] = "shapes"
    size: int | tuple[int, int] = 64
    channels: int = 3
    length: int = 50_000
    seed: int = 0

    def __post_init__(self) -> None:
        height_width(self.size, least=8)
        one_or_three(self.channels)
        at_least("length", self.length, 1)
        at_least("seed", self.seed, 0)

    @property
    def image(self) -> Image:
        """One class per shape."""
        return Image(self.channels, height_width(self.size), classes=len(CLASSES))

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the labels are called."""
        return CLASSES

    @property
    def held_out(self) -> Shapes:
        """As many shapes of the next seed."""
        return replace(self, seed=self.seed + 1)

    def __len__(self) -> int:
        return self.length

    def factors(self, indices: Tensor) -> Factors:
        """What the images at the indices show."""
        draws = uniform(self.seed, rows(indices, self.length), len(Factors._fields))
        label, hue, shade, x, y, radius, turn = torch.from_numpy(draws)
        label = (label * len(CLASSES)).long()
        symmetry = torch.tensor([2 * math.pi / n if n else 0.0 for n in SIDES]).double()[label]
        reals = (hue, 0.1 + 0.5 * shade, 0.3 + 0.4 * x, 0.3 + 0.4 * y, 0.15 + 0.15 * radius)
        return Factors(label, *(real.float() for real in (*reals, turn * symmetry)))

    def images(self, indices: Tensor) -> Tensor:
        """The shapes at the indices, (B, C, H, W) uint8."""
        return render(self.factors(indices), height_width(self.size), self.channels)

    def labels(self, indices: Tensor) -> Tensor:
        """Their places in CLASSES, (B,) int64."""
        return self.factors(indices).label


def uniform(seed: int, indices: Tensor, count: int) -> npt.NDArray[np.float64]:
    """`count` numbers in [0, 1) for each index, of 24 bits: SplitMix64, looked up by position.

    Shape: (B,) to (count, B).
    """
    # A stride above `count` leaves room for another factor without moving those that there are.
    position = indices.numpy().astype(np.uint64) * np.uint64(16)
    counter = position + np.arange(1, count + 1, dtype=np.uint64)[:, None]
    start = _mix(np.array([seed % 2**64], np.uint64))
    bits = _mix(start + counter * np.uint64(0x9E3779B97F4A7C15))
    return (bits >> np.uint64(40)).astype(np.float64) * 2.0**-24


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def render(factors: Factors, size: tuple[int, int], channels: int) -> Tensor:
    """Draw factors; a pixel's coverage falls from 1 to 0 over one pixel across the outline.

    Shape: (B,) factors to (B, channels, height, width) uint8.
    """

    # Sines are rounded from float64 and pixels see only +, x, max and square root, which float32
    # does exactly alike everywhere: an image does not depend on the batch or the machine.
    def each(values: Tensor) -> Tensor:
        return values.float().view(-1, 1, 1)

    height, width = size
    angle = factors.rotation.double()
    cos, sin = each(angle.cos()), each(angle.sin())
    right = torch.arange(width) + 0.5 - each(factors.x * width)
    down = (torch.arange(height) + 0.5)[:, None] - each(factors.y * height)
    across, along = right * cos + down * sin, down * cos - right * sin
    radius = each(factors.radius * min(size))
    coverage = torch.empty_like(across)
    for label in range(len(CLASSES)):
        these = factors.label == label
        distance = outside(label, across[these], along[these], radius[these])
        coverage[these] = (0.5 - distance).clamp(0, 1)

    shade = each(factors.shade)[:, None]
    colour = torch.ones(1)
    if channels == 3:
        turns = factors.hue.double()[:, None] - torch.arange(3) / 3.0
        colour = (MIDDLE + CHROMA * (2 * math.pi * turns).cos()).float()[..., None, None]
    drawn = shade + coverage[:, None] * (colour - shade)
    return (drawn * 255).round().to(torch.uint8)


def outside(label: int, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """The distance to the shape's outline, negative inside; x to the right, y down."""
    if label == CLASSES.index("circle"):
        return (x * x + y * y).sqrt() - radius
    if label == CLASSES.index("ring"):
        middle, half = (1 + HOLE) / 2, (1 - HOLE) / 2
        return ((x * x + y * y).sqrt() - middle * radius).abs() - half * radius
    if label == CLASSES.index("star"):
        return polygon(x, -y, radius, 5, step=2)
    return polygon(x, y, radius, SIDES[label])


def polygon(x: Tensor, y: Tensor, radius: Tensor, sides: int, *, step: int = 1) -> Tensor:
    """How far a point is beyond the sides of the regular polygon {sides/step}.

    It is inside when it is beyond fewer than `step` of them, 1 or 2: the pentagram's tips are each
    beyond one side of the pentagon in its middle.
    """
    most = second = torch.full_like(x, -math.inf)
    for side in range(sides):
        angle = math.pi / 2 + 2 * math.pi * side / sides
        beyond = x * math.cos(angle) + y * math.sin(angle)
        second = second.maximum(most.minimum(beyond))
        most = most.maximum(beyond)
    return (most if step == 1 else second) - radius * math.cos(step * math.pi / sides)
