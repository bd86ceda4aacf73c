"""`gankit import`: a checkpoint of another library becomes a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gankit.cli.common import Plugins, Set, Threads, load_spec, pick_device, tell

__all__ = ["convert"]


def convert(
    library: Annotated[
        str, typer.Argument(metavar="biggan-pytorch|mimicry|studiogan", help="Whose checkpoint.")
    ],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="One of its files, or the folder they are in.")
    ],
    spec: Annotated[
        str, typer.Option(metavar="SPEC", help="A spec or recipe of the same networks.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The run folder to be made.")],
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Leave D as the spec starts it, and read G alone.")
    ] = False,
    overrides: Set = None,
    threads: Threads = 0,
    plugin: Plugins = None,
) -> None:
    """Make a run folder of another library's checkpoint, after comparing what they give."""
    checked = load_spec(spec, overrides, plugin)
    from gankit.convert import LIMIT
    from gankit.convert import convert as make

    pick_device("cpu", threads)
    made = make(library, file, checked, out, fresh=fresh, tell=tell)
    for network, difference in made.differences.items():
        tell(f"{network}: outputs differ by {difference:.1e} of the largest; at most {LIMIT:.0e}")
    tell(f"step {made.step:,} of {checked.train.steps:,}, without the optimizers' state")
    print(made.folder)
