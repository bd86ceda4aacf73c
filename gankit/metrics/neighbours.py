"""Distances between all of one set of vectors and all of another, a block at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["blocks", "nearest"]

ENTRIES = 2**23
"""How many numbers of float64 a block has at most, which is 64 MiB."""


def blocks(one: Tensor, other: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Squared distances from some rows of `one` to all of `other`, and the first row's index.

    Shape: (M, D) and (N, D) to (B, N) float64, for as many B as make M.
    """
    # Around the centre, or the squares of large means would swallow small distances.
    centre = other.mean(0, dtype=torch.float64)
    rows = max(1, ENTRIES // max(other.shape))
    for start in range(0, len(one), rows):
        of = one[start : start + rows].double() - centre
        parts = [_squares(of, part.double() - centre) for part in other.split(rows)]
        yield start, torch.cat(parts, 1)


def _squares(one: Tensor, other: Tensor) -> Tensor:
    lengths = one.square().sum(1)[:, None] + other.square().sum(1)
    return torch.addmm(lengths, one, other.mT, alpha=-2).clamp_(min=0)


def nearest(one: Tensor, other: Tensor | None = None, count: int = 1) -> Tensor:
    """Squared distances to the nearest vectors of another set, or of the same but for oneself.

    Shape: (M, D) and (N, D) to (M, count) float64, rising.
    """
    others = one if other is None else other
    found = []
    for start, squares in blocks(one, others):
        if other is None:
            own = torch.arange(len(squares))
            squares[own, start + own] = math.inf
        # Once more from differences, so that a copy's distance is 0 and equal ones are equal.
        for which in squares.topk(count, largest=False).indices.T:
            apart = one[start : start + len(squares)].double() - others[which].double()
            found.append(apart.square().sum(1))
    by_block = [torch.stack(found[i : i + count], 1) for i in range(0, len(found), count)]
    return torch.cat(by_block).sort(1).values
