"""`gankit build`: what a spec amounts to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gankit.cli.common import Plugins, Set, SpecName, load_spec, tell
from gankit.errors import SetupError

if TYPE_CHECKING:
    from gankit.train.plan import NetworkPlan, Plan

__all__ = ["build"]


def build(
    spec: SpecName,
    overrides: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    expand: Annotated[
        bool, typer.Option("--expand", help="Print the spec with each network as its stages.")
    ] = False,
    resolved: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the spec with every default to a file."),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Check a spec and show the networks it describes; needs no data and trains nothing."""
    checked = load_spec(spec, overrides, plugin)
    from gankit.paths import resolved as as_resolved
    from gankit.spec import dumps
    from gankit.train import plan as planning

    if resolved is not None:
        try:
            resolved.write_text(as_resolved(checked), encoding="utf-8")
        except OSError as error:
            raise SetupError(f"cannot write {resolved}: {error.strerror}") from error
        tell(f"wrote {resolved}")
    if expand:
        sys.stdout.write(dumps(planning.expand(checked)))
        return
    plan = planning.plan(checked)
    if as_json:
        print(json.dumps(plan.json()))
    else:
        _print(plan)


def _print(plan: Plan) -> None:
    from rich.console import Console

    # Piped, a table is as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    spec = plan.spec
    console.print(f"[bold]{spec.name}[/bold]  {spec.hash[:8]}")
    for title, network in (("generator", plan.generator), ("discriminator", plan.discriminator)):
        console.print(_table(title, network))
    turns = ", ".join(f"{count:,} of {player}" for player, count in plan.turns.items())
    console.print(
        f"{spec.train.steps:,} steps: turns {turns}; {plan.images:,} real images shown to D"
    )
    for choice in plan.choices:
        console.print(choice)
    memory = "not known, a part looks at values"
    if plan.memory is not None:
        memory = f"about {_size(plan.memory)}"
    console.print(f"peak memory of a training step at batch {spec.train.batch}: {memory}")


def _table(title: str, network: NetworkPlan) -> object:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=f"{title}: {network.use}",
        title_justify="left",
        box=SIMPLE_HEAD,
        show_footer=True,
        pad_edge=False,
    )
    table.add_column("stage", "total", no_wrap=True)
    table.add_column("output", _shape(network.output), no_wrap=True)
    table.add_column("parameters", f"{network.parameters:,}", justify="right", no_wrap=True)
    table.add_column("MACs", f"{network.macs:,}", justify="right", no_wrap=True)
    table.add_column("norm", no_wrap=True)
    table.add_column("attention", no_wrap=True)
    for stage in network.stages:
        table.add_row(
            stage.name,
            _shape(stage.output),
            f"{stage.parameters:,}",
            f"{stage.macs:,}",
            stage.norm,
            stage.attention,
        )
    return table


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _size(count: int) -> str:
    """Bytes as people read them, in powers of 1024."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"
