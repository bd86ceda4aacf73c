"""Pictures of the space of latents: on the way between two, and towards its middle."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from PIL.Image import Image as Picture
from torch import Tensor

from gankit.errors import OptionError, UsageError
from gankit.latents import normal, truncated
from gankit.train.sampling import truncation
from gankit.views.making import Drawing
from gankit.views.sheet import enlarged, sheet

__all__ = ["show_interpolation", "show_truncation", "slerp"]

STEPS = 8
"""Images from one end of an interpolation to the other."""
THRESHOLDS = (2.0, 1.5, 1.0, 0.75, 0.5, 0.25, 0.1)
FAR = 8.0
"""A threshold, in standard deviations, that no latent in 10^15 is beyond."""


def show_interpolation(drawing: Drawing, count: int) -> Picture:
    """Rows of images between pairs of latents.

    Spherical for normal latents, as in White, "Sampling Generative Networks" (2016),
    arXiv:1609.04468, section 2.1: a straight line leads through the middle, where no latent of
    training was. For others straight, which leaves no convex region.
    """
    drawing.refuse_points("interpolation")
    spherical = _made_by(drawing) in (normal, truncated)
    ends = drawing.latents(2 * count)
    path = slerp if spherical else torch.lerp
    at = torch.linspace(0, 1, STEPS)
    z = torch.stack([path(ends[0::2], ends[1::2], weight) for weight in at], dim=1).flatten(0, 1)
    labels = drawing.labels(count)
    rows = None if labels is None else labels.repeat_interleave(STEPS)
    pictures = enlarged(drawing.images(z, rows))
    kind = "Spherical" if spherical else "Straight"
    return sheet(
        [pictures[i : i + STEPS] for i in range(0, len(pictures), STEPS)],
        title=f"{kind} interpolation between pairs of latents",
        notes=[drawing.signature],
        columns=["from", *(f"{weight:.0%}" for weight in at[1:-1].tolist()), "to"],
        names=drawing.names(labels),
    )


def slerp(one: Tensor, other: Tensor, weight: Tensor | float) -> Tensor:
    """The point on the great circle, row by row; lengths go from the one's to the other's.

    Shape: (B, latent) and (B, latent) -> (B, latent).
    """
    weight = torch.as_tensor(weight, dtype=one.dtype)
    start, end = (torch.linalg.vector_norm(z, dim=1, keepdim=True) for z in (one, other))
    angle = (one / start * (other / end)).sum(1, keepdim=True).clamp(-1, 1).acos()
    near = angle.sin() < 1e-4  # one direction, where the line is as good
    angle = torch.where(near, torch.ones_like(angle), angle)
    begun = ((1 - weight) * angle).sin() / angle.sin() * one / start
    ended = (weight * angle).sin() / angle.sin() * other / end
    around = (begun + ended) * torch.lerp(start, end, weight)
    return torch.where(near, torch.lerp(one, other, weight), around)


def show_truncation(drawing: Drawing, count: int) -> Picture:
    """Rows of the same latents, none further out than a threshold that falls from row to row.

    Brock, Donahue and Simonyan (2019), arXiv:1809.11096, section 3.1. Each value keeps its rank:
    it is the one that the same draw has in the narrower distribution.

    Raises:
        UsageError: the latents are not normal, or a threshold was given.
    """
    drawing.refuse_points("truncation")
    if drawing.latent is not None:
        raise UsageError("--as truncation has thresholds of its own: leave --truncation out")
    gan, trained = drawing.live.gan, FAR
    if _made_by(drawing) is truncated:
        given = gan.latent.keywords if isinstance(gan.latent, partial) else {}
        trained = given.get("threshold", 2.0)
    thresholds = [trained, *(t for t in THRESHOLDS if t < trained)]
    labels, rows = drawing.labels(count), []
    for threshold in thresholds:
        try:
            made = truncation(gan, threshold)
        except OptionError as error:
            raise UsageError(f"--as truncation: {error}") from error
        z = replace(drawing, latent=made).latents(count)
        rows.append(enlarged(drawing.images(z, labels)))
    return sheet(
        rows,
        title="Truncation: the same latents, less and less far out",
        notes=["no value beyond so many standard deviations", drawing.signature],
        columns=drawing.names(labels),
        names=["no limit" if t == FAR else f"{t:g}" for t in thresholds],
    )


def _made_by(drawing: Drawing) -> object:
    """The function that draws the latents."""
    latent = drawing.live.gan.latent
    return latent.func if isinstance(latent, partial) else latent
