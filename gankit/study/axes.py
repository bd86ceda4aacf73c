"""What a study varies: axes, and what each of their levels sets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gankit.errors import Place, Problem, SpecError
from gankit.spec import Document, Override
from gankit.spec.document import Path
from gankit.spec.values import shown
from gankit.study.overrides import held, override, overrides, settings

__all__ = ["BASE", "VARIANT", "Axis", "Level", "axis_name", "called", "grid", "variants"]

VARIANT = "variant"
"""The axis that the tables [variant.NAME] make."""

BASE = "base"
"""Its level that changes nothing."""

_NAME = re.compile(r"[\w.+-]+")
_LONGEST = 60
"""How many characters a value may have that is its own name."""


@dataclass(frozen=True)
class Level:
    """One value of an axis, by its name."""

    name: str
    overrides: tuple[Override, ...]
    place: Place | None = None


@dataclass(frozen=True)
class Axis:
    """What the cells of a study differ in."""

    name: str
    levels: tuple[Level, ...]
    place: Place


def called(value: Any) -> str:
    """The name of a plain value, which depends on nothing else.

    `["spectral", "batchnorm"]` is spectral+batchnorm, `{ use = "r1", weight = 1.0 }` is
    r1(weight=1.0).
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "+".join(map(called, value)) or "[]"
    if isinstance(value, dict):
        options = ",".join(f"{key}={called(inner)}" for key, inner in value.items() if key != "use")
        return f"{called(value.get('use', ''))}({options})"
    return json.dumps(value, default=str)


def axis_name(table: Path, at: Path) -> str:
    """The name of the axis that the key at a path in a table speaks of."""
    return ".".join(map(str, at[len(table) :]))


def grid(document: Document, problems: list[Problem]) -> Iterator[Axis]:
    """The axes of the table [grid]; those that are wrong have no levels."""
    seen: dict[str, Place] = {}
    if document.data.get(VARIANT):
        seen[VARIANT] = document.key((VARIANT,))
    for at in settings(document, ("grid",)):
        name, place = axis_name(("grid",), at), document.key(at)
        if name in seen:
            hint = f"the first is on line {seen[name].line}"
            problems.append(Problem(f'two axes are called "{name}"', place, hint))
            continue
        seen[name] = place
        values = held(document, at)
        levels: list[Level] = []
        before = len(problems)
        if not isinstance(values, list) or not values:
            message = f'axis "{name}" is a list of values, not {shown(values)}'
            problems.append(Problem(message, document.value(at), "write one or more in brackets"))
        else:
            for index, value in enumerate(values):
                try:
                    levels.append(_level(document, at, index, value))
                except SpecError as error:
                    problems += error.problems
            problems += _twice(name, levels)
        yield Axis(name, tuple(levels) if len(problems) == before else (), place)


def variants(document: Document, problems: list[Problem]) -> Iterator[Axis]:
    """The axis of all variants, the base being one of them; none where there are no variants."""
    tables = document.data.get(VARIANT, {})
    if not tables:
        return
    levels = [] if BASE in tables else [Level(BASE, ())]
    before = len(problems)
    for name, table in tables.items():
        at, place = (VARIANT, name), document.key((VARIANT, name))
        if not isinstance(table, dict):
            hint = f"write [variant.{name}] and below it what it sets"
            problems.append(Problem("a variant is a table of overrides", place, hint))
            continue
        try:
            levels.append(Level(_fit(name, place), tuple(overrides(document, at)), place))
        except SpecError as error:
            problems += error.problems
    levels.sort(key=lambda level: level.name != BASE)
    ready = tuple(levels) if len(problems) == before else ()
    yield Axis(VARIANT, ready, document.key((VARIANT,)))


def _level(document: Document, axis: Path, index: int, value: Any) -> Level:
    """A value of an axis: what its path is set to, or a table of overrides that has a name."""
    at = (*axis, index)
    place = document.value(at)
    if isinstance(value, dict) and "name" in value:
        named = document.value((*at, "name"))
        return Level(_fit(value["name"], named), tuple(overrides(document, at)), named)
    name = called(value)
    if len(name) > _LONGEST or not name.isprintable() or not name.strip():
        hint = f'name it: {{ name = "...", "{axis_name(("grid",), axis)}" = ... }}'
        raise SpecError(Problem("this value makes no name that people can read", place, hint))
    return Level(name, (override(document, ("grid",), axis, at),), place)


def _fit(name: Any, place: Place) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > _LONGEST:
        message = f"a name is letters, digits, dots, dashes, underscores and +, not {shown(name)}"
        raise SpecError(Problem(message, place))
    return name


def _twice(axis: str, levels: list[Level]) -> Iterator[Problem]:
    seen: set[str] = set()
    for level in levels:
        if level.name in seen:
            hint = f'name them: {{ name = "...", "{axis}" = ... }}'
            message = f'two values of axis "{axis}" are called "{level.name}"'
            yield Problem(message, level.place, hint)
        seen.add(level.name)
