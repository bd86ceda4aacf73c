"""Overrides as the tables of a study write them, where a key is a path, in quotes or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gankit.errors import Problem, SpecError
from gankit.spec import Document, Override
from gankit.spec.document import Path, parse
from gankit.spec.positions import Span
from gankit.spec.values import shown

__all__ = ["held", "override", "overrides", "settings"]

_OURS = {
    "name": "each cell is named after its values",
    "seed": "it is given by `seeds`",
    "plugins": "name them in the base",
}
"""Keys of a spec that a study has its own word for."""


def held(document: Document, path: Path) -> Any:
    """The value at a path."""
    value: Any = document.data
    for step in path:
        value = value[step]
    return value


def settings(document: Document, table: Path) -> Iterator[Path]:
    """The paths of a table's values; `"a.b" = 1`, `a.b = 1` and a header for `a` are all the same.

    A table in braces is a value, any other leads to more of them.
    """
    for key, value in held(document, table).items():
        at = (*table, key)
        # What is no value of its own stands where its name does.
        if isinstance(value, dict) and len(set(document.spans[at])) == 1:
            yield from settings(document, at)
        else:
            yield at


def overrides(document: Document, table: Path) -> list[Override]:
    """What a table sets.

    Raises:
        SpecError: keys are no paths, or a study may not set what they lead to.
    """
    found = []
    problems: list[Problem] = []
    for at in settings(document, table):
        if at == (*table, "name") and isinstance(table[-1], int):
            continue  # an axis's value is called so
        try:
            found.append(override(document, table, at, at))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return found


def override(document: Document, table: Path, key: Path, at: Path) -> Override:
    """Set where the key leads, seen from its table, to the value at a path.

    Raises:
        SpecError: the key is no path, or a study may not set what it leads to.
    """
    names: list[tuple[str, Span]] = []
    for depth in range(len(table) + 1, len(key) + 1):
        names += _names(document, key[:depth])
    where = document.key(key)
    if names[0][0] in _OURS:
        message = f"a study does not set `{names[0][0]}` of its cells"
        raise SpecError(Problem(message, where, _OURS[names[0][0]]))
    path = tuple(name for name, _ in names)
    spans: dict[Path, tuple[Span, Span]] = {
        path[: depth + 1]: (span, span) for depth, (_, span) in enumerate(names)
    }
    spans[path] = names[-1][1], document.spans[at][1]
    for inner, span in document.spans.items():
        if len(inner) > len(at) and inner[: len(at)] == at:
            spans[*path, *inner[len(at) :]] = span
    return Override(replace(document, spans=spans), path, held(document, at))


def _names(document: Document, at: Path) -> list[tuple[str, Span]]:
    """The names in a key, which may be several with dots between them, and where each stands."""
    key, (start, end) = str(at[-1]), document.spans[at][0]
    text = f"{key} = 0"
    try:
        inner = parse(text, document.name)
    except SpecError:
        inner = parse("", document.name)
    path = max(inner.spans, key=len, default=())
    # A key could hold an equals sign or a comment of its own.
    if not path or len(inner.spans) > len(path) or inner.spans[path][1][0] != len(key) + 3:
        hint = "a path is names with dots between them, such as generator.norm"
        raise SpecError(Problem(f"{shown(key)} is no path", document.key(at), hint))
    names = [(str(name), inner.spans[path[: i + 1]][0]) for i, name in enumerate(path)]
    if document.text[start + 1 : end - 1] == key:
        return [(name, (start + 1 + a, start + 1 + b)) for name, (a, b) in names]
    return [(name, (start, end)) for name, _ in names]
