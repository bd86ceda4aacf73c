"""How a command that works through many images says how far it is, and ends at Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from gankit.cli.common import tell

if TYPE_CHECKING:
    from gankit.datasets.packing import Watch

__all__ = ["progress", "stoppable"]


@contextmanager
def stoppable(then: str) -> Iterator[None]:
    """End in order at Ctrl-C, and say what follows."""
    try:
        yield
    except KeyboardInterrupt:
        tell(f"stopped; {then}")
        raise typer.Exit(130) from None


@contextmanager
def progress() -> Iterator[Watch]:
    """A live bar on a terminal; elsewhere a line every ten seconds, and one at the end."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description} {task.completed:,.0f}/{task.total:,.0f}"),
        BarColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[bad]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as live:
        tasks = {}

        def watch(doing: str, done: int, total: int, bad: int, /) -> None:
            if doing not in tasks:
                tasks[doing] = live.add_task(doing, total=total, bad="")
            live.update(tasks[doing], completed=done, bad=f"{bad:,} bad" if bad else "")

        yield watch


def _lines(every: float = 10.0) -> Watch:
    told = time.monotonic()
    started: dict[str, float] = {}

    def watch(doing: str, done: int, total: int, bad: int, /) -> None:
        nonlocal told
        now = time.monotonic()
        # The first time is after a piece of the work: it began when the last was told.
        start = started.setdefault(doing, told)
        if done == total or now - told >= every:
            told = now
            speed = done / max(now - start, 1e-9)
            marked = f", {bad:,} bad" if bad else ""
            tell(f"{doing} {done:,}/{total:,} images, {speed:,.0f} images/s{marked}")

    return watch
