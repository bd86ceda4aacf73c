"""`gankit train`: a spec becomes a run folder."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from gankit.cli.common import Device, Plugins, Set, SpecName, Threads, load_spec, pick_device, tell
from gankit.errors import UsageError

__all__ = ["seeds_of", "train"]

Watch = Callable[[int, Mapping[str, float], float], None]


def train(
    spec: SpecName,
    overrides: Set = None,
    run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run folder; runs/NAME-HASH by default.")
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
    processes: Annotated[
        int, typer.Option(metavar="N", help="Train in N processes of this machine.")
    ] = 1,
    seeds: Annotated[
        str,
        typer.Option(
            metavar="0-9|0,3,4", help="A run for each seed; dense networks are trained together."
        ),
    ] = "",
    plugin: Plugins = None,
) -> None:
    """Train a spec; the same command continues a run that was stopped."""
    if processes < 1:
        raise UsageError(f"--processes takes a number of processes, not {processes}")
    if seeds:
        if run is not None or processes > 1:
            raise UsageError("--seeds makes a run of each: leave out --run and --processes")
        _train_seeds(spec, seeds_of(seeds), overrides, device, threads, plugin)
        return
    checked = load_spec(spec, overrides, plugin)
    from gankit.train import run as run_training
    from gankit.train.processes import launch, launched

    if processes > 1 and not launched():
        options = {"--set": overrides, "--plugin": plugin, "--run": [run] if run else None}
        listed = [
            str(word) for name, given in options.items() for v in given or () for word in (name, v)
        ]
        same = ["--device", device, "--threads", str(threads)]
        raise typer.Exit(launch(processes, ["train", spec, *listed, *same]))
    folder = run or Path("runs") / f"{checked.name}-{checked.hash[:8]}"
    where = pick_device(device, threads)
    first = os.environ.get("RANK", "0") == "0"
    say = tell if first else _silent
    together = f" with {os.environ['WORLD_SIZE']} processes" if launched() else ""
    say(f"{checked.name} in {folder} on {where}{together}")
    with _progress(checked.train.steps) if first else nullcontext(_silent) as watch:
        outcome = run_training(checked, folder, where, watch=watch, tell=say)
    if outcome.finished:
        if outcome.picture:
            say(f"samples: {outcome.picture}")
        say(f"next: gankit sample {_quoted(folder)} --seed 1 --out grid.png")
    else:
        say("the same command continues")
        raise typer.Exit(130 if outcome.signal == signal.SIGINT else 75)


def _train_seeds(
    name: str,
    seeds: list[int],
    overrides: list[str] | None,
    device: str,
    threads: int,
    plugin: list[Path] | None,
) -> None:
    """Several seeds of a spec, in a run folder each."""
    specs = [load_spec(name, [*(overrides or ()), f"seed={seed}"], plugin) for seed in seeds]
    from gankit.together import train_together

    folders = [Path("runs") / f"{spec.name}-{spec.hash[:8]}" for spec in specs]
    where = pick_device(device, threads)
    for spec, folder in zip(specs, folders, strict=True):
        tell(f"seed {spec.seed}: {spec.name} in {folder} on {where}")
    with _progress(specs[0].train.steps) as watch:
        outcomes = train_together(specs, folders, where, watch=watch, tell=tell)
    if not all(outcome.finished for outcome in outcomes):
        tell("the same command continues")
        stopped_by = next((each.signal for each in outcomes if each.signal), None)
        raise typer.Exit(130 if stopped_by == signal.SIGINT else 75)
    for folder in folders:
        tell(f"next: gankit eval {_quoted(folder)}")


def seeds_of(text: str) -> list[int]:
    """The seeds of `0-9` or `0,3,4`."""
    found = re.fullmatch(r"(\d+)-(\d+)|\d+(,\d+)*", text.replace(" ", ""))
    if found is None:
        raise UsageError(f"--seeds takes numbers, such as 0-9 or 0,3,4, not {text!r}")
    if found[1] is not None:
        seeds = [*range(int(found[1]), int(found[2]) + 1)]
    else:
        seeds = [int(word) for word in text.split(",")]
    if not seeds or len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {text} names no seed, or one twice")
    return seeds


def _silent(*args: object) -> None:
    """What all processes but the first say."""


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
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    # What is told comes first: on a narrow terminal there is no room for a bar.
    columns: list[ProgressColumn] = [
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.description}"),
    ]
    if console.width > 100:
        columns.insert(0, BarColumn(bar_width=console.width - 90))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("warming up", total=steps)
        yield lambda step, numbers, speed: progress.update(
            task, completed=step, description=f"{speed:,.0f} images/s  {_shown(numbers)}"
        )


def _shown(numbers: Mapping[str, float]) -> str:
    """What tells at a glance how the two players stand; the rest is in metrics.jsonl."""
    glance = {"loss_D": "D", "loss_G": "G", "D_real": "D(real)", "D_fake": "D(fake)"}
    return "  ".join(f"{w} {numbers[name]:.3f}" for name, w in glance.items() if name in numbers)
