"""What several schedules amount to together."""

from __future__ import annotations

from collections.abc import Iterable

from gankit.schedules.turns import PLAYERS
from gankit.slots import Rates, ScalesKeys, ScalesRates, TakesTurns

__all__ = ["factors_of", "rates_of", "turns_of"]


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
    if not turns or any(turn not in PLAYERS for turn in turns):
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
