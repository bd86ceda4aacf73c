"""What a report says of a run, ready for its page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gankit import __version__
from gankit.report.pictures import pictures
from gankit.report.plots import Panel, draw, panels
from gankit.report.records import Numbers, Run
from gankit.report.scores import Scored, newest, score_names, score_panels, score_title, scored

__all__ = ["FORMATS", "Tile", "Warned", "facts"]

STATES = {
    "unknown": "There is no status.json that says where the run stands.",
    "finished": "All steps are taken.",
    "running": "If nothing is training in this folder any more, the process was killed; the same"
    " command goes on from the newest checkpoint.",
    "stopped": "Stopped and saved; the same command goes on.",
    "diverged": "Training left the finite numbers. What was saved before stays.",
    "failed": "An error ended it. What was saved before stays.",
}
MOMENTS = 1000
"""How often health is looked at, of a long run: evenly spread, the last log among them."""

MOST_TILES = 8
"""Of scores."""

TOLD = ("state", "step", "steps", "reason")
"""What `status.json` says that has a place of its own in the page."""


@dataclass(frozen=True)
class Tile:
    """A number that matters."""

    label: str
    value: str
    note: str = ""


def facts(run: Run) -> dict[str, Any]:
    """Everything that the page's template names."""
    state, step, steps = _state(run)
    found = run.pictures()
    shown = pictures(found)
    series = {**run.metrics.series, **run.timing.series}
    scores, unread = scored(run)
    names = set(score_names(scores, run.metrics.series))
    drawn = panels({n: s for n, s in series.items() if n not in names}, _uses(run, "penalty"))
    drawn_scores = score_panels({n: s for n, s in series.items() if n in names})
    last = max(run.metrics.last, run.timing.last)
    return {
        "version": __version__,
        "name": run.name,
        "folder": run.folder,
        "about": _about(run),
        "state": state,
        "meaning": STATES.get(state, ""),
        "reason": str(run.status.get("reason") or ""),
        "step": step,
        "steps": steps,
        "written": written.strftime("%Y-%m-%d %H:%M UTC") if (written := run.written()) else "",
        "tiles": _tiles(run, state, step, steps) + _score_tiles(scores, run.metrics, names),
        "warnings": _warnings(run.metrics),
        "pictures": shown,
        "pictures_there": len(found),
        "panels": _drawn(drawn, last),
        "score_panels": _drawn(drawn_scores, last, len(drawn)),
        "scores": newest(scores),
        "scores_unread": unread,
        "ranges": _ranges(run),
        "damaged": {"metrics.jsonl": run.metrics.damaged, "timing.jsonl": run.timing.damaged},
        "given": run.given,
        "resolved": run.resolved,
        "additions": run.additions(),
        "paths": run.paths,
        "starts": run.starts,
        "changes": [_changes(*pair) for pair in zip(run.starts, run.starts[1:], strict=False)],
        "checkpoints": run.checkpoints(),
    }


def _state(run: Run) -> tuple[str, int | None, int | None]:
    """The state, the step and the number of steps, from whatever file tells."""
    state = str(run.status.get("state") or "unknown")
    step, steps = _whole(run.status.get("step")), _whole(run.status.get("steps"))
    if run.metrics.series and (step is None or state == "running"):
        # The status is written when the state changes, the metrics all along.
        step = max(step or 0, run.metrics.last)
    return state, step, _whole(run.train.get("steps")) if steps is None else steps


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 2**53 else None


def _about(run: Run) -> str:
    """In a line, what is trained on what."""
    sections = {
        " against ": ("generator", "discriminator"),
        " on ": ("data",),
        ", ": ("loss", "penalty", "schedule"),
    }
    text = ""
    for word, names in sections.items():
        for use in [use for name in names for use in _uses(run, name)]:
            text += (word if text else "") + use
    return text


def _uses(run: Run, section: str) -> list[str]:
    """What the parts in a section are called."""
    tables = run.tables.get(section)
    tables = tables if isinstance(tables, list) else [tables]
    return [
        str(table.get("as", table["use"]))
        for table in tables
        if isinstance(table, dict) and "use" in table
    ]


def _tiles(run: Run, state: str, step: int | None, steps: int | None) -> list[Tile]:
    tiles = []
    if step is not None:
        tiles.append(Tile("Steps", _count(step), f"of {_count(steps)}" if steps else ""))
    speeds = run.timing.series.get("images_per_second")
    batch = _whole(run.train.get("batch"))
    if speeds is not None and len(good := speeds.values[speeds.values > 0]):
        speed = float(np.median(good))
        tiles.append(Tile("Images per second", _number(speed), f"median; last {_number(good[-1])}"))
        if batch:
            taken = np.diff(speeds.steps, prepend=0)[speeds.values > 0]
            seconds = float((taken * batch / good).sum())
            tiles.append(Tile("Time in steps", _span(seconds), "without samples and checkpoints"))
            if state == "running" and steps and step is not None and step < steps:
                left = (steps - step) * batch / speed
                tiles.append(Tile("To go", f"about {_span(left)}", "at the median speed"))
    for key, value in run.status.items():
        if key not in TOLD:
            tiles.append(Tile(key.replace("_", " ").capitalize(), _plain(value)))
    return tiles


