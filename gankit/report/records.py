"""What a run folder holds, read as it stands: while it is written to, cut short, or incomplete."""

from __future__ import annotations

import json
import math
import re
import tomllib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gankit.errors import SetupError, UsageError

__all__ = ["Addition", "Checkpoint", "Numbers", "Run", "Series", "additions"]

LARGEST = float(np.finfo(np.float32).max)
"""Beyond this no tensor of ours goes, and no axis need."""


@dataclass(frozen=True)
class Series:
    """One number over the steps at which it was logged, in their order."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]
    """Not-a-number wherever the log has something that is not finite."""

    @cached_property
    def finite(self) -> Series:
        """The entries that can be drawn."""
        drawn = np.isfinite(self.values)
        return Series(self.steps[drawn], self.values[drawn])


@dataclass(frozen=True)
class Numbers:
    """Every number of a file of JSON lines, by name, in the order of first appearance."""

    series: Mapping[str, Series]
    damaged: int = 0
    """Lines that are no record: cut short, or of something else."""

    def moments(self, most: int) -> NDArray[np.float64]:
        """At most so many of the steps, evenly spread, the last among them."""
        places = np.linspace(0, len(self.steps) - 1, min(most, len(self.steps))).round()
        return self.steps[places.astype(int)]

    def extremes(self) -> NDArray[np.float64]:
        """The steps at which a number is least, greatest, or not finite for the first time."""
        found = []
        for series in self.series.values():
            finite = series.finite
            if len(finite.values):
                found += [
                    finite.steps[finite.values.argmin()],
                    finite.steps[finite.values.argmax()],
                ]
            found += list(series.steps[~np.isfinite(series.values)][:1])
        return np.unique(found)

    def at(self, step: float) -> dict[str, float]:
        """Each number as it was logged last at a step or before."""
        places = {
            name: int(np.searchsorted(series.steps, step, side="right")) - 1
            for name, series in self.series.items()
        }
        return {n: float(self.series[n].values[place]) for n, place in places.items() if place >= 0}

    @cached_property
    def steps(self) -> NDArray[np.float64]:
        """Every step at which something was logged."""
        found = [series.steps for series in self.series.values()]
        return np.unique(np.concatenate(found)) if found else np.empty(0)

    @property
    def last(self) -> int:
        """The last of them; 0 before there is one."""
        return int(self.steps[-1]) if len(self.steps) else 0


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder, by its name and its files; none of them is opened."""

    step: int
    files: int
    size: int


@dataclass(frozen=True)
class Addition:
    """A key that the resolved spec has otherwise than the file that was given."""

    key: str
    value: str | None
    """None where the key is gone."""
    given: str | None
    """What the file had there; None where it had nothing."""


