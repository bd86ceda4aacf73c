"""From tables to a Spec: every key known, every value of its type, every problem reported."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gankit.errors import GankitError, OptionError, Place, Problem, SpecError, choices
from gankit.registry import REQUIRED, Option, registry
from gankit.registry.options import options_of
from gankit.spec.document import Path
from gankit.spec.model import FORMAT, LISTS, SECTIONS, Part, Plugin, Spec, Train
from gankit.spec.source import REMOVED, Source

__all__ = ["check", "problem_at"]

_TOP = {"gankit", "name", "seed", "plugins", "train", "providers", *SECTIONS, *LISTS}
_DEFAULTS = {"latent": "normal", "optimizer": "adam"}


def check(source: Source, name: str, load_plugins: Callable[[Source], Sequence[Plugin]]) -> Spec:
    """The spec that a source describes.

    `load_plugins` runs the files the spec names, and is called before any part is looked up.

    Raises:
        SpecError: with every problem there is, in the order of the text.
    """
    checker = _Checker(source)
    checker.numbers(source.data, ())
    checker.header()
    plugins = tuple(load_plugins(source)) if checker.plugins() else ()
    parts: dict[str, Any] = {name: checker.section(name, kind) for name, kind in SECTIONS.items()}
    parts |= {name: checker.entries(name, kind) for name, kind in LISTS.items()}
    train = checker.train()
    problems = checker.problems
    if problems or train is None or None in parts.values():
        raise SpecError(sorted(problems, key=_order))
    data = source.data
    return Spec(
        name=data.get("name", name),
        seed=data.get("seed", 0),
        plugins=plugins,
        train=train,
        source=source,
        **parts,
    )


def problem_at(source: Source, part: Part, error: GankitError | ValueError) -> Problem:
    """What a part said when it was built, at the place of the option or part it speaks of."""
    if isinstance(error, OptionError):
        for inner in part.inner():
            if error.option in inner.entry.options:
                path = (*inner.path, error.option)
                given = error.option in inner.options
                return Problem(str(error), source.value(path if given else inner.path))
    return Problem(str(error), source.value((*part.path, "use")))


def _order(problem: Problem) -> tuple[bool, Place]:
    """Problems in the order of the text, those of overrides after those of the file."""
    place = problem.place or Place(0, 0)
    return place.name == "--set", place


class _Checker:
    """Walks the tables and gathers what is wrong with them."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def report(self, message: str, place: Place | None, hint: str = "") -> None:
        self.problems.append(Problem(message, place, hint))

    def numbers(self, value: Any, path: Path) -> None:
        """Refuse numbers that are none; a loss that starts from nan teaches nothing."""
        if isinstance(value, float) and not math.isfinite(value):
            self.report(f"{value} is not a number that a spec can use", self.source.value(path))
        items: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list):
            items = enumerate(value)
        for key, inner in items:
            self.numbers(inner, (*path, key))

    def header(self) -> None:
        """The keys that stand outside any table."""
        data = self.source.data
        for key in data:
            if key not in _TOP:
                self.report(f'unknown key "{key}"', self.source.key((key,)), choices(key, _TOP))
        version = data.get("gankit")
        if version is None:
            self.report("the key `gankit` is missing", None, f"write `gankit = {FORMAT}` first")
        elif version is True or version != FORMAT:
            place = self.source.value(("gankit",))
            self.report(f"this gankit reads format {FORMAT}, not {version!r}", place)
        for key, kind in (("name", str), ("seed", int)):
            if key in data:
                option = Option(key, kind, REQUIRED)
                value = self.plain(option, data[key], (key,))
                if key == "name" and isinstance(value, str) and not _is_name(value):
                    self.report(
                        "a name is letters, digits, dots, dashes and underscores",
                        self.source.value((key,)),
                    )
                if key == "seed" and isinstance(value, int) and not 0 <= value < 2**63:
                    self.report("a seed is at least 0 and below 2^63", self.source.value((key,)))

    def plugins(self) -> bool:
        """Whether the key `plugins` has the form it must have."""
        entries = self.source.data.get("plugins", [])
        option = Option("plugins", list[str | dict[str, str]], REQUIRED)
        return self.plain(option, entries, ("plugins",)) is not None

    def section(self, section: str, kind: str) -> Part | None:
        """A table that holds one part."""
        value = self.source.data.get(section, _DEFAULTS.get(section))
        if value is None:
            self.report(f"the table [{section}] is missing", None, self._snippet(section, kind))
            return None
        return self.part(kind, value, (section,))

    def _snippet(self, section: str, kind: str) -> str:
        return f"write [{section}] with use = one of: {', '.join(registry.names(kind))}"

    def entries(self, section: str, kind: str) -> tuple[Part, ...]:
        """An array of tables, each a part; a part may stand in it once."""
        values = self.source.data.get(section, [])
        if not isinstance(values, list):
            self.report(
                f"{section} is an array of tables", self.source.key((section,)), f"[[{section}]]"
            )
            return ()
        parts: list[Part] = []
        for index, value in enumerate(values):
            if value == REMOVED:
                continue
            part = self.part(kind, value, (section, index))
            if part is None:
                continue
            if part.name in {other.name for other in parts}:
                self.report(
                    f'two entries of {section} use "{part.name}"', self.source.value(part.path)
                )
            parts.append(part)
        return tuple(parts)

    def train(self) -> Train | None:
        """The table [train]."""
        table = self.source.data.get("train", {})
        if not isinstance(table, dict):
            self.report("train is a table", self.source.value(("train",)), "[train]")
            return None
        given = self.options(options_of(Train), table, ("train",), "[train]")
        if given is None:
            return None
        try:
            return Train(**given)
        except OptionError as error:
            self.report(str(error), self.source.value(("train", error.option)))
            return None

    def part(self, kind: str, value: Any, path: Path) -> Part | None:
        """A part: a name, or a table with `use` and options."""
        table = {"use": value} if isinstance(value, str) else value
        if not isinstance(table, dict):
            message = f'a {kind} is written "name" or {{ use = "name", ... }}'
            self.report(message, self.source.value(path))
            return None
        name = table.get("use")
        if not isinstance(name, str):
            hint = f"available: {', '.join(registry.names(kind))}"
            self.report(f"`use` must name a {kind}", self.source.key(path), hint)
            return None
        if name not in registry.names(kind):
            at = self.source.value(path if isinstance(value, str) else (*path, "use"))
            self.report(f'unknown {kind} "{name}"', at, choices(name, registry.names(kind)))
            return None
        entry = registry.get(kind, name)
        table = {key: inner for key, inner in table.items() if key != "use"}
        given = self.options(entry.options, table, path, f'{kind} "{name}"')
        return None if given is None else Part(entry, given, path)

    def options(
        self, known: dict[str, Option], table: dict[str, Any], path: Path, of: str
    ) -> dict[str, Any] | None:
        """The options in a table, checked; None where one of them is wrong."""
        before = len(self.problems)
        given = {}
        for key, value in table.items():
            at = (*path, key)
            if key in known:
                given[key] = self.option(known[key], value, at)
            else:
                hint = choices(key, known)
                self.report(f'{of} has no option "{key}"', self.source.key(at), hint)
        for key, option in known.items():
            if option.default is REQUIRED and key not in table:
                self.report(
                    f'{of} needs the option "{key}"',
                    self.source.key(path),
                    f"{key}: {option.meaning or option.type_name}",
                )
        return given if len(self.problems) == before else None

    def option(self, option: Option, value: Any, path: Path) -> Any:
        """One option's value: a part, several, or something plain."""
        if option.slot == "norm":
            return self.norms(value, path)
        if option.slot and option.many:
            if not isinstance(value, list):
                self.report(f"{option.name} is a list of {option.slot}s", self.source.value(path))
                return ()
            made = [self.part(option.slot, item, (*path, i)) for i, item in enumerate(value)]
            return tuple(part for part in made if part is not None)
        if option.slot:
            return self.part(option.slot, value, path)
        return self.plain(option, value, path)

    def norms(self, value: Any, path: Path) -> tuple[Part, ...]:
        """A set of norms, at most one for each place that a norm can act on."""
        several = isinstance(value, list)
        parts: list[Part] = []
        for index, item in enumerate(value if several else [value]):
            at = (*path, index) if several else path
            part = self.part("norm", item, at)
            if part is None:
                continue
            for other in parts:
                if other.entry.on == part.entry.on:
                    self.report(
                        f'"{part.name}" and "{other.name}" both act on the {part.entry.on}',
                        self.source.value(at),
                        f"keep one: a norm on the {part.entry.on} leaves room for one on the "
                        + ("activation" if part.entry.on == "weight" else "weight"),
                    )
            parts.append(part)
        return tuple(parts)

    def plain(self, option: Option, value: Any, path: Path) -> Any:
        """A plain value, strictly of the option's type; an int will do for a float."""
        try:
            return _adapter(option.annotation).validate_json(json.dumps(value), strict=True)
        except TypeError:
            self.report("a spec holds no dates or times", self.source.value(path))
        except ValidationError as error:
            at = path
            for step in error.errors()[0]["loc"] if error.error_count() == 1 else ():
                at = (*at, step) if (*at, step) in self.source.document.spans else at
            shown = json.dumps(_at(value, at[len(path) :]))
            name = ".".join(str(step) for step in path)
            self.report(f"{name} must be {option.type_name}, not {shown}", self.source.value(at))
        return None


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _is_name(name: str) -> bool:
    return bool(name) and name[0] != "." and all(c.isalnum() or c in "._-" for c in name)
