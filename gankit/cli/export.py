"""`gankit export`: a network as a file that needs no run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gankit.cli.common import Plugins, Threads, pick_device, tell
from gankit.errors import UsageError

__all__ = ["export"]


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, or one checkpoint in it.")
    ],
    to: Annotated[
        str, typer.Option(metavar="safetensors|pt2|onnx", help="The kind of file to write.")
    ],
    weights: Annotated[
        str, typer.Option(metavar="ema|generator|discriminator", help="Which network.")
    ] = "ema",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file; one in RUN/exports by default.")
    ] = None,
    threads: Threads = 0,
    plugin: Plugins = None,
) -> None:
    """Write a network as one file with a card beside it, after comparing it with the live one."""
    from gankit.export import LIMIT, format_of, of_run
    from gankit.export import export as write

    if run.is_file() and format_of(run):
        raise UsageError(f"{run} was exported already: name the run that it came from")
    live = of_run(
        run, weights, plugins=tuple(plugin or ()), device=pick_device("cpu", threads), tell=tell
    )
    made = write(live, to, out, tell=tell)
    tell(f"weights: {live.weights}, step {live.step:,}")
    tell(f"weight norms computed into the weights: {made.weight_norms}")
    tell(f"batch norms folded: {len(made.folded)} of {made.batchnorms}")
    tell(
        f"largest difference from the live {live.player}: {made.difference:.1e} of the range of"
        f" its values; at most {LIMIT:.0e} is let go"
    )
    tell(f"card: {made.card}")
    print(made.file)
