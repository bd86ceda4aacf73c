"""The scores of a run: what was measured of its images, over the steps, and how."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gankit.errors import DataError
from gankit.report.plots import Line, Panel
from gankit.report.records import Run, Series

if TYPE_CHECKING:
    from gankit.evaluate import Scores

__all__ = ["Row", "Scored", "newest", "score_names", "score_panels", "score_title", "scored"]

SHOWN = 4
"""So many scorings of the newest step, at most: each other way of scoring is one of its own."""

ROWS = 40
"""Of a table."""

KNOWN = {
    "frechet": ("Frechet distance", "Falls with the number of images: compare at equal counts."),
    "frechet_infinity": ("Frechet distance at infinity", "Of ever more images, extrapolated."),
    "intra_frechet": ("Frechet distance within classes", "The mean over classes."),
    "kernel": ("Kernel distance", "Around 0 for a perfect generator, and below it half the time."),
    "inception": ("Inception score", "Sure of each image, and of many classes."),
    "precision and recall": (
        "Precision and recall",
        "Fakes that look real, and real images that are met.",
    ),
    "density and coverage": (
        "Density and coverage",
        "How densely, and how much of, the real images.",
    ),
    "modes": ("Modes", "With at least one good image."),
    "high_quality": ("High quality", "The share of good images; exact samples have some bad ones."),
    "reverse_kl": ("Reverse KL divergence", "Of the modes that were hit from what they should be."),
    "swd": ("Sliced Wasserstein distance", "In the unit of the features."),
    "memorisation": ("Memorisation", "1/2 of a perfect generator, 1 of one that copies."),
}
"""Titles and captions of the metrics that ship with the library."""

TOGETHER = {
    "precision": ("precision and recall", "real"),
    "recall": ("precision and recall", "g"),
    "density": ("density and coverage", "real"),
    "coverage": ("density and coverage", "g"),
}
"""What is drawn in one panel, and in which colour: of how good fakes are, and of how varied."""
BESIDE = {"kernel_error", "kernel_std", "inception_std", "memorisation_z"}
"""What is told in tables alone."""


@dataclass(frozen=True)
class Row:
    """One score."""

    name: str
    value: float
    better: str
    """`lower`, `higher`, or nothing where one cannot say."""


@dataclass(frozen=True)
class Scored:
    """What one scoring gave, and how it was made."""

    step: int
    rows: Sequence[Row]
    card: str
    notes: Sequence[str]

    @property
    def shown(self) -> Sequence[Row]:
        """As many as a page takes: a score per class may have a thousand."""
        return self.rows[:ROWS]


def scored(run: Run) -> tuple[list[Scored], int]:
    """Every scoring in a run's folder by step, the newest last, and how many files are damaged."""
    files = run.scores()
    if not files:
        return [], 0
    # It brings torch, which a run without scores does not need here.
    from gankit.evaluate import read

    found, damaged = [], 0
    for step, file in files:
        try:
            found += [_scored(step, scores) for scores in read(file)]
        except (DataError, RecursionError):
            damaged += 1
    return found, damaged


def _scored(step: int, scores: Scores) -> Scored:
    rows = [
        Row(name, value, str(scores.better.get(name, ""))) for name, value in scores.values.items()
    ]
    notes = [str(note) for note in scores.notes]
    return Scored(step, rows, str(scores.card), notes)


def newest(found: Sequence[Scored]) -> list[Scored]:
    """The scorings of the newest step, that which was made last first."""
    return [one for one in reversed(found) if one.step == found[-1].step][:SHOWN]


def score_names(found: Sequence[Scored], logged: Collection[str]) -> list[str]:
    """Which of the numbers in a run's log are scores."""
    told = {row.name for one in found for row in one.rows} | KNOWN.keys() | TOGETHER.keys() | BESIDE
    return [name for name in logged if name in told or name.partition("/")[0] in told]


def score_title(name: str) -> str:
    """What people call a score."""
    return name.capitalize() if name in TOGETHER else _titled(name)[0]


def _titled(name: str) -> tuple[str, str]:
    return KNOWN.get(name, (name, ""))


def score_panels(series: Mapping[str, Series]) -> list[Panel]:
    """The scores of a run over its steps; those of single classes stand in tables alone."""
    found: dict[str, Panel] = {}
    for name, one in series.items():
        if "/" in name or name in BESIDE:
            continue
        key, colour = TOGETHER.get(name, (name, "real"))
        panel = found.setdefault(key, Panel(key, *_titled(key)))
        panel.lines.append(Line(name, colour, one))
    order = [*KNOWN, *(key for key in found if key not in KNOWN)]
    return [found[key] for key in order if key in found]
