"""Scores of plain tensors: what the tests of metrics share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gankit.slots import Seen

__all__ = ["gathered", "normal", "pieces", "rotation", "scored"]


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers from N(0, 1)."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rotation(seed: int, width: int) -> Tensor:
    """An orthogonal matrix."""
    return torch.linalg.qr(normal(seed, width, width)).Q


def pieces(seen: Seen, cuts: Sequence[int]) -> list[Seen]:
    """A batch in several."""
    ends = sorted({0, *(cut % len(seen.features) for cut in cuts), len(seen.features)})
    return [
        Seen(*(None if field is None else field[i:j] for field in seen)) for i, j in pairwise(ends)
    ]


def gathered(metric: Any, seen: Seen | Tensor, cuts: Sequence[int] = ()) -> Any:
    """What a metric keeps of a set of images, shown in several batches."""
    collection = metric.gather()
    seen = Seen(seen) if isinstance(seen, Tensor) else seen
    for piece in pieces(seen, cuts):
        collection.add(piece)
    return collection


def scored(metric: Any, *sets: Seen | Tensor, cuts: Sequence[int] = ()) -> dict[str, float]:
    """The scores of real images, fake ones, and held-out ones where they are asked for."""
    scores = metric.scores(*(gathered(metric, each, cuts) for each in sets))
    assert all(type(value) is float and np.isfinite(value) for value in scores.values())
    return scores  # type: ignore[no-any-return]
