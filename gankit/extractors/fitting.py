"""The outline of a shape, fitted to how much of each pixel is covered."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gankit.datasets.shapes import CLASSES, HOLE, SIDES, outside

__all__ = ["Outline", "coverage", "first_guess", "fitted"]

AREAS = (
    math.pi,
    math.pi * (1 - HOLE**2),
    3 * math.sqrt(3) / 4,
    2.0,
    # Ten triangles from the centre to a tip and the notch beside it.
    5 * math.sin(math.pi / 5) * math.cos(2 * math.pi / 5) / math.cos(math.pi / 5),
)
"""Per class, the area within the outline of radius 1."""

SMALL, LARGE = 0.1, 0.5
"""No radius is below or above these shares of the shorter side; those of the data keep well off."""

FAINT = 2.2
"""So many times the median of all coverage, of which most is 0 in a drawn image, is noise to the
first guess. For normal noise that is 4.5 standard deviations of the mean of nine pixels."""

DAMPING, LESS, MORE = 1e-2, 0.2, 5.0
"""How far a first step is shortened, and how that changes after one that helped and one that did
not."""


class Outline(NamedTuple):
    """Where outlines of one class are; all are (B,) float32, lengths in pixels."""

    x: Tensor
    y: Tensor
    radius: Tensor
    rotation: Tensor

    def scaled(self, times: int) -> Outline:
        """The same outlines in pixels that are so many times smaller."""
        return Outline(self.x * times, self.y * times, self.radius * times, self.rotation)


def coverage(label: int, outline: Outline, size: tuple[int, int]) -> Tensor:
    """How much of each pixel the shapes cover, as `gankit.datasets.render` has it.

    Shape: (B,) each to (B, height, width).
    """
    distance = outside(label, *_turned(outline, size), _each(outline.radius))
    return (0.5 - distance).clamp(0, 1)


def first_guess(label: int, covered: Tensor) -> Outline:
    """The outline that moments tell: centre of mass, area, and the n-th moment around the centre.

    Where n-fold turns leave a shape unchanged, the n-th moment turns n times as far as the shape.

    Shape: (B, height, width) to (B,) each.
    """
    size = covered.shape[-2], covered.shape[-1]
    # Far from the middle a little noise weighs much.
    noise = FAINT * covered.abs().flatten(1).median(1).values
    around = F.avg_pool2d(covered[:, None], 3, stride=1, padding=1)[:, 0]
    covered = torch.where(around > _each(noise), covered.clamp(0, 1), 0)
    right, down = _grid(size, covered)
    mass = covered.sum((1, 2)).clamp_min(1e-3)
    x, y = (covered * right).sum((1, 2)) / mass, (covered * down).sum((1, 2)) / mass
    radius = (mass / AREAS[label]).sqrt()
    rotation = torch.zeros_like(x)
    if folds := SIDES[label]:
        offset = torch.complex(*torch.broadcast_tensors(right - _each(x), down - _each(y)))
        moment = (covered * (offset / _each(radius)) ** folds).sum((1, 2))
        # Unturned, a corner is at the top; of squares, where down is positive, at an eighth.
        corner = math.pi / 4 if label == CLASSES.index("square") else -math.pi / 2
        rotation = moment.angle() / folds - corner
    return _bounded(Outline(x, y, radius, rotation), covered)


def fitted(label: int, start: Outline, covered: Tensor, *, steps: int) -> Outline:
    """The outline of the least squared error in coverage that so many steps find from a start.

    By Levenberg and Marquardt: a step that does not help is taken back, and the next is shorter.

    Shape: (B,) each and (B, height, width) to (B,) each.
    """
    best, here = start, start
    least = torch.full_like(start.x, math.inf)
    damping = torch.full_like(start.x, DAMPING)
    normal, slope = start.x.new_zeros(len(start.x), 4, 4), start.x.new_zeros(len(start.x), 4)
    for _ in range(steps):
        error, other_normal, other_slope = _around(label, here, covered)
        helped = error < least
        least = torch.where(helped, error, least)
        best = _where(helped, here, best)
        normal = torch.where(helped[:, None, None], other_normal, normal)
        slope = torch.where(helped[:, None], other_slope, slope)
        damping = torch.where(helped, damping * LESS, damping * MORE)
        here = _moved(best, normal, slope, damping, covered)
    size = covered.shape[-2], covered.shape[-1]
    error = (covered - coverage(label, here, size)).square().sum((1, 2))
    return _where(error < least, here, best)


def _around(label: int, outline: Outline, covered: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The squared error, and its curvature and slope in x, y, radius and rotation.

    Shape: (B,), (B, 4, 4) and (B, 4).
    """
    size = covered.shape[-2], covered.shape[-1]
    with torch.inference_mode(False), torch.enable_grad():
        across, along = (each.clone().requires_grad_() for each in _turned(outline, size))
        radius = _each(outline.radius).expand_as(across).clone().requires_grad_()
        distance = outside(label, across, along, radius)
        slopes = torch.autograd.grad(distance.sum(), (across, along, radius))
    across, along, distance = across.detach(), along.detach(), distance.detach()
    # Coverage changes across the outline only. A circle's slope in its very middle is not a number.
    edge = distance.abs() < 0.5
    by_across, by_along, by_radius = (torch.where(edge, slope, 0) for slope in slopes)
    cos, sin = _each(outline.rotation.cos()), _each(outline.rotation.sin())
    columns = (
        by_across * cos - by_along * sin,
        by_across * sin + by_along * cos,
        -by_radius,
        by_along * across - by_across * along,
    )
    jacobian = torch.stack(columns, 1).flatten(2)
    wrong = (covered - (0.5 - distance).clamp(0, 1)).flatten(1)
    return wrong.square().sum(1), jacobian @ jacobian.mT, (jacobian @ wrong[..., None])[..., 0]


def _moved(
    outline: Outline, normal: Tensor, slope: Tensor, damping: Tensor, covered: Tensor
) -> Outline:
    """The outline a step further; no part of it moves by more than about a pixel."""
    curvature = normal.diagonal(dim1=1, dim2=2)
    # What no pixel depends on, such as the turn of a circle, has no curvature and stays.
    held = torch.diag_embed(damping[:, None] * curvature + 1e-6)
    x, y, radius, turn = torch.linalg.solve(normal + held, slope).clamp(-1, 1).unbind(1)
    turn = turn.clamp(-1 / outline.radius, 1 / outline.radius)
    steps = zip(outline, (x, y, radius, turn), strict=True)
    return _bounded(Outline(*(part + step for part, step in steps)), covered)


def _where(chosen: Tensor, one: Outline, other: Outline) -> Outline:
    pairs = zip(one, other, strict=True)
    return Outline(*(torch.where(chosen, *pair) for pair in pairs))


def _bounded(outline: Outline, covered: Tensor) -> Outline:
    height, width = size = covered.shape[-2], covered.shape[-1]
    radius = outline.radius.clamp(SMALL * min(size), LARGE * min(size))
    return Outline(outline.x.clamp(0, width), outline.y.clamp(0, height), radius, outline.rotation)


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)


def _grid(size: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """The middles of the pixels, from the left and from the top."""
    right, down = (torch.arange(side).to(like) + 0.5 for side in reversed(size))
    return right, down[:, None]


def _turned(outline: Outline, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The middles of the pixels as the unturned shape around the origin has them."""
    right, down = _grid(size, outline.x)
    right, down = right - _each(outline.x), down - _each(outline.y)
    cos, sin = _each(outline.rotation.cos()), _each(outline.rotation.sin())
    return right * cos + down * sin, down * cos - right * sin
