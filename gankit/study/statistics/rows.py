"""The rows of a study: one score of one run; and the runs that are compared, by cell and seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

__all__ = ["Better", "Row", "Runs"]

Better = Literal["lower", "higher"]
"""Which way a score improves: a Frechet distance lower, a precision higher."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One score of the run of one cell with one seed."""

    cell: str
    levels: Mapping[str, str] = field(default_factory=dict)
    """The cell's level on each axis of the study; the same axes in all rows."""
    seed: int
    score: str
    value: float | None
    """None, or not finite: a run that crashed or diverged, which is worse than any number."""


class Runs:
    """What one score is, by cell and seed; cells and axes in the order in which rows have them.

    As losses, so that nothing after this needs to know which way is up: a score of which more is
    better has its sign turned, and a run that failed has the loss `math.inf`.

    Raises:
        ValueError: a direction that is neither lower nor higher; two rows of one cell and seed; a
            cell with other axes than the rest, or with two levels on one.
    """

    def __init__(self, rows: Iterable[Row], score: str, better: Better) -> None:
        if better not in get_args(Better):
            raise ValueError(f"better is {better!r}: a score improves lower or higher")
        self.sign = 1.0 if better == "lower" else -1.0
        self.losses: dict[str, dict[int, float]] = {}
        self.levels: dict[str, Mapping[str, str]] = {}
        for row in rows:
            if row.score == score:
                self._add(row)
        self.axes: dict[str, list[str]] = {}
        for cell, levels in self.levels.items():
            if levels.keys() != next(iter(self.levels.values())).keys():
                raise ValueError(f"cell {cell!r} has other axes than the rest: {', '.join(levels)}")
            for axis, level in levels.items():
                known = self.axes.setdefault(axis, [])
                known += [level] if level not in known else []

    def _add(self, row: Row) -> None:
        losses = self.losses.setdefault(row.cell, {})
        if row.seed in losses:
            raise ValueError(
                f"cell {row.cell!r} has two rows of {row.score!r} with seed {row.seed}"
            )
        if self.levels.setdefault(row.cell, row.levels) != row.levels:
            raise ValueError(f"cell {row.cell!r} has two sets of levels")
        failed = row.value is None or not math.isfinite(row.value)
        losses[row.seed] = math.inf if failed or row.value is None else self.sign * row.value

    def common(self, *cells: str) -> list[int]:
        """The seeds with which all of these cells have been run, in order."""
        return sorted(set.intersection(*(set(self.losses[cell]) for cell in cells)))
