"""Schedules: who moves when, and at which rate.

A schedule is any object with one or more of `turns`, `rates` and `factors` (the protocols
`TakesTurns`, `ScalesRates` and `ScalesKeys`): pure functions of the step, counted from 0, and of
the total number of steps, so that a run that is resumed finds itself where it stopped.

`turns_of`, `rates_of` and `factors_of` put a list of schedules together; of no schedules they are
("D", "G"), (1, 1) and {}.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from gankit.registry import schedule
from gankit.slots import Rates, ScalesKeys, ScalesRates, TakesTurns

__all__ = [
    "TTUR",
    "LinearDecay",
    "NCritic",
    "Simultaneous",
    "factors_of",
    "rates_of",
    "turns_of",
]

_PLAYERS = ("D", "G", "DG")


@schedule("ttur")
@dataclass(frozen=True, kw_only=True)
class TTUR:
    """D learns at a rate of its own: `ratio` times G's.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, arXiv:1706.08500,
    section 1; the ratio of 4 is SAGAN's, arXiv:1805.08318, section 4.

    Options:
        ratio: D's learning rate over G's; above 0, and below 1 makes D the slower one

    Raises:
        ValueError: a ratio that is not above 0.

    Differs from the paper: Heusel et al. tune two rates; here the optimizer has one, G's.
    """

    ratio: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.ratio < math.inf:
            raise ValueError(f"ttur: ratio must be above 0, not {self.ratio}")

    def rates(self, step: int, total: int) -> Rates:
        """(1, ratio) at every step."""
        return Rates(generator=1.0, discriminator=self.ratio)


@schedule("n_critic")
@dataclass(frozen=True, kw_only=True)
class NCritic:
    """D moves `n` times, each on fresh data, for every move of G.

    Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, arXiv:1701.07875, section 3,
    algorithm 1 (n_critic = 5).

    Options:
        n: turns of D in a step, before G's; at least 1

    Raises:
        ValueError: n below 1.
    """

    n: int = 5

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n_critic: n must be at least 1, not {self.n}")

    def turns(self, step: int, total: int) -> tuple[str, ...]:
        """n turns of D and one of G."""
        return ("D",) * self.n + ("G",)


@schedule("simultaneous")
@dataclass(frozen=True, kw_only=True)
class Simultaneous:
    """Both players move at once, each from where the other stood.

    Simultaneous gradient ascent, as analysed by Mescheder, Nowozin and Geiger, "The Numerics of
    GANs", 2017, arXiv:1705.10461, section 2.
    """

    def turns(self, step: int, total: int) -> tuple[str, ...]:
        """One turn, of both."""
        return ("DG",)


@schedule("linear_decay", needs={"total"})
@dataclass(frozen=True, kw_only=True)
class LinearDecay:
    """A straight line from a factor of 1 to `final`, on both learning rates or on one other number.

    The factor is 1 until `start`, `final` from `end` on. Steps count from 0, so with `end` at 1 the
    last step, total - 1, still has a little more than `final`: a decay to 0 wastes no step.
    WGAN-GP decays its learning rate so on CIFAR-10, Gulrajani et al., 2017, arXiv:1704.00028.

    Options:
        start: where the line begins, as a fraction of all steps
        end: where the line ends, as a fraction of all steps
        final: the factor at the end; at least 0, and above 1 makes it grow
        on: path of the number that is scaled, such as penalty.r1.weight; both learning rates
            when empty

    Raises:
        ValueError: fractions not in order within [0, 1], or a negative factor.
    """

    start: float = 0.0
    end: float = 1.0
    final: float = 0.0
    on: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(
                "linear_decay: start and end are fractions of all steps, 0 <= start < end <= 1, "
                f"not {self.start} and {self.end}"
            )
        if not 0 <= self.final < math.inf:
            raise ValueError(f"linear_decay: final must be at least 0, not {self.final}")

    def rates(self, step: int, total: int) -> Rates:
        """The factor on both rates, or (1, 1) where `on` names something else."""
        if self.on:
            return Rates()
        factor = self._factor(step, total)
        return Rates(factor, factor)

    def factors(self, step: int, total: int) -> dict[str, float]:
        """The factor on what `on` names, if it does."""
        return {self.on: self._factor(step, total)} if self.on else {}

    def _factor(self, step: int, total: int) -> float:
        travelled = (step / total - self.start) / (self.end - self.start)
        share = min(max(travelled, 0.0), 1.0)
        # Not 1 + share * (final - 1), which misses `final` by a rounding error at the end.
        return (1.0 - share) + share * self.final


def turns_of(schedules: Iterable[object], step: int, total: int) -> tuple[str, ...]:
    """The turns of a step: those of the one schedule that takes turns, or ("D", "G").

    Raises:
        ValueError: two schedules take turns, or one of them names a turn that is not D, G or DG.
    """
    takers = [one for one in schedules if isinstance(one, TakesTurns)]
    if len(takers) > 1:
        names = " and ".join(type(one).__name__ for one in takers)
        raise ValueError(f"{names} both say who moves; only one schedule can")
    if not takers:
        return ("D", "G")
    turns = tuple(takers[0].turns(step, total))
    if not turns or any(turn not in _PLAYERS for turn in turns):
        raise ValueError(
            f"{type(takers[0]).__name__} gives the turns {turns} at step {step}; "
            "a turn is D, G or DG, and there is at least one"
        )
    return turns


def rates_of(schedules: Iterable[object], step: int, total: int) -> Rates:
    """The factors on the two learning rates: the product over all schedules."""
    generator = discriminator = 1.0
    for one in schedules:
        if isinstance(one, ScalesRates):
            rates = one.rates(step, total)
            generator *= rates.generator
            discriminator *= rates.discriminator
    return Rates(generator, discriminator)


def factors_of(schedules: Iterable[object], step: int, total: int) -> dict[str, float]:
    """The factors on other numbers of the spec: the product per path over all schedules."""
    product: dict[str, float] = {}
    for one in schedules:
        if isinstance(one, ScalesKeys):
            for path, factor in one.factors(step, total).items():
                product[path] = product.get(path, 1.0) * factor
    return product
