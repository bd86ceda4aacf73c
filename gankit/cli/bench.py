"""`gankit bench`: where the time of a spec's steps goes, and what to change."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gankit.cli.common import Device, Plugins, Set, SpecName, Threads, load_spec, pick_device, tell
from gankit.cli.progress import stoppable
from gankit.errors import UsageError

if TYPE_CHECKING:
    from gankit.bench import Profile, Span

__all__ = ["bench"]


def bench(
    spec: SpecName,
    overrides: Set = None,
    device: Device = "auto",
    threads: Threads = 0,
    steps: Annotated[
        int, typer.Option(metavar="N", help="Steps to measure; 0 for some seconds of them.")
    ] = 0,
    noise: Annotated[
        bool, typer.Option("--noise", help="Measure on noise in the place of the data.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")] = False,
    plugin: Plugins = None,
) -> None:
    """Train a spec for some seconds; show its speed, where the time goes, and what to change."""
    if steps < 0:
        raise UsageError(f"--steps takes a number of steps, not {steps}")
    checked = load_spec(spec, overrides, plugin)
    where = pick_device(device, threads)
    from gankit.bench import advice, measure

    with stoppable("nothing of it is kept"):
        profile = measure(checked, where, steps=steps, noise=noise, tell=tell)
    said = advice(profile)
    if as_json:
        print(json.dumps({**profile.json(), "advice": said}))
        return
    _print(profile)
    print("\nwhat to change:" if said else "\nwhat to change: nothing stands out")
    for line in said.values():
        print(f"- {line}")


def _print(profile: Profile) -> None:
    from rich.console import Console

    # Piped, a table is as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    spec, speed = profile.spec, profile.speed
    console.print(f"[bold]{spec.name}[/bold]  {spec.hash[:8]}")
    console.print(_conditions(profile))
    if profile.instead:
        console.print(
            f"noise in the place of the data: {profile.instead}; reading data is left out",
            markup=False,
            soft_wrap=True,
        )
    console.print(_table(profile))
    spread = f"  ({_speed(speed.low)} to {_speed(speed.high)})" if profile.rounds > 1 else ""
    console.print(f"{_speed(speed.median)} images/s{spread}")
    console.print(
        f"peak memory of a training step: {_size(profile.memory)} of {_size(profile.capacity)}"
    )


def _conditions(profile: Profile) -> str:
    """What was measured, on what."""
    train = profile.spec.train
    on = profile.device
    if not profile.gpu:
        on = f"{profile.threads} of {profile.cores} cores"
    steps = profile.round * profile.rounds
    rounds = f", in rounds of {profile.round}" if profile.round > 1 else ""
    return f"{on}, {train.precision}, batch {train.batch}; {steps:,} steps{rounds}"


def _table(profile: Profile) -> object:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_footer=True, pad_edge=False)
    total = profile.step
    table.add_column("part", "step", no_wrap=True)
    table.add_column("ms a step", _ms(total.median), justify="right", no_wrap=True)
    table.add_column("quartiles", _spread(profile, total), justify="right", no_wrap=True)
    table.add_column("share", "", justify="right", no_wrap=True)
    train = profile.spec.train
    seldom = {"log": train.log, "samples": train.samples, "checkpoint": train.checkpoint}
    for name, span in profile.parts.items():
        shown = f"{name}, every {seldom[name]:,}" if name in seldom else name
        share = f"{profile.share(name):.1%}"
        table.add_row(shown, _ms(span.median), _spread(profile, span), share)
    return table


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f}"


def _spread(profile: Profile, span: Span) -> str:
    return f"{_ms(span.low)} to {_ms(span.high)}" if profile.rounds > 1 else ""


def _speed(images: float) -> str:
    return f"{images:,.0f}" if images >= 100 else f"{images:.1f}"


def _size(count: int) -> str:
    """Bytes as people read them, in powers of 1024."""
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:,.2f} GiB"
