"""`gankit train`: a spec becomes a run folder."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gankit.cli.common import Device, Plugins, Set, SpecName, Threads, load_spec, pick_device, tell

__all__ = ["train"]

Watch = Callable[[int, Mapping[str, float], float], None]


def train(
    spec: SpecName,
    overrides: Set = None,
    run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run folder; runs/NAME-HASH by default.")
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
    plugin: Plugins = None,
) -> None:
    """Train a spec; the same command continues a run that was stopped."""
    checked = load_spec(spec, overrides, plugin)
    from gankit.train import run as run_training

    folder = run or Path("runs") / f"{checked.name}-{checked.hash[:8]}"
    where = pick_device(device, threads)
    tell(f"{checked.name} in {folder} on {where}")
    with _progress(checked.train.steps) as watch:
        outcome = run_training(checked, folder, where, watch=watch, tell=tell)
    if outcome.finished:
        if outcome.picture:
            tell(f"samples: {outcome.picture}")
        tell(f"next: gankit sample {_quoted(folder)} -n 64 --seed 1 --out grid.png")
    else:
        tell("the same command continues")
        raise typer.Exit(130 if outcome.signal == signal.SIGINT else 75)


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))


@contextmanager
def _progress(steps: int) -> Iterator[Watch]:
    """A live bar on a terminal, a line per log elsewhere."""
    if not sys.stderr.isatty():
        yield lambda step, numbers, speed: tell(
            f"step {step:,}/{steps:,}  {speed:.0f} images/s  {_shown(numbers)}"
        )
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
    ) as progress:
        task = progress.add_task("warming up", total=steps)
        yield lambda step, numbers, speed: progress.update(
            task, completed=step, description=f"{speed:.0f} images/s  {_shown(numbers)}"
        )


def _shown(numbers: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {number:.3f}" for name, number in numbers.items())
