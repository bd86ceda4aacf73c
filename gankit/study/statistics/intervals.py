"""What a few numbers say about a mean: itself, its spread, and the interval it lies in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "Interval", "interval_of"]

LEVEL = 0.95
FEWEST = 3
"""Of two numbers, no method gives an interval that is both narrow enough to use and true."""
DRAWS = 10_000


@dataclass(frozen=True)
class Interval:
    """From where to where."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Estimate:
    """A mean of finite numbers, one per seed."""

    n: int
    mean: float
    std: float | None
    """Of the numbers, not of their mean, by n - 1; None for one number."""
    interval: Interval | None
    """95 %, by `interval_of`; None for fewer than three numbers."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate | None:
        """Of some numbers, in any order; None of none."""
        if not values:
            return None
        mean, apart, scale = _apart(values)
        std = scale * _std(apart) if len(values) > 1 else None
        return cls(len(values), mean, std, interval_of(values))


def interval_of(values: Sequence[float], *, seed: int = 0) -> Interval | None:
    """The 95 % interval of a mean: a smoothed, symmetric, studentised bootstrap.

    Hall, "On symmetric bootstrap confidence intervals", 1988; the smoothing, normal noise of
    s / sqrt(n) on what is drawn, is that of Hesterberg, "What teachers should know about the
    bootstrap", 2015, arXiv:1411.5279. The half width is the 0.95 quantile of |t| over
    10,000 resamples, times s / sqrt(n). The seed is that of the resamples, so the same numbers, in
    any order, have the same interval; another seed moves its width by 1 or 2 %.

    Why this one: no interval between quantiles of resampled means, percentile or BCa, reaches
    beyond the smallest and largest number, so with three seeds it cannot hold the mean of symmetric
    noise more often than in 75 % of studies. Measured, in how many of 100 the mean lies in this
    interval / between percentiles / in Student's t interval (2,000 studies each: give or take 1):

        noise                n = 3          4          5          6          8         10
        normal            97/75/95   96/81/95   98/85/96   96/85/94   97/88/96   97/92/96
        t, 3 degrees      97/74/96   97/78/96   98/83/96   97/85/96   97/87/95   96/88/96
        lognormal, 0.5    95/73/93   94/77/93   93/80/91   93/83/91   93/85/92   94/87/93
        exponential       90/68/88   90/73/88   93/80/90   91/82/89   93/85/90   91/86/90
        one in five off   93/66/91   90/70/87   89/73/85   88/76/86   90/83/88   91/88/91

    In the last row, one seed in five is five deviations worse than the rest. So the interval keeps
    its word, or nearly, for all but the most lopsided noise: seeds none of which happened to
    collapse look surer than they are, and no method that is given nothing else can know.

    Returns None for fewer than three numbers; a single point where all numbers are equal.
    """
    if len(values) < FEWEST:
        return None
    mean, apart, scale = _apart(values)
    if not scale:
        return Interval(mean, mean)
    half = _quantile(apart, seed) * scale * _std(apart) / math.sqrt(len(values))
    return Interval(mean - half, mean + half)


def _apart(values: Sequence[float]) -> tuple[float, NDArray[np.float64], float]:
    """The mean; how far each number is from it, as shares of the furthest; how far that one is.

    In order and by exact sums, so that seeds may change places without a bit of difference.
    """
    mean = min(max(math.fsum(x / len(values) for x in values), min(values)), max(values))
    apart = np.sort(np.asarray(values, float)) - mean
    scale = float(np.abs(apart).max())
    return mean, apart / (scale or 1.0), scale


def _std(apart: NDArray[np.float64]) -> float:
    return math.sqrt(math.fsum(apart * apart) / (len(apart) - 1))


def _quantile(apart: NDArray[np.float64], seed: int) -> float:
    """Which |t| the resamples exceed one time in twenty."""
    n = len(apart)
    indices, noise = _draws(n, seed)
    drawn = apart[indices] + noise * (_std(apart) / math.sqrt(n))
    mean = drawn.sum(0) / n
    # All numbers are of the size of 1 about 0, so squares lose nothing to what they are far from.
    square = np.einsum("ij,ij->j", drawn, drawn) / n - mean**2
    return float(np.quantile(np.abs(mean) / np.sqrt(square / (n - 1)), LEVEL))


@lru_cache(maxsize=8)
def _draws(n: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Which numbers each resample takes, and the noise on them.

    Each resample has its mirror image, so that the interval of negated numbers is the negated one.
    """
    random = np.random.default_rng([seed, n])
    indices = random.integers(0, n, size=(n, DRAWS // 2))
    noise = random.standard_normal((n, DRAWS // 2))
    return np.hstack([indices, n - 1 - indices]), np.hstack([noise, -noise])