class Run:
    """The files of a run folder.

    Raises:
        UsageError: there is no run here.
        SetupError: a file that is there cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        resolved = self._text("resolved.toml")
        if resolved is None:
            raise UsageError(f"{path} is no run folder: it has no resolved.toml")
        self.resolved = resolved
        self.given = self._text("spec.toml")
        self.tables = _toml(resolved) or {}
        status = _json(self._text("status.json"))
        self.status: dict[str, Any] = status if isinstance(status, dict) else {}
        starts = _json(self._text("env.json"))
        starts = starts if isinstance(starts, list) else [starts]
        self.starts: list[dict[str, Any]] = [start for start in starts if isinstance(start, dict)]
        self.metrics = self._numbers("metrics.jsonl")
        self.timing = self._numbers("timing.jsonl")

    @property
    def name(self) -> str:
        """The spec's name, or the folder's."""
        return str(self.tables.get("name") or self.folder)

    @property
    def folder(self) -> str:
        """The folder's own name: a page that is passed on need not tell where it was made."""
        return self.path.resolve().name

    @property
    def train(self) -> dict[str, Any]:
        """The table [train]."""
        table = self.tables.get("train")
        return table if isinstance(table, dict) else {}

    def additions(self) -> list[Addition]:
        """What the resolved spec says beyond the file as it was given."""
        given = _toml(self.given or "")
        if given is None or not self.tables:
            return []
        records = ("paths", "providers")
        tables = {name: table for name, table in self.tables.items() if name not in records}
        for name in records:
            given.pop(name, None)
        return list(additions(given, tables))

    @property
    def paths(self) -> dict[str, str]:
        """The fast paths: `taken`, or why not."""
        table = self.tables.get("paths")
        return {str(k): str(v) for k, v in table.items()} if isinstance(table, dict) else {}

    def written(self) -> datetime | None:
        """When the run last wrote down where it stands."""
        files = [self.path / name for name in ("status.json", "metrics.jsonl", "resolved.toml")]
        times = [file.stat().st_mtime for file in files if file.exists()]
        return datetime.fromtimestamp(max(times), UTC) if times else None

    def pictures(self) -> list[tuple[int, Path]]:
        """The sample grids by their step."""
        found = _numbered(self.path / "samples", r"step_(\d+)\.png")
        return [(step, path) for step, path in found if path.is_file()]

    def scores(self) -> list[tuple[int, Path]]:
        """The files of scores by their step."""
        from gankit.evaluate import files_of

        return files_of(self.path)

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints by their step."""
        found = []
        for step, path in _numbered(self.path / "checkpoints", r"step_(\d+)"):
            # A run that goes on removes the oldest while this is read.
            sizes = [size for file in path.glob("*") if (size := _size(file)) is not None]
            if sizes:
                found.append(Checkpoint(step, len(sizes), sum(sizes)))
        return found

    def _text(self, name: str) -> str | None:
        file = self.path / name
        try:
            return file.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SetupError(f"cannot read {file}: {error.strerror}") from error

    def _numbers(self, name: str) -> Numbers:
        file = self.path / name
        try:
            with file.open("r", encoding="utf-8", errors="replace") as lines:
                return _numbers(lines)
        except FileNotFoundError:
            return Numbers({})
        except OSError as error:
            raise SetupError(f"cannot read {file}: {error.strerror}") from error


def _numbers(lines: Iterator[str]) -> Numbers:
    steps: dict[str, array[float]] = {}
    values: dict[str, array[float]] = {}
    damaged = 0
    for line in lines:
        try:
            record = json.loads(line)
            step = float(record.pop("step"))
            entries = [(name, _float(value)) for name, value in record.items()]
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError):
            damaged += bool(line.strip())
            continue
        if not 0 <= step < 2**53:
            damaged += 1
            continue
        for name, value in entries:
            if value is not None:
                steps.setdefault(name, array("d")).append(step)
                values.setdefault(name, array("d")).append(value)
    return Numbers({name: _ordered(steps[name], values[name]) for name in steps}, damaged)


def _float(value: object) -> float | None:
    """A number, not-a-number for what is not finite, or None for what is none."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= LARGEST else math.nan


def _ordered(steps: array[float], values: array[float]) -> Series:
    """By step; of a step that was taken twice, the later."""
    x, y = np.array(steps), np.array(values)
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    kept = np.append(x[1:] != x[:-1], True)
    return Series(x[kept], y[kept])


def _toml(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return None


def _json(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except (ValueError, RecursionError):
        return None


def _numbered(folder: Path, pattern: str) -> list[tuple[int, Path]]:
    paths = folder.iterdir() if folder.is_dir() else []
    found = [(re.fullmatch(pattern, path.name, re.ASCII), path) for path in paths]
    return sorted((int(match[1][:18]), path) for match, path in found if match)


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


# --- how the resolved spec differs from the file

_NOTHING = object()


def additions(given: Any, resolved: Any, key: str = "") -> Iterator[Addition]:
    """Key by key, what `resolved` has otherwise; `"x"` is as good as `{ use = "x" }`."""
    given, resolved = _alike(given, resolved), _alike(resolved, given)
    if isinstance(given, dict) and isinstance(resolved, dict):
        for name in [*resolved, *(name for name in given if name not in resolved)]:
            inner = f"{key}.{name}" if key else name
            yield from additions(given.get(name, _NOTHING), resolved.get(name, _NOTHING), inner)
    elif isinstance(given, list) and isinstance(resolved, list) and len(given) == len(resolved):
        for index, (one, other) in enumerate(zip(given, resolved, strict=True)):
            yield from additions(one, other, f"{key}[{index}]")
    elif resolved is _NOTHING:
        if given not in ([], "none"):
            yield Addition(key, None, _shown(given))
    elif given != resolved:
        yield Addition(key, _shown(resolved), None if given is _NOTHING else _shown(given))


def _alike(value: Any, other: Any) -> Any:
    """A value in the form of the other, where that is only a longer way to write it."""
    if isinstance(other, dict):
        if value is _NOTHING:
            return {}
        if isinstance(value, str):
            return {"file" if "file" in other else "use": value}
    if isinstance(other, list) and value is not _NOTHING and not isinstance(value, list):
        return [value]
    return value


def _shown(value: Any) -> str:
    """A value about as TOML has it."""
    if isinstance(value, dict):
        inner = ", ".join(f"{name} = {_shown(item)}" for name, item in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return json.dumps(value, ensure_ascii=False, default=str)