def _score_tiles(scores: list[Scored], logged: Numbers, names: set[str]) -> list[Tile]:
    """The newest scores of which one can say which is better; without files, those of the log."""
    tiles: dict[str, Tile] = {}
    for one in reversed(newest(scores)):
        for row in one.rows:
            if row.better:
                note = f"{row.better} is better; step {_count(one.step)}"
                tiles[row.name] = Tile(score_title(row.name), _number(row.value), note)
    if not scores:
        for name in logged.series:
            if name in names and "/" not in name:
                series = logged.series[name]
                note = f"step {_count(int(series.steps[-1]))}"
                tiles[name] = Tile(score_title(name), _number(float(series.values[-1])), note)
    return list(tiles.values())[:MOST_TILES]


@dataclass(frozen=True)
class Warned:
    """A line of health that a number has crossed."""

    text: str
    """As of the last time."""
    first: int
    last: int
    share: float
    """Of the run; 0 where it was only for moments."""
    still: bool
    """Whether it is crossed at the end."""


def _warnings(numbers: Numbers) -> list[Warned]:
    """The lines of health that numbers cross, those that are crossed at the end first."""
    if not numbers.series:
        return []
    # With the trainer it brings torch, which nothing else here needs.
    from gankit.train.health import crossed

    spread = set(numbers.moments(MOMENTS).tolist())
    texts: dict[str, str] = {}
    steps: dict[str, list[float]] = {}
    # Whoever crosses a line at all crosses it at an extreme.
    for step in sorted(spread | set(numbers.extremes().tolist())):
        for name, text in crossed(numbers.at(step)).items():
            texts[name] = text
            steps.setdefault(name, []).append(step)
    found = []
    for name, text in texts.items():
        first, last = int(steps[name][0]), int(steps[name][-1])
        share = len(spread & set(steps[name])) / len(spread)
        found.append(Warned(text, first, last, share, last == numbers.last))
    return sorted(found, key=lambda warned: (not warned.still, -warned.share))


def _limits() -> dict[str, list[float]]:
    """Where trouble begins, by the monitor's name."""
    from gankit.train.health import LINES

    limits: dict[str, list[float]] = {}
    for line in LINES:
        limits.setdefault(line.monitor, []).extend([line.above, line.below])
    return limits


def _drawn(found: list[Panel], last: int, first: int = 0) -> list[dict[str, Any]]:
    """Panels with their drawings, whose numbers begin at `first`: ids in a page are its own."""
    from markupsafe import Markup

    limits = _limits() if found else {}
    drawn = []
    for index, panel in enumerate(found, first):
        finite = any(len(line.series.finite.values) for line in panel.lines)
        # Safe: there are no words in it, see `draw`.
        svg = Markup(draw(panel, index, last, limits.get(panel.key, ()))) if finite else ""
        drawn.append({"panel": panel, "svg": svg})
    return drawn


def _ranges(run: Run) -> list[tuple[str, float, float, float]]:
    """Of each number the last, the least and the greatest; not-a-number where none is finite."""
    found = []
    for name, series in [*run.metrics.series.items(), *run.timing.series.items()]:
        finite = series.finite.values
        low, high = (finite.min(), finite.max()) if len(finite) else (math.nan, math.nan)
        found.append((name, float(series.values[-1]), float(low), float(high)))
    return found


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What a start of a run has otherwise than the one before it."""
    keys = [*before, *(key for key in after if key not in before)]
    return [
        (key, _plain(before.get(key)), _plain(after.get(key)))
        for key in keys
        if before.get(key) != after.get(key)
    ]


# --- how values are written


def _count(number: int) -> str:
    return f"{number:,}"


def _number(number: float, digits: int = 4) -> str:
    """A few digits, as people write them."""
    if not math.isfinite(number):
        return "not finite"
    sign, size = "−" if number < 0 else "", abs(number)
    large = 1000 <= size < 1e9
    return sign + (f"{size:,.0f}" if large else f"{size:.{digits}g}")


def _size(count: int) -> str:
    """Bytes, in powers of 1024."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _span(seconds: float) -> str:
    """A time in its two largest units."""
    if not math.isfinite(seconds):
        return "not known"
    whole = round(seconds)
    units = (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))
    for unit, size, smaller, part in units:
        if whole >= size:
            return f"{whole // size:,} {unit} {whole % size // part} {smaller}"
    return f"{whole} s"


def _plain(value: object) -> str:
    """A value of a JSON file as people read it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


FORMATS: dict[str, Callable[..., str]] = {
    "count": _count,
    "number": _number,
    "plain": _plain,
    "size": _size,
}
"""The page's filters."""
