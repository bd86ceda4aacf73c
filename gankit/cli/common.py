"""Options that several commands have, and how specs are loaded for all of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gankit.errors import OptionError, SetupError, UsageError

if TYPE_CHECKING:
    import torch

    from gankit.build import GAN
    from gankit.slots import Latent
    from gankit.spec import Spec

__all__ = [
    "Device",
    "Plugins",
    "Set",
    "SpecName",
    "Standing",
    "Threads",
    "Truncation",
    "load_plugins",
    "load_spec",
    "pick_device",
    "tell",
    "truncated",
]

SpecName = Annotated[
    str, typer.Argument(metavar="SPEC", help="A spec file, or the name of a shipped recipe.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a value: generator.width=32."),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="Run a local file that declares parts."),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")]
Threads = Annotated[
    int, typer.Option(metavar="N", help="CPU threads; 0 leaves torch its own choice.")
]


Truncation = Annotated[
    float | None,
    typer.Option(metavar="T", help="No latents further out than T standard deviations."),
]
Standing = Annotated[
    int, typer.Option(metavar="N", help="Batch statistics anew, from N batches of fakes.")
]


def tell(message: str) -> None:
    """Say something to a person; machine output alone goes to stdout.

    Nothing ends because nobody listens any more: a terminal that is gone, or `2>&1 | head`.
    """
    with suppress(OSError):
        print(message, file=sys.stderr)


def load_spec(name: str, overrides: Sequence[str] | None, plugins: Sequence[Path] | None) -> Spec:
    """The spec of a file or recipe; says first which local files it will run."""
    from gankit.recipes import find
    from gankit.spec import load

    return load(
        find(name),
        overrides or (),
        plugins=plugins or (),
        announce=lambda path: tell(f"runs code from {path}"),
    )


def load_plugins(plugins: Sequence[Path] | None) -> None:
    """Run local files, so that the parts they declare are on the plug board."""
    from gankit.registry import load_file

    for path in plugins or ():
        load_file(path)


def truncated(gan: GAN, threshold: float | None, seed: int) -> Latent | None:
    """Latents that are not the network's own, if `--truncation` asks for any.

    Raises:
        UsageError: these latents cannot be truncated so.
    """
    if threshold is None:
        return None
    from gankit.randomness import generator
    from gankit.train import sampling

    try:
        latent = sampling.truncation(gan, threshold)
        latent(1, gan.latent_width, generator(seed))
    except OptionError as error:
        raise UsageError(f"--truncation: {error}") from error
    return latent


def pick_device(name: str, threads: int = 0) -> torch.device:
    """The device of a name, with the number of CPU threads set.

    Raises:
        UsageError: there is no such name.
        SetupError: CUDA is asked for and not there.
    """
    import torch

    cores = os.cpu_count() or 1
    if threads < 0:
        raise UsageError(f"--threads takes a number of threads, not {threads}")
    if threads > cores:
        raise UsageError(f"--threads {threads} is more than the cores of this machine, {cores}")
    if threads:
        torch.set_num_threads(threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise UsageError(f"--device takes auto, cpu or cuda, not {name!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise SetupError(
            f"torch {torch.__version__} sees no CUDA device here\n"
            "  use --device cpu, or install a CUDA build of torch"
        )
    return torch.device(name)
