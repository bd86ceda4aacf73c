"""A TOML text, what it says, and where in it every key and value stands."""

from __future__ import annotations

import json
import pathlib
import re
import tomllib
from codecs import BOM_UTF8
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from os import fstat
from typing import Any

from gankit.errors import Place, Problem, SpecError, UsageError
from gankit.spec.positions import MULTILINE, STRING, CutError, Path, Scanner, Span, place

__all__ = ["Document", "Path", "dotted", "parse", "read"]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32  # brackets in brackets, components of a dotted key; tomllib is quadratic in these
MAX_WORD = 500  # Python may refuse to read, and to print, integers of more than 640 digits

TOKEN = re.compile(
    rf"""(?P<text>{MULTILINE}|{STRING}) | \#[^\n]* | (?P<word>[\w+-]++)
    | (?P<open>[\[{{]) | (?P<close>[\]}}]) | (?P<dot>\.) | (?P<end>[=,\n])""",
    re.VERBOSE,
)
BARE = re.compile(r"[A-Za-z0-9_-]+")
COMPLAINT = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


@dataclass(frozen=True)
class Document:
    """A TOML text with what it says and where; `key` and `value` raise KeyError for other paths."""

    name: str
    """What to call the text in `-->`."""
    text: str
    """The text as it was given, without a byte order mark."""
    data: dict[str, Any]
    """What tomllib read in it."""
    spans: Mapping[Path, tuple[Span, Span]] = field(repr=False)
    """From where to where the key and the value of each path reach, as indices into `text`."""

    def key(self, path: Path) -> Place:
        """The key that defines `path`: the last name of a dotted key or header, or a list entry."""
        return place(self.text, self.spans[path][0], self.name)

    def value(self, path: Path) -> Place:
        """The first line of the value at `path`; of a table with a header, the header's name."""
        return place(self.text, self.spans[path][1], self.name)


def read(path: pathlib.Path) -> Document:
    """The document in a file; raises UsageError if there is none to read, and as `parse` does."""
    try:
        with path.open("rb") as file:
            source = file.read(MAX_BYTES + 1)
            size = max(len(source), fstat(file.fileno()).st_size)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read {path}: {reason}") from None
    check_size(size, str(path))
    return parse(source, str(path))


def parse(source: bytes | str, name: str) -> Document:
    """The document that `source` writes; raises SpecError if it is not TOML, or too much of it."""
    text = decode(source, name)
    check_nesting(text, name)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(explain(str(error), text, name)) from None
    return Document(name, text, data, Scanner(text, name).document())


def dotted(path: Path) -> str:
    """A path as people read it: `penalty[0]."a key"`."""
    names = (f"[{p}]" if isinstance(p, int) else f".{quoted(p)}" for p in path)
    return "".join(names).removeprefix(".")


def quoted(name: str) -> str:
    """A key as TOML wants it written."""
    return name if BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def check_size(size: int, name: str) -> None:
    """Refuse what is larger than any spec."""
    if size > MAX_BYTES:
        raise SpecError(f"{name} has {size:,} bytes; a spec may have {MAX_BYTES:,}")


def decode(source: bytes | str, name: str) -> str:
    """The text in `source`."""
    raw = source.encode("utf-8", "surrogatepass") if isinstance(source, str) else source
    check_size(len(raw), name)
    raw = raw.removeprefix(BOM_UTF8)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        at = len(raw[: error.start].decode())
        where = place(raw.decode(errors="replace"), (at, at + 1), name)
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8"
        raise SpecError(Problem(message, where, "TOML is always UTF-8")) from None


def check_nesting(text: str, name: str) -> None:
    """Refuse what would take tomllib, or whoever walks its result, too long or too deep."""
    depth = dots = 0
    for token in TOKEN.finditer(text):
        kind = token.lastgroup
        depth += (kind == "open") - (kind == "close")
        if kind not in ("text", "word"):
            dots = dots + 1 if kind == "dot" else 0
        if depth > MAX_DEPTH:
            message = f"brackets are nested more than {MAX_DEPTH} deep"
        elif dots >= MAX_DEPTH:
            message = f"a dotted key has more than {MAX_DEPTH} names"
        elif kind == "word" and len(token[0]) > MAX_WORD:
            message = f"a number or bare key has more than {MAX_WORD} characters"
        else:
            continue
        raise SpecError(Problem(message, place(text, token.span(), name)))


def explain(complaint: str, text: str, name: str) -> Problem:
    """What tomllib complains about, where, and what may be meant."""
    match = COMPLAINT.fullmatch(complaint)
    if match is None:
        return Problem(complaint)
    message, line, column = match.groups()
    at = len(text.rstrip())
    if line:
        at = sum(len(s) + 1 for s in text.split("\n")[: int(line) - 1]) + int(column) - 1
    if message.startswith(("Cannot", "Duplicate")) and (problem := repeated(text[:at], text, name)):
        return problem
    word = BARE.match(text, at)
    hint = ""
    if word and message == "Invalid value" and not word[0][0].isdigit():
        wanted = word[0].lower()
        hint = f"write {wanted}" if wanted in ("true", "false") else f'did you mean "{word[0]}"?'
    if message == r"Illegal character '\n'":
        message = "The string does not end on its line"
    if message.startswith("Unclosed") and (opening := unclosed(text, at)) is not None:
        hint = f"it begins on line {place(text, (opening, opening + 1), name).line}"
    where = place(text, word.span() if word else (at, at + 1), name)
    return Problem(message[0].lower() + message[1:], where, hint)


def unclosed(text: str, end: int) -> int | None:
    """Where the innermost bracket stands that is open at `end`."""
    opened: list[int] = []
    for token in TOKEN.finditer(text, 0, end):
        if token.lastgroup == "open":
            opened.append(token.start())
        elif token.lastgroup == "close" and opened:
            opened.pop()
    return opened[-1] if opened else None


def repeated(start: str, text: str, name: str) -> Problem | None:
    """What is wrong with the last definition of `start`, where `text` repeats what it has."""
    scanner = Scanner(start, name)
    with suppress(CutError):
        scanner.document()
    path, parts, earlier = scanner.latest
    where = place(text, parts[-1][1], name)
    if earlier:
        first = place(text, earlier[0], name).line
        return Problem(f"{dotted(path)} is defined twice", where, f"first on line {first}")
    for length in range(len(path) - 1, 0, -1):
        owner = scanner.spans.get(path[:length])
        if owner and owner[0] < parts[0][1]:
            first = place(text, owner[0], name).line
            message = f"{dotted(path)} cannot be added to {dotted(path[:length])}"
            return Problem(message, where, f"which is defined on line {first}")
    return None
