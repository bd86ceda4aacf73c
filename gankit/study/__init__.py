"""Studies: the same experiment with one thing changed at a time, on the same seeds."""

from __future__ import annotations

from gankit.study.budget import Budget
from gankit.study.cells import Cell
from gankit.study.plan import Study
from gankit.study.statistics import (
    Comparison,
    Effect,
    Row,
    Summary,
    compare,
    interactions,
    main_effects,
    ranked,
    seeds_needed,
    summaries,
)

__all__ = [
    "Budget",
    "Cell",
    "Comparison",
    "Effect",
    "Row",
    "Study",
    "Summary",
    "compare",
    "interactions",
    "main_effects",
    "ranked",
    "seeds_needed",
    "summaries",
]
