"""A study: what is compared with what, on which seeds, and for how long."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gankit.errors import Problem, SpecError, UsageError
from gankit.recipes import recipe
from gankit.spec import Document, Source, Spec, load
from gankit.spec.check import check
from gankit.spec.document import read
from gankit.study.axes import Axis
from gankit.study.budget import Budget
from gankit.study.cells import Cell, Draft, combinations, named
from gankit.study.differences import differences
from gankit.study.file import StudyFile
from gankit.study.mistakes import ordered, same, unfit
from gankit.study.picks import only
from gankit.train.plan import networks
from gankit.train.reach import check_reach

__all__ = ["Study"]

MOST = 2000
"""How many cells a study may have before any are left out."""


@dataclass(frozen=True)
class Study:
    """Cells that differ from a base and from each other in what the study says, and in no more."""

    name: str
    base: Spec
    seeds: tuple[int, ...]
    axes: Mapping[str, tuple[str, ...]]
    """The names of the levels that cells have, by the name of each axis, in the file's order."""
    cells: tuple[Cell, ...]
    baseline: Cell
    """What the others are compared with."""
    threads: int
    """How many CPU threads a cell computes with: part of the result."""
    budget: Budget | None
    scoring: Mapping[str, Any]
    """`metrics`, `features` and `count`, as a spec's table [eval] would have them."""
    document: Document = field(repr=False, compare=False)
    """The study's text."""

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        plugins: Sequence[Path] = (),
        announce: Callable[[Path], None] = lambda path: None,
    ) -> Study:
        """The study in a file; its cells are checked, and not yet built.

        Local plugin files that the base names are run; `announce` is called with each before.

        Raises:
            UsageError: there is no such file.
            SpecError: with every problem of the study, its base and its cells.
        """
        path = Path(path)
        file = StudyFile(read(path), path.stem)
        problems = file.problems
        base = _base(file, path.parent, plugins, announce)
        drafts = _drafts(file)
        baseline = _baseline(file, drafts)
        cells = _cells(file, base, drafts) if base else ()
        if not problems:
            problems += same(cells, file.axes, str(path))
        if problems:
            raise SpecError(ordered(problems, str(path)))
        assert base is not None
        return cls(
            name=file.name,
            base=base,
            seeds=file.seeds,
            axes={axis.name: _present(axis, cells) for axis in file.axes},
            cells=cells,
            baseline=next(cell for cell in cells if cell.name == baseline),
            threads=file.threads,
            budget=file.budget,
            scoring=file.scoring,
            document=file.document,
        )

    def specs(self) -> Iterator[tuple[Cell, int, Spec]]:
        """Every run: a cell, a seed, and the spec that is trained.

        All cells with one seed come before any with the next, so that a study that is stopped has
        compared all of them.
        """
        for seed in self.seeds:
            for cell in self.cells:
                yield cell, seed, cell.seeded(seed)

    def differences(self, cell: Cell) -> list[str]:
        """In words, how a cell differs from the baseline."""
        return differences(self.baseline.spec, cell.spec)

    def check(self) -> None:
        """Build the networks of every cell, without weights, and run them once.

        Raises:
            SpecError: cells cannot be built; with each reason, and what would leave them out.
        """
        failed: dict[str, list[Problem]] = {}
        for cell in self.cells:
            try:
                networks(cell.spec)
                check_reach(cell.spec)
            except SpecError as error:
                failed[cell.name] = error.problems
        if failed:
            name = self.document.name
            cells = {cell.name: cell.levels for cell in self.cells}
            raise SpecError(ordered(unfit(failed, cells, name), name))


def _base(
    file: StudyFile, folder: Path, plugins: Sequence[Path], announce: Callable[[Path], None]
) -> Spec | None:
    """The spec that all cells are changed from; a recipe, where there is no such file."""
    if not file.base:
        return None
    path = folder / file.base
    try:
        if not (path.suffix or path.exists() or len(Path(file.base).parts) > 1):
            path = recipe(file.base)
        return load(path, plugins=plugins, announce=announce)
    except UsageError as error:
        file.report(str(error), file.value("base"))
    except SpecError as error:
        file.problems += error.problems
    return None


def _drafts(file: StudyFile) -> list[Draft]:
    """The combinations that are not left out, each with a name of its own."""
    axes = [axis for axis in file.axes if axis.levels]
    count = math.prod(len(axis.levels) for axis in axes)
    if count > MOST:
        file.report(f"a study has {MOST:,} cells at most, not {count:,}", axes[-1].place)
        return []
    drafts = list(combinations(axes))
    kept = [d for d in drafts if not any(pick.picks(d) for pick in file.excluded)]
    if not kept:
        file.report("no cells are left", file.excluded[-1].place, "all of them are excluded")
    seen: set[str] = set()
    for draft in kept:
        if draft.name in seen:
            file.report(f'two cells are called "{draft.name}"', axes[-1].place, "name their values")
        seen.add(draft.name)
    return kept


def _baseline(file: StudyFile, drafts: Sequence[Draft]) -> str:
    """The name of the cell that the others are compared with; without a word, the first."""
    if file.baseline is None:
        return drafts[0].name if drafts else ""
    found = only(file.baseline, drafts, file.problems) if drafts else None
    return found.name if found else ""


def _cells(file: StudyFile, base: Spec, drafts: Sequence[Draft]) -> tuple[Cell, ...]:
    """The cells that have a spec; what is wrong with the others is noted."""
    cells = []
    failed: dict[str, list[Problem]] = {}
    for draft in drafts:
        try:
            cells.append(Cell(draft.name, draft.levels, _spec(file, base, draft)))
        except SpecError as error:
            failed[draft.name] = error.problems
    # A value that no cell can have is a mistake, to be mended and not to be left out.
    levels = {draft.name: draft.levels for draft in drafts}
    file.problems += unfit(failed, levels, file.document.name, least=2)
    return tuple(cells)


def _spec(file: StudyFile, base: Spec, draft: Draft) -> Spec:
    """A cell's spec: what is set for all, then its variant, then its values in the grid's order."""
    source = Source(base.source.document, (*file.common, *draft.overrides))
    spec = check(source, base.name, lambda source: base.plugins)
    spec = replace(spec, name=named(file.name, draft.name), seed=file.seeds[0])
    return spec if file.budget is None else file.budget.spend(spec)


def _present(axis: Axis, cells: Sequence[Cell]) -> tuple[str, ...]:
    having = {cell.levels[axis.name] for cell in cells}
    return tuple(level.name for level in axis.levels if level.name in having)
