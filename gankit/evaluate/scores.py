"""Scores with the card of how they were made, on disk and beside one another."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gankit.errors import DataError
from gankit.evaluate.card import Card, Difference

__all__ = ["Compared", "Scores", "compared", "file_of", "files_of", "read", "write"]

STEP = re.compile(r"step_(\d+)\.json", re.ASCII)

MOST = 1e300
"""Beyond it no score is read; what is not a number, or infinite, is not below it."""


@dataclass(frozen=True)
class Scores:
    """What was measured of one set of images, and how."""

    values: Mapping[str, float]
    """By the names that metrics give them."""
    of: Mapping[str, str]
    """Which metric gave each."""
    better: Mapping[str, str]
    """`lower` or `higher`, for those of which one can say so."""
    card: Card
    notes: Sequence[str] = field(default=())
    """What whoever reads the scores should know of them."""
    floor: Mapping[str, float] = field(default_factory=dict)
    """The scores of real images against other real ones, where that was asked for."""

    def json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "scores": dict(self.values),
            "of": dict(self.of),
            "better": dict(self.better),
            "card": dict(self.card.lines),
            "notes": list(self.notes),
            "floor": dict(self.floor),
        }


def file_of(run: Path, step: int) -> Path:
    """Where a run keeps the scores of a step."""
    return run / "eval" / f"step_{step:07d}.json"


def files_of(run: Path) -> list[tuple[int, Path]]:
    """The files of scores in a run's folder, by their steps."""
    found = [(STEP.fullmatch(file.name), file) for file in (run / "eval").glob("step_*.json")]
    return sorted((int(match[1][:18]), file) for match, file in found if match and file.is_file())


def write(file: Path, scores: Scores) -> None:
    """Add scores to a file; those of the same card replace what it had of them."""
    kept = [old for old in read(file) if old.card != scores.card] if file.exists() else []
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.tmp")
    text = json.dumps([each.json() for each in (*kept, scores)], indent=1)
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(file)


def read(file: Path) -> list[Scores]:
    """The scores in a file, in the order in which they were made.

    Raises:
        DataError: it cannot be read, or holds none.
    """
    try:
        found = [_read(each) for each in json.loads(file.read_text(encoding="utf-8"))]
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file} holds no scores of gankit eval") from error
    if not found:
        raise DataError(f"{file} holds no scores")
    return found


def _read(told: Any) -> Scores:
    """Scores from plain values, which anybody may have written.

    Raises:
        ValueError: they are not what `Scores.json` gives; or LookupError, TypeError, ...
    """
    values, notes, floor = dict(told["scores"]), list(told["notes"]), dict(told["floor"])
    of, better, lines = dict(told["of"]), dict(told["better"]), dict(told["card"])
    texts = [*values, *notes, *floor]
    for table in (of, better, lines):
        texts += [*table, *table.values()]
    if not all(type(text) is str for text in texts):
        raise ValueError("names and lines are text")
    numbers = [*values.values(), *floor.values()]
    if not all(type(value) in (int, float) and abs(value) < MOST for value in numbers):
        raise ValueError("scores are numbers")
    if values.keys() - of.keys() or set(better.values()) - {"lower", "higher"}:
        raise ValueError("every score is some metric's; lower or higher is better")
    finite = {name: float(value) for name, value in values.items()}
    least = {name: float(value) for name, value in floor.items()}
    return Scores(finite, of, better, Card(lines), tuple(notes), least)


@dataclass(frozen=True)
class Compared:
    """One score of two sets of images, or why the two do not compare."""

    name: str
    one: float
    other: float
    better: str
    """`lower`, `higher`, or nothing where one cannot say."""
    unlike: Sequence[Difference]
    protocol: Mapping[str, str]
    """The lines that both cards have: how the score was made, twice."""

    @property
    def verdict(self) -> str:
        """Which is better: `one`, `other`, or nothing."""
        if self.unlike or not self.better or self.one == self.other:
            return ""
        return "one" if (self.one < self.other) == (self.better == "lower") else "other"


def compared(
    ones: Sequence[Scores], others: Sequence[Scores], allow: Sequence[str] = ()
) -> Iterator[Compared]:
    """Every score that both have: of what compares the newest, or else of all.

    Lines of the card in `allow` may differ.
    """
    names = dict.fromkeys(name for scores in ones for name in scores.values)
    for name in names:
        pairs = [
            _pair(name, one, other, allow)
            for one in reversed(ones)
            for other in reversed(others)
            if name in one.values and name in other.values
        ]
        if pairs:
            yield next((pair for pair in pairs if not pair.unlike), pairs[0])


def _pair(name: str, one: Scores, other: Scores, allow: Sequence[str]) -> Compared:
    differences = one.card.differences(other.card, one.of[name])
    unlike = [each for each in differences if each.line not in allow]
    better = one.better.get(name, "")
    mine, its = one.card.protocol(one.of[name]), other.card.protocol(one.of[name])
    protocol = {line: text for line, text in mine.items() if its.get(line) == text}
    return Compared(name, one.values[name], other.values[name], better, unlike, protocol)
