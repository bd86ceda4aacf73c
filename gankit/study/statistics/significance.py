"""Whether a difference could be chance: the sign-flip test, and Holm's correction of many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gankit.study.statistics.ranks import ranks

__all__ = [
    "Judgement",
    "Verdict",
    "holm",
    "judge",
    "seeds_needed",
    "sign_flip",
    "smallest_p",
]

Verdict = Literal["better", "worse", "not told apart", "not resolvable"]

EXACT = 16
"""Up to so many pairs, all flips are looked at."""
FLIPS = 2**16 - 1
"""So many random ones beyond; the flip that was observed is one more."""


@dataclass(frozen=True)
class Judgement:
    """What a sign-flip test says about one of several comparisons with a baseline."""

    n: int
    """Pairs, one per seed."""
    p: float
    """Two-sided."""
    adjusted: float
    """By Holm, over all comparisons that were made together."""
    smallest: float
    """The smallest p that n pairs can reach, whatever their values: 0.0625 with five."""
    smallest_adjusted: float
    """And the smallest adjusted one."""
    verdict: Verdict

    @property
    def words(self) -> str:
        """The verdict as it is printed."""
        if self.verdict != "not resolvable":
            return self.verdict
        return f"not resolvable with {self.n} seed{'s' * (self.n != 1)}"


def judge(
    differences: Sequence[Sequence[float]], *, alpha: float = 0.05, seed: int = 0
) -> list[Judgement]:
    """A verdict on each of several comparisons, wrong on any of them in at most alpha of studies.

    `differences` has the losses of a cell less those of the baseline, by common seed, for each
    cell; below 0 is better. A verdict of "not resolvable" means that no values of these seeds
    could have been told apart among so many comparisons. All comparisons count for Holm, those
    without a common seed yet too.
    """
    ps = [sign_flip(of, seed=seed) for of in differences]
    smallest = [smallest_p(len(of)) for of in differences]
    return [
        Judgement(len(of), p, adjusted, least, reachable, _verdict(of, adjusted, reachable, alpha))
        for of, p, adjusted, least, reachable in zip(
            differences, ps, holm(ps), smallest, holm(smallest), strict=True
        )
    ]


def _verdict(of: Sequence[float], adjusted: float, reachable: float, alpha: float) -> Verdict:
    if reachable > alpha:
        return "not resolvable"
    if adjusted > alpha:
        return "not told apart"
    return "better" if math.fsum(_scores(of)) < 0 else "worse"


def sign_flip(differences: Sequence[float], /, *, seed: int = 0) -> float:
    """The two-sided p of a mean of paired differences: the exact sign-flip permutation test.

    Fisher, "The Design of Experiments", 1935, section 21. Where cell and baseline are alike, each
    pair could as well have come out the other way round: p is the share of all 2^n ways in which
    the mean is at least as far from 0. Beyond 16 pairs, of 65,535 random ways and the observed one
    (Phipson and Smyth, 2010, arXiv:1603.05766), by `seed`.

    A difference of +-inf is a pair of which one run failed; one in which both did is 0. Where there
    is any, all differences are replaced with their signed ranks, those of failures sharing the
    highest: Wilcoxon's test with zeros as Pratt has them, 1959, and failures as worst ranks,
    Lachin, "Worst-rank score analysis with informatively missing observations in clinical trials",
    1999. It is as exact: flips change no difference's size, so neither its rank nor whether ranks
    are taken.

    Raises:
        ValueError: a difference that is not a number.
    """
    sizes = np.sort(np.abs(_scores(differences)))
    if not sizes.any():
        return 1.0
    observed = abs(math.fsum(_scores(differences)))
    sums, more = (_all(sizes), 0) if len(sizes) <= EXACT else (_some(sizes, seed), 1)
    # Sums that are equal but for rounding are equal.
    reached = int(np.count_nonzero(np.abs(sums) >= observed - 1e-9 * sizes.sum()))
    return (reached + more) / (len(sums) + more)


def _scores(differences: Sequence[float]) -> NDArray[np.float64]:
    """The differences as shares of the largest; their signed ranks where one is infinite."""
    of = np.asarray(differences, float)
    if np.isnan(of).any():
        raise ValueError("a difference is not a number; runs that failed differ by inf, or by 0")
    if np.isinf(of).any():
        return np.sign(of) * ranks(np.abs(of))
    return of / (np.abs(of).max(initial=0.0) or 1.0)


def _all(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of all flips but for the last sign, which only mirrors them."""
    sums = sizes[-1:]
    for size in sizes[:-1]:
        sums = np.concatenate([sums + size, sums - size])
    return sums


def _some(sizes: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    random = np.random.default_rng([seed, len(sizes)])
    return random.choice(np.array([-1.0, 1.0]), size=(FLIPS, len(sizes))) @ sizes


def smallest_p(n: int) -> float:
    """The smallest p that `sign_flip` of n pairs can give: 2 in 2^n."""
    return max(2.0 ** (1 - n), 1 / (FLIPS + 1)) if n else 1.0


def seeds_needed(comparisons: int, *, alpha: float = 0.05) -> int:
    """With how many seeds a difference can be told at all: 6 for one comparison, 9 for ten.

    Raises:
        ValueError: more comparisons than the test has flips for.
    """
    for n in range(1, EXACT + 2):
        if comparisons * smallest_p(n) <= alpha:
            return n
    raise ValueError(f"{comparisons} comparisons are more than can be told apart at {alpha}")


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p: the least error rate over all comparisons at which each is told.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    adjusted, highest = [0.0] * len(ps), 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - place) * ps[index]))
        adjusted[index] = highest
    return adjusted
