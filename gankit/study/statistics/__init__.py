"""What a study's scores say: intervals, comparisons with a baseline, effects of the axes.

Each function takes the rows of a study, the name of a score and which way it improves:

    rows = [Row(cell="sn", levels={"norm": "spectral"}, seed=0, score="fid", value=12.5), ...]
    for cell in ranked(summaries(rows, "fid", better="lower")):
        print(cell.cell, cell.mean, cell.interval, cell.failed)
    for cell in compare(rows, "fid", "plain", better="lower"):
        print(cell.cell, cell.difference, cell.interval, cell.words)
    for effect in main_effects(rows, "fid", better="lower"):
        print(effect.levels, effect.finished, effect.places)

A run that crashed or diverged has a row without a value. It is worse than any number, and nowhere
left out: a cell with such a run has no mean and ranks after those without, the tests go by ranks in
which it is last, and effects are given in places as well as in the score's unit. What is computed
from the runs that finished alone is called `finished`.
"""

from __future__ import annotations

from gankit.study.statistics.comparison import Comparison, compare
from gankit.study.statistics.effects import Effect, interactions, main_effects
from gankit.study.statistics.intervals import Estimate, Interval, interval_of
from gankit.study.statistics.rows import Better, Row
from gankit.study.statistics.significance import (
    Judgement,
    Verdict,
    holm,
    judge,
    seeds_needed,
    sign_flip,
    smallest_p,
)
from gankit.study.statistics.summary import Summary, ranked, summaries

__all__ = [
    "Better",
    "Comparison",
    "Effect",
    "Estimate",
    "Interval",
    "Judgement",
    "Row",
    "Summary",
    "Verdict",
    "compare",
    "holm",
    "interactions",
    "interval_of",
    "judge",
    "main_effects",
    "ranked",
    "seeds_needed",
    "sign_flip",
    "smallest_p",
    "summaries",
]
