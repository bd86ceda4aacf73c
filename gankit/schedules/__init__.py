"""Schedules: who moves when, and by which factor a number is scaled.

A schedule is any object with one or more of `turns`, `rates` and `factors` (the protocols
`TakesTurns`, `ScalesRates` and `ScalesKeys`): pure functions of the step, counted from 0, and of
the total number of steps, so that a run that is resumed finds itself where it stopped.

`turns_of`, `rates_of` and `factors_of` put a list of schedules together; of no schedules they are
("D", "G"), (1, 1) and {}.
"""

from __future__ import annotations

from gankit.schedules.factors import TTUR, Exponential, Factor, Piecewise, WarmUp
from gankit.schedules.stretches import Cosine, LinearDecay
from gankit.schedules.together import factors_of, rates_of, turns_of
from gankit.schedules.turns import NCritic, Simultaneous, Turns

__all__ = [
    "TTUR",
    "Cosine",
    "Exponential",
    "Factor",
    "LinearDecay",
    "NCritic",
    "Piecewise",
    "Simultaneous",
    "Turns",
    "WarmUp",
    "factors_of",
    "rates_of",
    "turns_of",
]
