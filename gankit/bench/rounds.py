"""After how many steps a spec's steps repeat: not every turn is alike, nor every penalty due."""

from __future__ import annotations

import math
from collections import Counter

from gankit.build import GAN
from gankit.schedules import turns_of

__all__ = ["round_of"]

HORIZON = 10_000
"""How many steps are looked at, at most; what repeats later is not waited for."""


def round_of(gan: GAN, total: int) -> int:
    """How many steps have all kinds of turns in them, with and without what is due now and then.

    By the first steps of a run: a schedule that changes turns later on is not looked at there.
    """
    every = math.lcm(*(penalty.every for penalty in gan.penalties.values()))
    taken: Counter[str] = Counter()
    steps = []
    for step in range(min(max(64, 4 * every), HORIZON, total)):
        turns = []
        for players in turns_of(gan.schedules, step, total):
            due = {
                (player, name)
                for player in players
                for name, penalty in gan.penalties.items()
                if player in penalty.players and taken[player] % penalty.every == 0
            }
            turns.append((players, due))
            taken.update(players)
        steps.append(turns)
    # Twice at least, or it is no repetition.
    for length in range(1, len(steps) // 2 + 1):
        if steps[length:] == steps[:-length]:
            return length
    return 1
