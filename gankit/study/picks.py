"""The cells that a study file speaks of: those it leaves out, and its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gankit.errors import Place, Problem, choices
from gankit.spec import Document
from gankit.spec.document import Path
from gankit.spec.values import shown
from gankit.study.axes import Axis, axis_name, called
from gankit.study.cells import Draft
from gankit.study.overrides import held, settings
from gankit.study.selections import Levels, matches

__all__ = ["Pick", "baseline", "excluded", "only"]


@dataclass(frozen=True)
class Pick:
    """What picks cells, by the levels that they have or by a name, and where it is written."""

    place: Place
    levels: Levels
    name: str = ""

    def picks(self, draft: Draft) -> bool:
        """Whether a cell is one of them."""
        return matches(self.levels, draft.levels) and self.name in ("", draft.name)


def excluded(document: Document, axes: Sequence[Axis], problems: list[Problem]) -> list[Pick]:
    """What the tables [[exclude]] leave out."""
    entries = document.data.get("exclude", [])
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        place = document.key(("exclude",))
        problems.append(Problem("exclude is an array of tables", place, "write [[exclude]]"))
        return []
    found = []
    for index, entry in enumerate(entries):
        at: Path = ("exclude", index)
        if not entry:
            hint = f"available: {', '.join(axis.name for axis in axes)}" if axes else ""
            problem = Problem("an exclude names one or more axes", document.key(at), hint)
            problems.append(problem)
        elif (levels := _levels(document, at, axes, problems)) is not None:
            found.append(Pick(document.key(at), levels))
    return found


def baseline(document: Document, axes: Sequence[Axis], problems: list[Problem]) -> Pick | None:
    """What [compare] says about the baseline, if anything."""
    table = document.data.get("compare", {})
    if not isinstance(table, dict):
        place = document.key(("compare",))
        problems.append(Problem("compare is a table", place, "write [compare]"))
        return None
    for key in table:
        if key != "baseline":
            message, place = f"[compare] has no key {shown(key)}", document.key(("compare", key))
            problems.append(Problem(message, place, choices(key, ["baseline"])))
    if "baseline" not in table:
        return None
    at, value = ("compare", "baseline"), table["baseline"]
    if isinstance(value, str) and value:
        return Pick(document.value(at), {}, value)
    if isinstance(value, dict):
        levels = _levels(document, at, axes, problems)
        return None if levels is None else Pick(document.value(at), levels)
    form = "the name of a cell, or a table of axes and their values"
    problems.append(Problem(f"baseline is {form}, not {shown(value)}", document.value(at)))
    return None


def only(pick: Pick, drafts: Sequence[Draft], problems: list[Problem]) -> Draft | None:
    """The one cell that is picked for the baseline; not to be one is a problem."""
    found = [draft for draft in drafts if pick.picks(draft)]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"{len(found)} cells could be the baseline"
        hint = f"say also: {', '.join(axis for axis in found[0].levels if axis not in pick.levels)}"
    elif pick.name:
        message = f"no cell is called {shown(pick.name)}"
        hint = choices(pick.name, [draft.name for draft in drafts])
    else:
        message, hint = "no cell is the baseline", "those that could be are excluded"
    problems.append(Problem(message, pick.place, hint))
    return None


def _levels(
    document: Document, table: Path, axes: Sequence[Axis], problems: list[Problem]
) -> Levels | None:
    """The levels in a table of axes and values; None where one is not there.

    Axes that are wrong have no levels, and what is said about them is not looked at.
    """
    by_name = {axis.name: axis for axis in axes}
    found: dict[str, str] = {}
    wrong: list[Problem] = []
    for at in settings(document, table):
        name = axis_name(table, at)
        if name not in by_name:
            message, hint = f"there is no axis {shown(name)}", choices(name, by_name)
            wrong.append(Problem(message, document.key(at), hint))
            continue
        found[name] = called(held(document, at))
        levels = [level.name for level in by_name[name].levels]
        if levels and found[name] not in levels:
            message = f'axis "{name}" has no value {shown(found[name])}'
            wrong.append(Problem(message, document.value(at), choices(found[name], levels)))
    problems += wrong
    sound = all(by_name[name].levels for name in found)
    return found if sound and not wrong else None
