"""`gankit sample`: images from a run, or from a file that was exported from one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gankit.cli.common import Device, Plugins, Threads, pick_device, tell
from gankit.errors import OptionError, SetupError, UsageError, choices

if TYPE_CHECKING:
    from torch import Tensor

    from gankit.export import Live
    from gankit.slots import Dataset

__all__ = ["sample"]

VIEWS = ("grid", "interpolation", "truncation", "attention", "neighbours")


def sample(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run folder, one checkpoint in it, or an export."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="x.png|x.npz|DIR",
            help="A picture, an array of uint8 images, or a folder of PNGs.",
        ),
    ],
    count: Annotated[
        int | None,
        typer.Option("-n", metavar="N", help="How many; 64 by default, 8 where --as has rows."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Of the latents.")] = 0,
    view: Annotated[
        str, typer.Option("--as", metavar="|".join(VIEWS), help="What a .png shows.")
    ] = "grid",
    truncation: Annotated[
        float | None,
        typer.Option(metavar="T", help="No latents further out than T standard deviations."),
    ] = None,
    standing: Annotated[
        int, typer.Option(metavar="N", help="Batch statistics anew, from N batches of fakes.")
    ] = 0,
    device: Device = "auto",
    threads: Threads = 0,
    plugin: Plugins = None,
) -> None:
    """Draw images from the averaged generator of a run's newest checkpoint, or from an export."""
    if view not in VIEWS:
        raise UsageError(f'--as knows no "{view}"; {choices(view, VIEWS)}')
    count = (64 if view == "grid" else 8) if count is None else count
    _check(count, out, view, standing)
    live = _live(run, tuple(plugin or ()), device, threads)
    from gankit.randomness import generator
    from gankit.train import sampling

    if standing and live.exported:
        raise UsageError("--standing: an export has its batch statistics folded in; use the run")
    try:
        latent = None if truncation is None else sampling.truncation(live.gan, truncation)
        (latent or live.gan.latent)(1, live.gan.latent_width, generator(seed))
    except OptionError as error:
        raise UsageError(f"--truncation: {error}") from error
    try:
        if standing:
            from dataclasses import replace

            settled = sampling.standing(live.gan, live.network, standing, seed, latent=latent)
            live = replace(live, network=settled)
        if view == "grid":
            images = sampling.draw(live.gan, live.network, count, seed, latent=latent)
            picture = None
        else:
            from gankit.views import VIEWS as drawn

            picture = drawn[view](live, count, seed, latent)
    except (MemoryError, RuntimeError) as error:
        if "alloc" not in str(error) and not isinstance(error, MemoryError):
            raise
        raise SetupError(f"{count:,} images at once are more than this machine holds") from error
    try:
        if picture is None:
            _write(images, live.data, out)
        else:
            out.parent.mkdir(parents=True, exist_ok=True)
            picture.save(out)
    except OSError as error:
        raise SetupError(f"cannot write {out}: {error.strerror or error}") from error
    what = "sample" if view == "grid" else _ROWS[view]
    plural = "" if count == 1 else "s"
    tell(f"wrote {count:,} {what}{plural} of step {live.step:,} to {out}")


_ROWS = {
    "interpolation": "interpolation",
    "truncation": "truncated sample",
    "attention": "sample",
    "neighbours": "sample",
}
"""What `-n` counts."""


def _check(count: int, out: Path, view: str, standing: int) -> None:
    if count < 1:
        raise UsageError(f"-n takes a number of images, not {count}")
    if out.suffix == ".png" and count > 10_000:
        raise UsageError(
            f"a grid of {count:,} is too large to look at; use --out x.npz or a folder"
        )
    if out.suffix not in ("", ".png", ".npz"):
        raise UsageError(f"--out is a .png, a .npz or a folder, not {out}")
    if view != "grid" and out.suffix != ".png":
        raise UsageError(f"--as {view} is one picture: --out x.png, not {out}")
    if view != "grid" and count > 100:
        raise UsageError(f"--as {view} with {count:,} rows is too large to look at; at most 100")
    if standing < 0:
        raise UsageError(f"--standing takes a number of batches, not {standing}")


def _live(run: Path, plugins: tuple[Path, ...], device: str, threads: int) -> Live:
    """The averaged generator of a run, or the network in a file."""
    from gankit.export import format_of, of_file, of_run

    if run.is_dir() or format_of(run) is None:
        where = pick_device(device, threads)
        return of_run(run, plugins=plugins, device=where, tell=tell)
    # A program runs where it was exported for; the choice of a device is for the others.
    chosen = "cpu" if device == "auto" and run.suffix != ".safetensors" else device
    live = of_file(run, plugins=plugins, device=pick_device(chosen, threads))
    if live.player == "discriminator":
        raise UsageError(f"{run} holds a discriminator; samples are drawn from a generator")
    return live


def _write(images: Tensor, data: Dataset, out: Path) -> None:
    import numpy

    from gankit.datasets import to_uint8
    from gankit.train.trainer import picture

    out.parent.mkdir(parents=True, exist_ok=True)
    values = to_uint8(images) if data.image.size else images
    if out.suffix == ".png":
        picture(images, data).save(out)
    elif out.suffix == ".npz":
        numpy.savez_compressed(out, images=values.numpy())
    elif not data.image.size:
        raise UsageError("points in space have no PNG each; use --out x.npz or x.png")
    else:
        from PIL import Image

        out.mkdir(exist_ok=True)
        for index, image in enumerate(values.permute(0, 2, 3, 1).squeeze(-1).numpy()):
            Image.fromarray(image).save(out / f"{index:06d}.png")
