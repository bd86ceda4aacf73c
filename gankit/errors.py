"""Every error a user can meet, and the texts of those that take some writing.

    GankitError                 exit 1 (only when nothing better is known)
    ├── UsageError              exit 2   the command line itself
    ├── SpecError               exit 3   one or more problems in a spec, each with its place
    │   └── PartError           exit 3   a part that breaks the rules of its kind
    ├── OptionError             exit 3   a part that cannot work with an option's value
    ├── SetupError              exit 4   the machine, its packages, its data
    │   ├── MissingExtra        exit 4   an optional dependency that is not installed
    │   ├── DataError           exit 4   images that are missing, too few, unreadable
    │   └── Unanswered          exit 4   another process of the same run that has ended
    ├── CheckpointError         exit 5   a run folder that cannot be continued or read
    └── Diverged                exit 6   training left the finite numbers

`SpecError`, `OptionError` and `DataError` are `ValueError`s too, and can be caught as such.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "CheckpointError",
    "DataError",
    "Diverged",
    "GankitError",
    "MissingExtra",
    "OptionError",
    "PartError",
    "Place",
    "Problem",
    "SetupError",
    "SpecError",
    "Unanswered",
    "UsageError",
    "choices",
    "nearest",
]


@dataclass(frozen=True, order=True)
class Place:
    """Where in a text something stands: line and column count from 1, width in characters."""

    line: int
    column: int
    width: int = 1
    source: str = ""
    """The whole source line, without its newline."""
    name: str = ""
    """What to call the text: a file's path, or `--set`."""

    def render(self) -> str:
        """The `--> file:line:col` block with the source line and a caret under the place."""
        gutter = " " * len(str(self.line))
        line, column, width = clip(self.source, self.column, self.width)
        # A tab before the caret is kept, so that the caret stands where the terminal puts the text.
        lead = "".join("\t" if c == "\t" else " " for c in line[: column - 1])
        return (
            f"{gutter} --> {self.name}:{self.line}:{self.column}\n"
            f"{self.line} | {line}\n"
            f"{gutter} | {lead}{'^' * max(1, width)}"
        )


def clip(source: str, column: int, width: int, limit: int = 120) -> tuple[str, int, int]:
    """A window of at most `limit` characters of `source` around a place, and the place in it."""
    start = max(0, column - 1 - limit // 2) if len(source) > limit else 0
    window = source[start : start + limit]
    column -= start
    return window, column, min(width, max(1, len(window) - column + 1))


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what could be done about it."""

    message: str
    place: Place | None = None
    hint: str = ""

    def render(self) -> str:
        """The problem as people read it: message, place, source line, caret and hint."""
        if self.place is None:
            return f"error: {self.message}" + (f"\n  {self.hint}" if self.hint else "")
        shown = self.place.render()
        return f"error: {self.message}\n{shown}" + (f" {self.hint}" if self.hint else "")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word closest to `word`, if one is close enough to be meant."""
    folded = {k.lower().replace("-", "_"): k for k in known}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def choices(word: str, known: Iterable[str]) -> str:
    """`did you mean "x"? available: a, b, c`."""
    names = sorted(known)
    close = nearest(word, names)
    lead = f'did you mean "{close}"? ' if close else ""
    return f"{lead}available: {', '.join(names)}" if names else "there are none"


class GankitError(Exception):
    """The root of every error that gankit raises on purpose."""

    exit_code = 1


class UsageError(GankitError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class SpecError(GankitError, ValueError):
    """A spec cannot be built; `problems` holds every reason, in the order of the text."""

    exit_code = 3

    def __init__(self, problems: Sequence[Problem] | Problem | str) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n\n".join(p.render() for p in self.problems))


class PartError(SpecError):
    """A part breaks the contract of its kind; raised when it is declared or first used."""


class OptionError(GankitError, ValueError):
    """A part cannot work with the value of one of its options.

    By hand it is a `ValueError`; the build shows it at the option's place in the spec.
    """

    exit_code = 3

    stage: int | None = None
    """Which of a network's stages raised it, counted from 0; the network notes it."""

    def __init__(self, option: str, message: str, index: int | None = None) -> None:
        self.option = option
        self.index = index
        """Which entry of the value it is about, where the value is a list."""
        super().__init__(message)


class SetupError(GankitError):
    """The machine lacks something: a device, a package, a file, a free run folder."""

    exit_code = 4


class MissingExtra(SetupError):
    """An optional dependency is needed and absent."""

    def __init__(self, what: str, extra: str) -> None:
        self.extra = extra
        super().__init__(
            f"{what} needs a package that is not installed\n  pip install 'gankit[{extra}]'"
        )


class DataError(SetupError, ValueError):
    """The data is missing, too small, or cannot be read."""


class Unanswered(SetupError):
    """Another of the processes that train together has ended, or does not answer."""

    def __init__(self, error: Exception) -> None:
        # What the library says, without the place in its source and without its guesses.
        said = re.sub(r"^\[\S+\] ", "", str(error)).partition("\n")[0].partition(". ")[0]
        super().__init__(f"another process has ended or does not answer: {said}")


class CheckpointError(GankitError):
    """A run folder or checkpoint cannot be continued or read."""

    exit_code = 5


@dataclass
class Diverged(GankitError):
    """Training produced a number that is not finite."""

    player: str
    step: int
    what: str = "loss"
    layer: str = ""
    """Where it came from, as far as that is known."""
    rollbacks: int = 0
    """How often the run had gone back to its last good state before."""

    exit_code = 6

    def __str__(self) -> str:
        where = f", first in {self.layer}" if self.layer else ""
        plural = "" if self.rollbacks == 1 else "s"
        times = f" (after {self.rollbacks} rollback{plural})" if self.rollbacks else ""
        return (
            f"{self.player}'s {self.what} is not finite at step {self.step}{where}{times}"
            "\n  a smaller learning rate, spectral norm on both networks or a gradient penalty"
            " usually helps"
        )
