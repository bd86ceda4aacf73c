"""Samples beside the training images that are most like them, pixel by pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from PIL.Image import Image as Picture
from torch import Tensor

from gankit.datasets import to_float
from gankit.randomness import generator
from gankit.slots import Dataset
from gankit.views.making import Drawing
from gankit.views.sheet import enlarged, sheet

__all__ = ["Nearest", "nearest", "show_neighbours"]

NEIGHBOURS = 7
COMPARED = 64
"""Training images whose own nearest ones say how far apart two different images are."""
HELD = 1 << 24
"""The most numbers of training images in memory at once: 64 MiB of float32."""


def show_neighbours(drawing: Drawing, count: int) -> Picture:
    """Each sample, and the training images nearest to it.

    A generator that has learned images by heart shows the same image twice. How far training images
    are from each other stands beside it, to compare with.
    """
    drawing.refuse_points("neighbours")
    labels, data = drawing.labels(count), drawing.live.data
    samples = drawing.images(drawing.latents(count), labels)
    length = len(data)
    most = min(NEIGHBOURS, length)
    own = torch.randperm(length, generator=generator(drawing.seed, "neighbours"))[:COMPARED]
    queries = torch.cat([samples, to_float(data.images(own)).float()])
    none = torch.full((count,), -1)
    found = nearest(queries, data, most, besides=torch.cat([none, own]))
    rows, captions = [], []
    for sample, indices, apart in zip(
        enlarged(samples), found.indices, found.distances, strict=False
    ):
        rows.append([sample, *enlarged(data.images(indices))])
        captions.append(["", *(f"{distance:.3f}" for distance in apart.tolist())])
    typical = found.distances[count:, 0]
    typical = typical[typical.isfinite()]
    notes = [
        "under each its distance: the root of the mean square over pixels, black to white being 1",
        drawing.signature,
    ]
    if len(typical):
        middle = float(typical.median())
        told = f"{middle:.3f} from training image to nearest other, the median of {len(typical)}"
        notes.insert(1, f"to compare with: {told}")
    return sheet(
        rows,
        title=f"Samples, and the nearest of {length:,} training images",
        notes=notes,
        columns=["sample", "nearest", *(_nth(k) for k in range(2, most + 1))],
        names=drawing.names(labels),
        captions=captions,
        apart=1,
    )


def _nth(number: int) -> str:
    return f"{number}{ {2: 'nd', 3: 'rd'}.get(number, 'th') }"


@dataclass(frozen=True)
class Nearest:
    """For each of some images the nearest of a data set, from near to far."""

    indices: Tensor
    """(B, k), int64."""
    distances: Tensor
    """(B, k): the root of the mean square over pixels, black to white being 1."""


@torch.no_grad()
def nearest(
    queries: Tensor, data: Dataset, most: int, *, besides: Tensor | None = None, held: int = HELD
) -> Nearest:
    """The training images nearest to some images, with `held` numbers of theirs in memory at once.

    `besides` names for each an index that does not count, or -1: of a training image its own.

    Shape: queries (B, C, H, W) in [-1, 1].
    """
    flat = queries.flatten(1)
    length = len(data)
    rows = max(1, held // flat.shape[1])
    best = torch.full((len(flat), most), math.inf)
    which = torch.zeros(len(flat), most, dtype=torch.int64)
    own = torch.full((len(flat),), -1) if besides is None else besides
    for start in range(0, length, rows):
        indices = torch.arange(start, min(start + rows, length))
        images = to_float(data.images(indices)).float().flatten(1)
        # By one product of matrices; the few that stay are measured anew below.
        squares = flat.square().sum(1, keepdim=True) + images.square().sum(1)
        apart = squares - 2 * flat @ images.t()
        apart.masked_fill_(own[:, None] == indices, math.inf)
        joined = torch.cat([best, apart], 1)
        known = torch.cat([which, indices.expand(len(flat), -1)], 1)
        best, places = joined.topk(most, largest=False)
        which = known.gather(1, places)
    exact = torch.stack([_apart(q, data, i) for q, i in zip(flat, which, strict=True)])
    exact = exact.masked_fill(best.isinf(), math.inf)
    order = exact.argsort(dim=1, stable=True)
    return Nearest(which.gather(1, order), exact.gather(1, order))


def _apart(image: Tensor, data: Dataset, indices: Tensor) -> Tensor:
    """From one image to some of the data, without the rounding of a matrix product."""
    others = to_float(data.images(indices)).float().flatten(1)
    return (others - image).square().mean(1).sqrt() / 2
