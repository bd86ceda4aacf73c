"""`gankit report`: a run as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page; RUN/report.html by default.")
    ] = None,
) -> None:
    """Write a run's numbers, samples, curves and spec as one HTML page; the run may go on."""
    from gankit.report import write

    print(write(run, out))
