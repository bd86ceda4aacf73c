"""The cells of a study: every combination of its axes' levels, and the spec of each."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gankit.spec import Override, Spec
from gankit.study.axes import BASE, VARIANT, Axis, Level

__all__ = ["Cell", "Draft", "combinations", "named"]


@dataclass(frozen=True)
class Cell:
    """One experiment of a study."""

    name: str
    """The levels it is made of; values that are added to an axis do not change it."""
    levels: Mapping[str, str]
    """The name of its level by the name of each axis."""
    spec: Spec
    """With the first of the study's seeds."""

    def seeded(self, seed: int) -> Spec:
        """The cell's spec with a seed."""
        return replace(self.spec, seed=seed)

    @property
    def hash(self) -> str:
        """SHA-256 of what makes the cell what it is: its spec without the seed, and its steps.

        The spec's own hash has the seed and not the steps, because a run may be made longer.
        """
        tables = self.spec.identity(full=False)
        del tables["seed"]
        text = json.dumps([tables, self.spec.train.steps], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Draft:
    """A cell before its spec is made."""

    name: str
    levels: Mapping[str, str]
    overrides: tuple[Override, ...]


def combinations(axes: Sequence[Axis]) -> Iterator[Draft]:
    """Every level of each axis with every level of the others; the last axis changes fastest."""
    for levels in itertools.product(*(axis.levels for axis in axes)):
        chosen = list(zip(axes, levels, strict=True))
        parts = [_part(axis, level) for axis, level in chosen]
        yield Draft(
            ",".join(part for part in parts if part) or BASE,
            {axis.name: level.name for axis, level in chosen},
            tuple(each for level in levels for each in level.overrides),
        )


def named(study: str, cell: str) -> str:
    """The name of a cell's spec: what a name may not have made dashes, and not too long."""
    return re.sub(r"[^\w.-]+", "-", f"{study}-{cell}")[:100].strip("-.") or "study"


def _part(axis: Axis, level: Level) -> str:
    """What an axis adds to a cell's name; the base adds nothing, so variants may come later."""
    if axis.name == VARIANT:
        return "" if level.name == BASE else level.name
    return f"{axis.name}={level.name}"
