"""The additive model of a study's cells, complete grid or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Additive"]

Weights = NDArray[np.float64]

TOLERANCE = 1e-8
"""Weights of cells are of the size of 1 over their number; what is smaller is rounding."""


class Additive:
    """The additive model of cells: a mean, and an effect for each level of each axis.

    What it says of them is linear in their scores, with the same weights for every seed.
    """

    def __init__(self, cells: Sequence[Mapping[str, str]]) -> None:
        self.cells = cells
        self.columns = list(dict.fromkeys(item for cell in cells for item in cell.items()))
        held = [[1.0, *(column in cell.items() for column in self.columns)] for cell in cells]
        self.design = np.array(held, float).reshape(len(cells), 1 + len(self.columns))
        self.inverse = np.linalg.pinv(self.design)

    def having(self, levels: Mapping[str, str]) -> NDArray[np.bool_]:
        """The cells with all of these levels."""
        return np.array([levels.items() <= cell.items() for cell in self.cells], bool)

    def weights(self, levels: Mapping[str, str]) -> Weights | None:
        """The weights of the cells in an effect; None where they cannot tell."""
        if not self.having(levels).any():
            return None
        found = self._main(*levels.items()) if len(levels) == 1 else self._left_over(levels)
        return None if found is None or np.abs(found).max() < TOLERANCE else found

    def _main(self, item: tuple[str, str]) -> Weights | None:
        levels = np.array([0.0, *(axis == item[0] for axis, _ in self.columns)])
        contrast = np.array([0.0, *(column == item for column in self.columns)])
        contrast -= levels / levels.sum()
        weights: Weights = contrast @ self.inverse
        # An effect that other effects can stand in for is no sum of what was seen.
        return weights if np.abs(weights @ self.design - contrast).max() < TOLERANCE else None

    def _left_over(self, levels: Mapping[str, str]) -> Weights:
        having = self.having(levels)
        mean: Weights = having / having.sum()
        return mean - mean @ self.design @ self.inverse
