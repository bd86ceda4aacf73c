"""Ranks: numbers by their place, where sizes say nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ranks"]


def ranks(values: NDArray[np.float64], /) -> NDArray[np.float64]:
    """Ranks from 1 for the smallest; equal numbers, infinite ones too, share the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]
