"""A spec's tables before they are checked: a document with `--set` overrides laid over it."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gankit.errors import Place, Problem, SpecError, UsageError, choices
from gankit.spec.document import Document, Path, dotted, parse
from gankit.spec.positions import place

__all__ = ["Override", "Source"]

LISTED = (("schedule",), ("penalty",), ("augment",), ("logger",))
"""Arrays of tables, to which an override may add."""

REMOVED = "none"
"""An override's value that takes an entry out of a list of parts."""

# A shell takes the quotes off `root="my photos"`, so what begins like a word or a path may have
# blanks in it; what begins otherwise may not, or a slip in a list would pass for a word.
_BARE = re.compile(r"[^\W\d][^'\n]*|[/.~][^'\n]*|[^\s\"'\[\]{}#,=]+")


@dataclass(frozen=True)
class Override:
    """A value, the names that lead to where it goes, and the text in which both are written."""

    document: Document
    """Its places are by the names, however the text around them has it."""
    names: tuple[str, ...]
    value: Any


class Source:
    """Tables of plain values, and where each was written: in the file or in an override.

    An override is `--set`'s PATH=VALUE, or the same taken from another file. `problems` are those
    of overrides that lead nowhere; whoever checks the tables reports them with the rest.

    Raises:
        UsageError: an override is not of the form PATH=VALUE.
    """

    def __init__(self, document: Document, overrides: Sequence[str | Override] = ()) -> None:
        self.document = document
        self.data: dict[str, Any] = copy.deepcopy(document.data)
        self.problems: list[Problem] = []
        self._origins: dict[Path, tuple[Document, Path]] = {
            path: (document, path) for path in document.spans
        }
        for override in overrides:
            try:
                self._set(_parsed(override) if isinstance(override, str) else override)
            except SpecError as error:
                self.problems += error.problems

    def key(self, path: Path) -> Place | None:
        """Where the key of `path`, or of the nearest table around it, is written."""
        found = self._origin(path)
        return found and found[0].key(found[1])

    def value(self, path: Path) -> Place | None:
        """Where the value at `path`, or the nearest table around it, is written."""
        found = self._origin(path)
        return found and found[0].value(found[1])

    def start(self) -> Place:
        """The first character of the file: what is missing there belongs before it."""
        return place(self.document.text, (0, 1), self.document.name)

    def end(self) -> Place:
        """Behind the last character of the file: what is missing may be added there."""
        at = len(self.document.text.rstrip())
        return place(self.document.text, (at, at), self.document.name)

    def _origin(self, path: Path) -> tuple[Document, Path] | None:
        around = (path[:length] for length in range(len(path), 0, -1))
        return next((self._origins[p] for p in around if p in self._origins), None)

    def _set(self, override: Override) -> None:
        """Put a value where the names lead, making tables and entries on the way."""
        document, names = override.document, override.names
        # Another source may be given the same override, and this one's tables may change.
        value = copy.deepcopy(override.value)
        holder: Any = self.data
        at: Path = ()
        for depth, name in enumerate(names, start=1):
            written = names[:depth]
            if not isinstance(holder, dict | list):
                raise SpecError(Problem(f"{dotted(at)} is no table", document.key(written)))
            step: Any = name
            if isinstance(holder, list):
                adds = at in LISTED and (depth < len(names) or value != REMOVED)
                step = _entry(holder, name, adds, Problem(dotted(at), document.key(written)))
            at = (*at, step)
            if depth == len(names):
                break
            if isinstance(holder, dict) and name not in holder:
                holder[name] = [] if at in LISTED else {}
            if isinstance(holder[step], str):
                # "x" is short for { use = "x" }.
                holder[step] = {"use": holder[step]}
                self._origins[*at, "use"] = self._origins.pop(at, (document, written))
            self._origins.setdefault(at, (document, written))
            holder = holder[step]
        for known in [path for path in self._origins if path[: len(at)] == at]:
            del self._origins[known]
        if isinstance(holder, list) and value == REMOVED:
            self._remove(at, holder)
            return
        if isinstance(holder, list) and isinstance(value, dict):
            # So that `penalty.r1={weight=1}` need not say `use` again.
            value = _named(holder[step]) | value
        holder[step] = value
        for path in document.spans:
            if path[: len(names)] == names:
                self._origins[*at, *path[len(names) :]] = document, path

    def _remove(self, at: Path, holder: list[Any]) -> None:
        """Take an entry out of a list; those behind it move up, and so do their places."""
        *around, index = at
        assert isinstance(index, int)
        del holder[index]
        for later in range(index, len(holder)):
            old, new = (*around, later + 1), (*around, later)
            for path in [path for path in self._origins if path[: len(at)] == old]:
                self._origins[*new, *path[len(at) :]] = self._origins.pop(path)


def _entry(entries: list[Any], name: str, adds: bool, otherwise: Problem) -> int:
    """The index of the entry that uses the part called `name`, or whose number it is.

    Raises:
        SpecError: there is none, and it is not to be added.
    """
    called = [_named(entry).get("as", _named(entry).get("use")) for entry in entries]
    if name in called:
        return called.index(name)
    if name.isdecimal() and int(name) < len(entries):
        return int(name)
    if adds:
        entries.append({"use": name})
        return len(entries) - 1
    hint = choices(name, {each for each in called if isinstance(each, str)})
    raise SpecError(replace(otherwise, message=f'{otherwise.message} has no "{name}"', hint=hint))


def _named(entry: Any) -> dict[str, Any]:
    """What says which part an entry is, and what it is called."""
    if not isinstance(entry, dict):
        return {"use": entry}
    return {key: entry[key] for key in ("use", "as") if key in entry}


def _parsed(override: str) -> Override:
    """What PATH=VALUE says, where a bare word counts as a string."""
    left, equals, right = override.partition("=")
    if not equals or not left.strip():
        raise UsageError(f"--set takes PATH=VALUE, not {override!r}")
    word = right.strip()
    try:
        document = parse(override, "--set")
    except SpecError as error:
        if not _BARE.fullmatch(word):
            raise
        try:
            quoted = parse(f"{left}='{word}'", "--set")
        except SpecError:
            raise error from None
        # The places are those of the text as it was given, without the quotes.
        start = len(left) + 1 + len(right) - len(right.lstrip())
        spans = {
            path: (key, value if key == value else (start, start + len(word)))
            for path, (key, value) in quoted.spans.items()
        }
        document = replace(quoted, text=override, spans=spans)
    names: tuple[str, ...] = ()
    value: Any = document.data
    while not names or len(set(document.spans[names])) == 1:  # the place of a table is its name's
        if not isinstance(value, dict) or len(value) != 1:
            raise UsageError(f"--set takes one PATH=VALUE at a time, not {override!r}")
        ((name, value),) = value.items()
        names = (*names, name)
    return Override(document, names, value)
