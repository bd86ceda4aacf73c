"""What a study file says, before its cells are made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gankit.errors import Place, Problem, SpecError, choices
from gankit.spec import FORMAT, LISTS, Document, Override
from gankit.spec.document import Path
from gankit.spec.model import SECTIONS
from gankit.spec.positions import place
from gankit.spec.values import shown
from gankit.study.axes import Axis, grid, variants
from gankit.study.budget import Budget
from gankit.study.overrides import overrides
from gankit.study.picks import baseline, excluded

__all__ = ["StudyFile"]

_KEYS = (
    *("gankit", "name", "base", "seeds", "metrics", "features", "count", "budget", "threads"),
    *("set", "grid", "variant", "exclude", "compare"),
)


class StudyFile:
    """A study's tables, read; `problems` are those that can be seen without its base."""

    def __init__(self, document: Document, file: str) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.header()
        self.name: str = self.checked("name", str, re.sub(r"[^\w.-]", "-", file), _is_name)
        self.base: str = self.checked("base", str, "", bool, needed='base = "spec.toml"')
        self.seeds = self.read_seeds()
        self.threads: int = self.checked("threads", int, 1, lambda n: n > 0)
        self.budget = self.read_budget()
        self.scoring = self.read_scoring()
        self.common = self.read_overrides("set")
        self.axes = self.read_axes()
        """The variants, and then those of the grid."""
        self.excluded = excluded(document, self.axes, self.problems)
        self.baseline = baseline(document, self.axes, self.problems)
        """What picks the cell that others are compared with; None for the first."""
        self.refuse_steps()

    def report(self, message: str, place: Place, hint: str = "") -> None:
        """Note a problem."""
        self.problems.append(Problem(message, place, hint))

    def value(self, *path: str | int) -> Place:
        """Where a value is written."""
        return self.document.value(path)

    def header(self) -> None:
        """Every key is known, and the format is ours."""
        data = self.document.data
        for key in data:
            if key not in _KEYS:
                hint = choices(key, _KEYS)
                if key in {*SECTIONS, *LISTS, "train"}:
                    header = f"[[set.{key}]]" if key in LISTS else f"[set.{key}]"
                    hint = f"write {header} for what all cells have"
                self.report(f"a study has no key {shown(key)}", self.document.key((key,)), hint)
        version = data.get("gankit")
        if version is None:
            hint = f"write `gankit = {FORMAT}` first"
            self.report("the key `gankit` is missing", self.start(), hint)
        elif type(version) is not int or version != FORMAT:
            message = f"this gankit reads format {FORMAT}, not {shown(version)}"
            self.report(message, self.value("gankit"))

    def start(self) -> Place:
        """The first line: what is missing there belongs before it."""
        return place(self.document.text, (0, 1), self.document.name)

    def checked(
        self, key: str, kind: type, default: Any, fits: Callable[[Any], object], needed: str = ""
    ) -> Any:
        """A plain value, or its default where it is not given or not right."""
        if key not in self.document.data:
            if needed:
                self.report(f"the key `{key}` is missing", self.start(), f"write {needed}")
            return default
        value = self.document.data[key]
        if type(value) is kind and fits(value):
            return value
        self.report(f"{key} is {_FORMS[key]}, not {shown(value)}", self.value(key))
        return default

    def read_seeds(self) -> tuple[int, ...]:
        """The seeds, each once."""
        if "seeds" not in self.document.data:
            self.report("the key `seeds` is missing", self.start(), "write seeds = [0, 1, 2]")
            return (0,)
        seeds = self.document.data["seeds"]
        if not isinstance(seeds, list) or not seeds:
            hint = ""
            if type(seeds) is int and 0 < seeds <= 20:
                hint = f"write seeds = {list(range(seeds))}"
            message = f"seeds is {_FORMS['seeds']}, not {shown(seeds)}"
            self.report(message, self.value("seeds"), hint)
            return (0,)
        found: dict[int, None] = {}
        for index, seed in enumerate(seeds):
            if type(seed) is not int or not 0 <= seed < 2**63:
                message = f"a seed is a whole number of at least 0, not {shown(seed)}"
                self.report(message, self.value("seeds", index))
            elif seed in found:
                self.report(f"seed {seed} is there twice", self.value("seeds", index))
            else:
                found[seed] = None
        return tuple(found) or (0,)

    def read_budget(self) -> Budget | None:
        """What every cell is given; None where each lasts as long as its spec says."""
        if "budget" not in self.document.data:
            return None
        budget = self.document.data["budget"]
        if isinstance(budget, dict) and len(budget) == 1:
            ((of, count),) = budget.items()
            if of in ("images", "steps") and type(count) is int and 0 < count < 2**63:
                return Budget(of, count, self.value("budget", of))
        form = "{ images = N } or { steps = N }"
        self.report(f"budget is {form}, not {shown(budget)}", self.value("budget"))
        return None

    def read_scoring(self) -> Mapping[str, Any]:
        """How cells are scored, as the keys of a spec's table [eval]; parts are not looked up."""
        found: dict[str, Any] = {}
        if (metrics := self.document.data.get("metrics")) is not None:
            found["metrics"] = metrics
            if not isinstance(metrics, list):
                message = f"metrics is a list of names, not {shown(metrics)}"
                self.report(message, self.value("metrics"))
            else:
                for index, metric in enumerate(metrics):
                    self.part(metric, ("metrics", index))
        if (features := self.document.data.get("features")) is not None:
            found["features"] = features
            self.part(features, ("features",))
        if "count" in self.document.data:
            found["count"] = self.checked("count", int, 0, lambda n: n > 0)
        return found

    def part(self, value: Any, path: Path) -> None:
        """Refuse what names no part."""
        if not isinstance(value, str) and not (isinstance(value, dict) and "use" in value):
            message = f'{path[0]}: a part is "name" or {{ use = "name", ... }}, not {shown(value)}'
            self.report(message, self.value(*path))

    def read_overrides(self, key: str) -> tuple[Override, ...]:
        """What is set for all cells."""
        if not self.is_table(key):
            return ()
        try:
            return tuple(overrides(self.document, (key,)))
        except SpecError as error:
            self.problems += error.problems
            return ()

    def read_axes(self) -> tuple[Axis, ...]:
        """The variants, and the axes of the grid."""
        axes: list[Axis] = []
        if self.is_table("variant"):
            axes += variants(self.document, self.problems)
        if self.is_table("grid"):
            axes += grid(self.document, self.problems)
        return tuple(axes)

    def is_table(self, key: str) -> bool:
        """Whether there is such a table; what is there and is none is refused."""
        if key not in self.document.data:
            return False
        if isinstance(self.document.data[key], dict):
            return True
        self.report(f"{key} is a table", self.document.key((key,)), f"write [{key}]")
        return False

    def refuse_steps(self) -> None:
        """A budget and a number of steps exclude each other."""
        if self.budget is None:
            return
        levels = [level for axis in self.axes for level in axis.levels]
        each: Sequence[Override] = [*self.common, *(o for level in levels for o in level.overrides)]
        for override in each:
            if override.names == ("train", "steps"):
                where = override.document.key(override.names)
                hint = "leave out one of them"
                self.report("the budget says how many steps a cell lasts", where, hint)


_FORMS = {
    "name": "letters, digits, dots, dashes and underscores",
    "base": "the path of a spec, or the name of a recipe",
    "seeds": "a list of whole numbers such as [0, 1, 2]",
    "threads": "a whole number of at least 1",
    "count": "a whole number of at least 1",
}


def _is_name(name: str) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*", name) is not None
