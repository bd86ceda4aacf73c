"""A spec's tables before they are checked: a document with `--set` overrides laid over it."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from gankit.errors import Place, Problem, SpecError, UsageError
from gankit.spec.document import Document, Path, parse

__all__ = ["REMOVED", "Source"]

LISTED = ("schedule", "penalty", "augment")

REMOVED = "none"
"""An override's value that takes an entry out of an array of tables."""

_BARE = re.compile(r"[^\s\"'\[\]{}#,=]+")


class Source:
    """Tables of plain values, and where each was written: in the file or in an override.

    Raises:
        UsageError: an override is not of the form PATH=VALUE.
        SpecError: an override's value is not TOML.
    """

    def __init__(self, document: Document, overrides: Sequence[str] = ()) -> None:
        self.document = document
        self.data: dict[str, Any] = copy.deepcopy(document.data)
        self._places: dict[Path, tuple[Place, Place]] = {}
        for override in overrides:
            self._set(override)

    def key(self, path: Path) -> Place | None:
        """Where the key of `path`, or of the nearest table around it, is written."""
        return self._find(path, 0)

    def value(self, path: Path) -> Place | None:
        """Where the value at `path`, or the nearest table around it, is written."""
        return self._find(path, 1)

    def _find(self, path: Path, which: int) -> Place | None:
        for length in range(len(path), 0, -1):
            around = path[:length]
            if around in self._places:
                return self._places[around][which]
            if around in self.document.spans:
                find = self.document.value if which else self.document.key
                return find(around)
        return None

    def _set(self, override: str) -> None:
        path, value, places = _parsed(override)
        if path[0] in LISTED and len(path) > 1:
            path = self._entry(str(path[0]), str(path[1])) + path[2:]
        target: Any = self.data
        for step, following in pairwise(path):
            inner = target[step] if isinstance(step, int) else target.setdefault(step, {})
            if isinstance(inner, str) and isinstance(following, str):
                inner = target[step] = {"use": inner}
            if not isinstance(inner, dict | list):
                raise SpecError(Problem(f"{override}: {step} holds no table", places[0]))
            target = inner
        target[path[-1]] = self._merged(path, target, value)
        for known in [p for p in self._places if p[: len(path)] == path]:
            del self._places[known]
        self._places[path] = places

    def _merged(self, path: Path, target: Any, value: Any) -> Any:
        """An entry's table keeps its `use`, so that `penalty.r1={weight=1}` need not repeat it."""
        if len(path) == 2 and path[0] in LISTED and isinstance(value, dict):
            return {"use": target[path[1]]["use"], **value}
        return value

    def _entry(self, section: str, name: str) -> Path:
        """The path of the entry that uses the part called `name`, added where there is none."""
        entries: list[Any] = self.data.setdefault(section, [])
        for index, entry in enumerate(entries):
            if entry == name or (isinstance(entry, dict) and entry.get("use") == name):
                entries[index] = {"use": name} if isinstance(entry, str) else entry
                return (section, index)
        entries.append({"use": name})
        return (section, len(entries) - 1)


def _parsed(override: str) -> tuple[Path, Any, tuple[Place, Place]]:
    """The path, value and places of PATH=VALUE, where a bare word counts as a string."""
    left, equals, right = override.partition("=")
    if not equals or not left.strip():
        raise UsageError(f"--set takes PATH=VALUE, not {override!r}")
    try:
        document = parse(override, "--set")
    except SpecError:
        if not _BARE.fullmatch(right.strip()):
            raise
        document = parse(f'{left}="{right.strip()}"', "--set")
    path: Path = ()
    value: Any = document.data
    depth = len(_names(left))
    while len(path) < depth:
        (name, value), *_ = value.items()
        path = (*path, name)
    start = len(left) + 2 + len(right) - len(right.lstrip())
    key = replace(document.key(path), source=override)
    at = Place(1, start, max(1, len(right.strip())), override, "--set")
    return path, value, (key, at)


def _names(left: str) -> list[str]:
    """The names of a dotted key."""
    names: list[str] = []
    table: Any = parse(f"{left}=0", "--set").data
    while isinstance(table, dict):
        (name, table), *_ = table.items()
        names.append(name)
    return names
