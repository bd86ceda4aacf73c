"""`gankit sample`: images from a run, or from a file that was exported from one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gankit.cli.common import Device, Plugins, Threads, pick_device, tell
from gankit.errors import OptionError, SetupError, UsageError, choices

if TYPE_CHECKING:
    from torch import Tensor

    from gankit.export import Live
    from gankit.slots import Dataset, Latent

__all__ = ["sample"]

AS = {
    "grid": "sample",
    "interpolation": "interpolation",
    "truncation": "truncated sample",
    "attention": "sample",
    "neighbours": "sample",
}
"""What a picture can show, and what `-n` counts in it."""


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
        str, typer.Option("--as", metavar="|".join(AS), help="What an x.png shows.")
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
    if count is None:
        count = 64 if view == "grid" else 8
    _check(count, out, view, standing)
    live = _live(run, tuple(plugin or ()), device, threads)
    if standing and live.exported:
        raise UsageError("--standing: an export has its batch statistics folded in; use the run")
    latent = _latent(live, truncation, seed)
    try:
        if standing:
            from gankit.train.sampling import standing as settled

            network = settled(live.gan, live.network, standing, seed, latent=latent)
            live = replace(live, network=network)
        _draw(live, view, count, seed, latent, out)
    except (MemoryError, RuntimeError) as error:
        if "alloc" not in str(error) and not isinstance(error, MemoryError):
            raise
        raise SetupError(f"{count:,} images at once are more than this machine holds") from error
    except OSError as error:
        raise SetupError(f"cannot write {out}: {error.strerror or error}") from error
    plural = "" if count == 1 else "s"
    tell(f"wrote {count:,} {AS[view]}{plural} of step {live.step:,} to {out}")


def _check(count: int, out: Path, view: str, standing: int) -> None:
    """Refuse what cannot be meant, before anything is loaded."""
    if view not in AS:
        raise UsageError(f'--as knows no "{view}"; {choices(view, AS)}')
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
    # Programs run where they were exported for.
    chosen = "cpu" if device == "auto" and format_of(run) != "safetensors" else device
    live = of_file(run, plugins=plugins, device=pick_device(chosen, threads))
    if live.player == "discriminator":
        raise UsageError(f"{run} holds a discriminator; samples are drawn from a generator")
    return live


def _latent(live: Live, truncation: float | None, seed: int) -> Latent | None:
    """Latents that are not the network's own, if any are asked for."""
    if truncation is None:
        return None
    from gankit.randomness import generator
    from gankit.train import sampling

    try:
        latent = sampling.truncation(live.gan, truncation)
        latent(1, live.gan.latent_width, generator(seed))
    except OptionError as error:
        raise UsageError(f"--truncation: {error}") from error
    return latent


def _draw(live: Live, view: str, count: int, seed: int, latent: Latent | None, out: Path) -> None:
    """Write what is asked for."""
    if view == "grid":
        from gankit.train.sampling import draw

        images = draw(live.gan, live.network, count, seed, latent=latent)
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(images, live.data, out)
        return
    from gankit.views import VIEWS

    picture = VIEWS[view](live, count, seed, latent)
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out)


def _write(images: Tensor, data: Dataset, out: Path) -> None:
    import numpy

    from gankit.datasets import to_uint8
    from gankit.train.trainer import picture

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
