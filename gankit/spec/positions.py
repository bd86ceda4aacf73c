"""Where the keys and values of a TOML text stand.

`tomllib` tells no positions, nor does any other library. This scanner walks the text again once
tomllib has accepted it; being sure of a valid text, it only looks where things begin and end.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence

from gankit.errors import Place, Problem, SpecError

__all__ = ["MULTILINE", "STRING", "CutError", "Path", "Scanner", "Span", "place"]

Path = tuple[str | int, ...]
"""The keys and list indices that lead from the whole document to one of its values."""

Span = tuple[int, int]
Part = tuple[str, Span]

MAX_LEVELS = 64  # names and indices in a path: dotted keys in nested inline tables multiply

STRING = r""" "(?:[^"\\\n]|\\.)*+"?  |  '[^'\n]*+'? """
MULTILINE = r""" \"""(?:[^"\\]|\\[\s\S]|"(?!""))*+"{0,5}  |  '''(?:[^']|'(?!''))*+'{0,5} """
SCALAR = re.compile(rf"{MULTILINE}|{STRING}|[^\s,\]}}#]+(?:[ ]\d[^\s,\]}}#]*)?", re.VERBOSE)
NAME = re.compile(rf"{STRING}|[A-Za-z0-9_-]+", re.VERBOSE)
DOT = re.compile(r"[ \t]*\.[ \t]*")
EQUALS = re.compile(r"[ \t]*=[ \t]*")
HEADER = re.compile(r"\[\[?[ \t]*")
HEADER_END = re.compile(r"[ \t]*\]\]?")
BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*+")
BETWEEN = re.compile(r"(?:[ \t\r\n,]|#[^\n]*)*+")
UNSHOWABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def place(text: str, span: Span, name: str) -> Place:
    """The place of a span, cut at the end of its first line."""
    start, end = span
    first = text.rfind("\n", 0, start) + 1
    line = text[first:].partition("\n")[0].removesuffix("\r")
    width = len(text[start : min(end, first + len(line))].rstrip())
    source = UNSHOWABLE.sub("\ufffd", line)
    return Place(text.count("\n", 0, start) + 1, start - first + 1, max(1, width), source, name)


class CutError(Exception):
    """The text ends, or stops being TOML, where more of it has to come."""


class Scanner:
    """Finds where the keys and values of a valid text stand, or raises CutError where it is not."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.at = 0
        self.spans: dict[Path, tuple[Span, Span]] = {}
        self.entries: dict[Path, int] = {}
        """The index of the last entry of each array of tables."""
        self.latest: tuple[Path, Sequence[Part], tuple[Span, Span] | None] = ((), (), None)
        """The last path that was defined, by which key, and where it had been defined before."""

    def document(self) -> dict[Path, tuple[Span, Span]]:
        """Go through all statements."""
        table: Path = ()
        while self.take(BLANK)[1] < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
        return self.spans

    def header(self) -> Path:
        """Go through `[a.b]` or `[[a.b]]`; the path of its table."""
        start = self.take(HEADER)[0]
        parts = self.key()
        name, span = parts[-1]
        path = (*self.enter((), parts[:-1]), name)
        self.latest = path, parts, self.spans.get(path)
        if self.text.startswith("[[", start):
            self.entries[path] = self.entries.get(path, -1) + 1
            path = self.enter(path[:-1], parts[-1:])
        self.define(path, span, span)
        self.take(HEADER_END)
        return path

    def pair(self, table: Path) -> None:
        """Go through `a.b = value`."""
        parts = self.key()
        name, span = parts[-1]
        path = (*self.enter(table, parts[:-1]), name)
        self.take(EQUALS)
        value = self.value(path)
        self.latest = path, parts, self.spans.get(path)
        self.define(path, span, value)

    def key(self) -> list[Part]:
        """Go through `a . "b"`; its names and where they stand."""
        parts = []
        while True:
            start, end = self.take(NAME)
            name = self.text[start:end]
            if "\\" in name and name[0] == '"':
                name = tomllib.loads(f"name = {name}")["name"]
            elif name[0] in "\"'":
                name = name[1:-1]
            parts.append((name, (start, end)))
            if not DOT.match(self.text, self.at):
                return parts
            self.take(DOT)

    def enter(self, table: Path, parts: Sequence[Part]) -> Path:
        """The path from `table` along `parts`; what it names first, it defines."""
        for name, span in parts:
            table = (*table, name)
            if table not in self.spans:
                self.define(table, span, span)
            if table in self.entries:
                table = (*table, self.entries[table])
        return table

    def value(self, path: Path) -> Span:
        """Go through any value; where it stands."""
        start = self.at
        bracket = self.text[start : start + 1]
        if bracket == "[":
            self.at += 1
            index = 0
            while not self.closed("]"):
                entry = self.value((*path, index))
                self.define((*path, index), entry, entry)
                index += 1
        elif bracket == "{":
            self.at += 1
            while not self.closed("}"):
                self.pair(path)
        else:
            self.take(SCALAR)
        return start, self.at

    def closed(self, bracket: str) -> bool:
        """Go to the next entry, or behind the bracket, and tell which."""
        self.take(BETWEEN)
        found = self.text.startswith(bracket, self.at)
        self.at += found
        return found

    def take(self, pattern: re.Pattern[str]) -> Span:
        """Go behind what `pattern` matches here; where it stands."""
        match = pattern.match(self.text, self.at)
        if match is None:
            raise CutError
        self.at = match.end()
        return match.span()

    def define(self, path: Path, key: Span, value: Span) -> None:
        """Note where a path stands."""
        if len(path) > MAX_LEVELS:
            message = f"tables and lists are nested more than {MAX_LEVELS} deep"
            raise SpecError(Problem(message, place(self.text, key, self.name)))
        self.spans[path] = key, value
