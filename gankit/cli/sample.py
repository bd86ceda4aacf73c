"""`gankit sample`: images from a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gankit.cli.common import Device, Plugins, Threads, pick_device, tell
from gankit.errors import CheckpointError, OptionError, SetupError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from gankit.slots import Dataset
    from gankit.spec import Spec
    from gankit.train.checkpoint import Checkpoint

__all__ = ["sample"]


def sample(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, or one checkpoint in it.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="x.png|x.npz|DIR",
            help="A grid, an array of uint8 images, or a folder of PNGs.",
        ),
    ],
    count: Annotated[int, typer.Option("-n", metavar="N", help="How many images.")] = 64,
    seed: Annotated[int, typer.Option(metavar="S", help="Of the latents.")] = 0,
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
    """Draw images from the averaged generator of a run's newest checkpoint."""
    if count < 1:
        raise UsageError(f"-n takes a number of images, not {count}")
    if out.suffix == ".png" and count > 10_000:
        raise UsageError(
            f"a grid of {count:,} is too large to look at; use --out x.npz or a folder"
        )
    if out.suffix not in ("", ".png", ".npz"):
        raise UsageError(f"--out is a .png, a .npz or a folder, not {out}")
    if standing < 0:
        raise UsageError(f"--standing takes a number of batches, not {standing}")
    from gankit.build import build
    from gankit.ops import settle
    from gankit.randomness import generator
    from gankit.train import sampling

    spec, saved = _found(run, tuple(plugin or ()))
    gan, data = build(spec, pick_device(device, threads))
    try:
        gan.generator.load_state_dict(dict(saved.weights["ema"]))
        settle(gan.generator)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint does not fit the spec of {run}: {error}") from error
    try:
        latent = gan.latent if truncation is None else sampling.truncation(gan, truncation)
        latent(1, gan.latent_width, generator(seed))
    except OptionError as error:
        raise UsageError(f"--truncation: {error}") from error
    try:
        network = gan.generator
        if standing:
            network = sampling.standing(gan, network, standing, seed, latent=latent)
        images = sampling.draw(gan, network, count, seed, latent=latent)
    except (MemoryError, RuntimeError) as error:
        if "alloc" not in str(error) and not isinstance(error, MemoryError):
            raise
        raise SetupError(f"{count:,} images at once are more than this machine holds") from error
    try:
        _write(images, data, out)
    except OSError as error:
        raise SetupError(f"cannot write {out}: {error.strerror or error}") from error
    plural = "" if count == 1 else "s"
    tell(f"wrote {count:,} sample{plural} of step {saved.step:,} to {out}")


def _found(run: Path, plugins: tuple[Path, ...]) -> tuple[Spec, Checkpoint]:
    """The spec and the newest sound checkpoint of a run, or those of one checkpoint."""
    from gankit.spec import load
    from gankit.train import checkpoint
    from gankit.train.folder import RunFolder

    if (run / checkpoint.MANIFEST).exists():
        whole = checkpoint.load(run)
        return load(run / checkpoint.SPEC, plugins=plugins, trusted=False), whole
    folder = RunFolder(run)
    spec = folder.spec(plugins)
    saved, complaints = checkpoint.latest(folder.checkpoints, set_aside=False)
    for complaint in complaints:
        tell(complaint)
    if saved is None:
        raise CheckpointError(f"{run} has no checkpoint yet")
    return spec, saved


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
