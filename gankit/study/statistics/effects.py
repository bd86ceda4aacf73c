"""What each axis of a study does, averaged over the others, and where two depend on each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from gankit.study.statistics.additive import Additive
from gankit.study.statistics.intervals import Estimate
from gankit.study.statistics.ranks import ranks
from gankit.study.statistics.rows import Better, Row, Runs

__all__ = ["Effect", "interactions", "main_effects"]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """By how much a score differs from the study's mean at a level, or at a pair of levels."""

    levels: Mapping[str, str]
    """The level on one axis; on two axes for an interaction."""
    score: str
    cells: int
    """How many cells have these levels."""
    failed: int
    """How many of their runs crashed or diverged."""
    finished: Estimate | None
    """In the score's unit, from the cells of which no run failed; None where they cannot tell."""
    places: Estimate | None
    """In places from the best: the cells of each seed are ranked, those that failed last, so that
    nothing is left out. Below 0 is better."""


def main_effects(rows: Iterable[Row], score: str, *, better: Better) -> list[Effect]:
    """For each level of each axis, the mean of its cells less the mean of all.

    Axes with one level have none. The effect is computed within each seed that all cells were run
    with, and its interval is that over these seeds: what a seed does to all cells cancels out.

    Where cells are missing, because they were excluded or left out for a failure, means over levels
    would mix the axes up. An effect is then that of the additive model with an effect for each
    level of each axis, by least squares, less the mean of the axis' effects: in a full grid the
    same. None where the cells that are left cannot tell an axis from others.
    """
    return _effects(Runs(rows, score, better), score, width=1)


def interactions(rows: Iterable[Row], score: str, *, better: Better) -> list[Effect]:
    """For each pair of levels of two axes, what their main effects leave over.

    In a full grid the mean of the cells with both levels, less both main effects and the mean of
    all. Where cells are missing, the mean of what the additive model leaves over in these cells; it
    has had the first say, so part of what is an interaction may be in its main effects. None where
    no cell has both levels, and where the model always fits.
    """
    return _effects(Runs(rows, score, better), score, width=2)


def _effects(runs: Runs, score: str, width: int) -> list[Effect]:
    if not runs.losses:
        return []
    cells = list(runs.losses)
    seeds = runs.common(*cells)
    losses = np.array([[runs.losses[cell][seed] for seed in seeds] for cell in cells])
    places = np.array([ranks(column) for column in losses.T]).reshape(len(seeds), len(cells)).T
    failed = [sum(loss == math.inf for loss in runs.losses[cell].values()) for cell in cells]
    whole = [index for index, count in enumerate(failed) if not count]
    everywhere = [runs.levels[cell] for cell in cells]
    all_cells, those_whole = Additive(everywhere), Additive([everywhere[i] for i in whole])
    return [
        Effect(
            levels=levels,
            score=score,
            cells=int(all_cells.having(levels).sum()),
            failed=int(all_cells.having(levels) @ failed),
            finished=_estimate(those_whole.weights(levels), runs.sign * losses[whole]),
            places=_estimate(all_cells.weights(levels), places),
        )
        for levels in _combinations(runs.axes, width)
    ]


def _combinations(axes: Mapping[str, Sequence[str]], width: int) -> Iterator[dict[str, str]]:
    """Every way to name a level on each of `width` axes, of those that have more than one."""
    for chosen in combinations([axis for axis, levels in axes.items() if len(levels) > 1], width):
        for levels in product(*(axes[axis] for axis in chosen)):
            yield dict(zip(chosen, levels, strict=True))


def _estimate(weights: NDArray[np.float64] | None, values: NDArray[np.float64]) -> Estimate | None:
    """Of a weighted sum of cells, seed by seed."""
    return None if weights is None else Estimate.of((weights @ values).tolist())
