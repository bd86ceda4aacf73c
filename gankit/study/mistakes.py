"""What is wrong with the cells of a study, told once and not for every cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations as pairs

from gankit.errors import Place, Problem
from gankit.study.axes import VARIANT, Axis
from gankit.study.cells import Cell
from gankit.study.selections import Levels, covers, written

__all__ = ["ordered", "same", "unfit"]

MOST = 100
"""How many problems are told at once."""


def ordered(problems: Iterable[Problem], study: str) -> list[Problem]:
    """Those in the study's text first, then those in others, each in the order of its text.

    What has no place comes last: it says what to do about the rest.
    """

    def order(problem: Problem) -> tuple[bool, bool, Place]:
        place = problem.place or Place(0, 0)
        return problem.place is None, place.name != study, place

    found = sorted(dict.fromkeys(problems), key=order)
    if len(found) > MOST:
        found[MOST:] = [Problem(f"these are {MOST} problems, and there are more")]
    return found


def unfit(
    found: Mapping[str, Sequence[Problem]], cells: Mapping[str, Levels], study: str, least: int = 1
) -> list[Problem]:
    """What is wrong with cells, by their names, and how to leave those out of all there are.

    Only those are offered to be left out that it takes `least` levels or more to tell.
    """
    having: dict[Problem, list[str]] = {}
    for name, problems in found.items():
        for problem in dict.fromkeys(problems):
            having.setdefault(problem, []).append(name)
    told = [
        replace(problem, message=f"{_where(names, len(cells))}{problem.message}")
        for problem, names in having.items()
    ]
    if 0 < len(found) < len(cells):
        message = f"{len(found)} of {len(cells)} cells cannot be built"
        some = [cells[name] for name in found]
        told += _without(message, some, list(cells.values()), study, least)
    return told


def same(cells: Sequence[Cell], axes: Sequence[Axis], study: str) -> Iterator[Problem]:
    """Axes, values and cells that give the same spec as others."""
    copies: set[tuple[str, str]] = set()
    for axis in axes:
        first = _firsts(cells, axis)
        copies |= {(axis.name, level) for level in first}
        if axis.name != VARIANT and len(first) == len(axis.levels) - 1 > 0:
            hint = "all its values give the same spec"
            yield Problem(f'axis "{axis.name}" changes nothing', axis.place, hint)
            continue
        for level in axis.levels:
            if level.name in first:
                what = f'value "{level.name}" of axis "{axis.name}"'
                if axis.name == VARIANT:
                    what = f'variant "{level.name}"'
                hint = f'it gives the same spec as "{first[level.name]}"'
                yield Problem(f"{what} changes nothing", level.place, hint)
    seen: dict[str, Cell] = {}
    again: list[Cell] = []
    for cell in cells:
        if copies.isdisjoint(cell.levels.items()) and seen.setdefault(cell.hash, cell) is not cell:
            again.append(cell)
            yield Problem(f'"{seen[cell.hash].name}" and "{cell.name}" are the same spec')
    if again:
        message = f"{len(again)} of {len(cells)} cells are there twice"
        everything = [cell.levels for cell in cells]
        yield from _without(message, [cell.levels for cell in again], everything, study)


def _firsts(cells: Sequence[Cell], axis: Axis) -> dict[str, str]:
    """The levels that change nothing, each with the first that it is the same as."""
    first: dict[str, str] = {}
    for one, other in pairs([level.name for level in axis.levels], 2):
        if other not in first and _change_nothing(cells, axis.name, one, other):
            first[other] = first.get(one, one)
    return first


def _change_nothing(cells: Sequence[Cell], axis: str, one: str, other: str) -> bool:
    """Whether two levels of an axis give the same specs whatever the other axes say."""
    by_levels = {tuple(cell.levels.items()): cell for cell in cells}
    compared = 0
    for cell in cells:
        if cell.levels[axis] == other:
            like = by_levels.get(tuple({**cell.levels, axis: one}.items()))
            if like is not None:
                compared += 1
                if like.hash != cell.hash:
                    return False
    return compared > 0


def _without(
    message: str, some: Sequence[Levels], cells: Sequence[Levels], study: str, least: int = 1
) -> Iterator[Problem]:
    """How to leave some of the cells out."""
    offered = [levels for levels in covers(some, cells) if len(levels) >= least]
    if offered:
        yield Problem(message, None, f"to leave them out, add to {study}:\n\n{written(offered)}")


def _where(names: Sequence[str], of: int) -> str:
    if len(names) == of:
        return ""
    if len(names) == 1:
        return f'in cell "{names[0]}": '
    return f'in {len(names)} of {of} cells, such as "{names[0]}": '
