"""Picking cells out of a study by their levels, and finding the few words that pick some."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence

from gankit.spec.document import dotted

__all__ = ["Levels", "covers", "matches", "written"]

Levels = Mapping[str, str]
"""The name of a level by the name of its axis; of some axes, it picks all cells that have them."""


def matches(wanted: Levels, levels: Levels) -> bool:
    """Whether a cell has all the levels that are wanted."""
    return all(levels.get(axis) == level for axis, level in wanted.items())


def covers(some: Collection[Levels], cells: Sequence[Levels]) -> list[Levels]:
    """Few and short selections that pick exactly some of the cells."""
    others = [levels for levels in cells if levels not in some]
    left = [levels for levels in cells if levels in some]
    found: list[Levels] = []
    for size in range(1, len(cells[0]) + 1) if cells else ():
        for candidate in _parts(left, size):
            picks = [levels for levels in left if matches(candidate, levels)]
            if picks and not any(matches(candidate, levels) for levels in others):
                found.append(candidate)
                left = [levels for levels in left if levels not in picks]
    return found


def _parts(cells: Sequence[Levels], size: int) -> Iterator[Levels]:
    """So many levels of a cell, of every cell and in every way, each once."""
    ways = (dict(way) for levels in cells for way in itertools.combinations(levels.items(), size))
    seen: list[Levels] = []
    for way in ways:
        if way not in seen:
            seen.append(way)
            yield way


def written(selections: Sequence[Levels]) -> str:
    """Selections as a study's [[exclude]] tables, ready to paste."""
    lines = []
    for selection in selections:
        lines.append("[[exclude]]")
        for axis, level in selection.items():
            key = json.dumps(axis, ensure_ascii=False) if "." in axis else dotted((axis,))
            lines.append(f"{key} = {json.dumps(level, ensure_ascii=False)}")
    return "\n".join(lines)
