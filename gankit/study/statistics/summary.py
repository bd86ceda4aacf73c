"""A cell of a study by itself: what a table says of it, and which place it takes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gankit.study.statistics.intervals import Estimate, Interval
from gankit.study.statistics.rows import Better, Row, Runs

__all__ = ["Summary", "ranked", "summaries"]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One score of one cell, over its seeds."""

    cell: str
    score: str
    better: Better
    n: int
    """Runs, with those that failed."""
    failed: tuple[int, ...]
    """The seeds whose runs crashed or diverged."""
    finished: Estimate | None
    """Of the other runs alone; None if there are none."""
    median: float | None
    """Of all runs, those that failed as the worst; None if that is where the middle is."""
    best: int
    """The seed of the best run."""
    worst: int
    """The seed of the worst run; the first that failed, if one did."""

    @property
    def mean(self) -> float | None:
        """Of all runs; None if one failed, for what is worse than any number has no mean."""
        return self.finished.mean if self.finished and not self.failed else None

    @property
    def interval(self) -> Interval | None:
        """Of `mean`, 95 %; None if a run failed, and for fewer than three runs."""
        return self.finished.interval if self.finished and not self.failed else None


def summaries(rows: Iterable[Row], score: str, *, better: Better) -> list[Summary]:
    """Each cell that has a row of this score, in the order of the rows."""
    runs = Runs(rows, score, better)
    return [_summary(runs, cell, score, better) for cell in runs.losses]


def ranked(cells: Sequence[Summary]) -> list[Summary]:
    """The best first: those of which no run failed by their mean, then by the share that failed."""

    def place(cell: Summary) -> tuple[float, float]:
        mean = cell.finished.mean if cell.finished else 0.0
        return len(cell.failed) / cell.n, mean if cell.better == "lower" else -mean

    return sorted(cells, key=place)


def _summary(runs: Runs, cell: str, score: str, better: Better) -> Summary:
    losses = dict(sorted(runs.losses[cell].items()))
    failed = tuple(seed for seed, loss in losses.items() if loss == math.inf)
    median = statistics.median(losses.values())
    return Summary(
        cell=cell,
        score=score,
        better=better,
        n=len(losses),
        failed=failed,
        finished=Estimate.of([runs.sign * x for x in losses.values() if x != math.inf]),
        median=None if median == math.inf else runs.sign * median,
        best=min(losses, key=losses.__getitem__),
        worst=max(losses, key=losses.__getitem__),
    )
