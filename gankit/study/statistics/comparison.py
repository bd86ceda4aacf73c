"""Cells of a study against a baseline, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from gankit.study.statistics.intervals import Estimate, Interval
from gankit.study.statistics.rows import Better, Row, Runs
from gankit.study.statistics.significance import Judgement, judge

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One score of one cell less that of the baseline, on the seeds that both were run with."""

    cell: str
    baseline: str
    score: str
    seeds: tuple[int, ...]
    failed: tuple[int, ...]
    """The seeds with which the cell crashed or diverged."""
    baseline_failed: tuple[int, ...]
    """The seeds with which the baseline did."""
    finished: Estimate | None
    """Of the differences, in the score's own unit, over the seeds with which both finished."""
    judgement: Judgement
    """The test, over all seeds: a run that failed counts as worse than any that did not."""

    @property
    def difference(self) -> float | None:
        """The mean difference; None if a run failed, for what is worst has no distance."""
        return self.finished.mean if self.finished and not self._any else None

    @property
    def interval(self) -> Interval | None:
        """Of `difference`, 95 %, for this comparison alone: not widened because there are others.

        It leans on the bootstrap and the test on nothing but the pairing, so with few seeds it may
        leave out 0 where the test cannot tell.
        """
        return self.finished.interval if self.finished and not self._any else None

    @property
    def words(self) -> str:
        """`better`, `worse`, `not told apart` or `not resolvable with 5 seeds`."""
        return self.judgement.words

    @property
    def _any(self) -> bool:
        return bool(self.failed or self.baseline_failed)


def compare(
    rows: Iterable[Row], score: str, baseline: str, *, better: Better, alpha: float = 0.05
) -> list[Comparison]:
    """Every other cell against the baseline, in the order of the rows.

    Of studies whose cells are all alike, at most `alpha` have a verdict of better or worse in them,
    whatever the noise, and also if runs fail: `judge` and `sign_flip` say how.

    Raises:
        ValueError: a baseline without a row of this score.
    """
    runs = Runs(rows, score, better)
    if baseline not in runs.losses:
        raise ValueError(f"the baseline {baseline!r} has no {score!r} yet")
    cells = [cell for cell in runs.losses if cell != baseline]
    differences = [_differences(runs, cell, baseline) for cell in cells]
    judgements = judge([list(of.values()) for of in differences], alpha=alpha)
    return [
        Comparison(
            cell=cell,
            baseline=baseline,
            score=score,
            seeds=tuple(of),
            failed=_failed(runs, cell, of),
            baseline_failed=_failed(runs, baseline, of),
            finished=Estimate.of([runs.sign * of[seed] for seed in _both(runs, cell, baseline)]),
            judgement=judgement,
        )
        for cell, of, judgement in zip(cells, differences, judgements, strict=True)
    ]


def _differences(runs: Runs, cell: str, baseline: str) -> dict[int, float]:
    """Losses of the cell less those of the baseline; 0 where both failed, and are equally bad."""
    found = {}
    for seed in runs.common(cell, baseline):
        ours, theirs = runs.losses[cell][seed], runs.losses[baseline][seed]
        found[seed] = 0.0 if ours == theirs else ours - theirs
    return found


def _failed(runs: Runs, cell: str, seeds: Iterable[int]) -> tuple[int, ...]:
    return tuple(seed for seed in seeds if runs.losses[cell][seed] == math.inf)


def _both(runs: Runs, cell: str, baseline: str) -> list[int]:
    """The common seeds with which neither failed."""
    failed = {seed for of in (cell, baseline) for seed in _failed(runs, of, runs.losses[of])}
    return [seed for seed in runs.common(cell, baseline) if seed not in failed]
