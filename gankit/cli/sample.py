"""`gankit sample`: images from a run, or from a file that was exported from one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gankit.cli.common import (
    Device,
    Plugins,
    Standing,
    Threads,
    Truncation,
    pick_device,
    tell,
    truncated,
)
from gankit.errors import SetupError, UsageError, choices

if TYPE_CHECKING:
    from torch import Tensor

    from gankit.export import Live
    from gankit.views import Drawing

__all__ = ["sample"]

AS = {
    "grid": "sample",
    "interpolation": "interpolation",
    "truncation": "truncated sample",
    "attention": "sample",
    "neighbours": "sample",
}
"""What a picture can show, and what `-n` counts in it."""
ROWS = 8
"""Of what has rows or columns, where `-n` is not given."""
MARKS = 5
"""Pixels that a picture of attention tells apart by colour."""
LISTED = 50
"""Names that an error still lists."""


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
        typer.Option(
            "-n", metavar="N", help="How many; about 64 by default, 8 where --as has rows."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Of the latents.")] = 0,
    view: Annotated[
        str, typer.Option("--as", metavar="|".join(AS), help="What an x.png shows.")
    ] = "grid",
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Only these classes, by number or by name."),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="ROW,COLUMN", help="A pixel whose attention is shown; up to five."),
    ] = None,
    truncation: Truncation = None,
    standing: Standing = 0,
    device: Device = "auto",
    threads: Threads = 0,
    plugin: Plugins = None,
) -> None:
    """Draw images from the averaged generator of a run's newest checkpoint, or from an export."""
    pixels = _pixels(at or (), view)
    _check(count, out, view, standing)
    live = _live(run, tuple(plugin or ()), device, threads)
    if standing and live.exported:
        raise UsageError("--standing: an export has its batch statistics folded in; use the run")
    latent = truncated(live.gan, truncation, seed)
    try:
        if standing:
            from gankit.train.sampling import standing as settled

            network = settled(live.gan, live.network, standing, seed, latent=latent)
            live = replace(live, network=network)
        from gankit.views import Drawing

        drawing = Drawing(live, seed, latent, _classes(live, classes), pixels)
        count = _draw(drawing, view, count, out)
    except (MemoryError, RuntimeError) as error:
        if "alloc" not in str(error) and not isinstance(error, MemoryError):
            raise
        raise SetupError(f"{count:,} images at once are more than this machine holds") from error
    except OSError as error:
        raise SetupError(f"cannot write {out}: {error.strerror or error}") from error
    plural = "" if count == 1 else "s"
    tell(f"wrote {count:,} {AS[view]}{plural} of step {live.step:,} to {out}")


def _check(count: int | None, out: Path, view: str, standing: int) -> None:
    """Refuse what cannot be meant, before anything is loaded."""
    if view not in AS:
        raise UsageError(f'--as knows no "{view}"; {choices(view, AS)}')
    if count is not None and count < 1:
        raise UsageError(f"-n takes a number of images, not {count}")
    if out.suffix == ".png" and (count or 0) > 10_000:
        raise UsageError(
            f"a grid of {count:,} is too large to look at; use --out x.npz or a folder"
        )
    if out.suffix not in ("", ".png", ".npz"):
        raise UsageError(f"--out is a .png, a .npz or a folder, not {out}")
    if view != "grid" and out.suffix != ".png":
        raise UsageError(f"--as {view} is one picture: --out x.png, not {out}")
    if view != "grid" and (count or 0) > 100:
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


def _classes(live: Live, text: str | None) -> tuple[int, ...]:
    """The classes of `3,5,star`."""
    if text is None:
        return ()
    from gankit.train.pictures import class_names
    from gankit.train.sampling import label_count

    numbers = range(label_count(live.gan, live.network))
    if not numbers:
        raise UsageError("--classes: this generator looks at no labels")
    names = {name: number for number, name in enumerate(class_names(live.data))}
    known = {str(number): number for number in numbers} | names
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in known:
            named = set(names) - set(map(str, numbers))
            listed = f"; {choices(word, named)}" if 0 < len(named) <= LISTED else ""
            message = f'--classes: there is no class "{word}" from 0 to {numbers[-1]}{listed}'
            raise UsageError(message)
    return tuple(dict.fromkeys(known[word] for word in words))


def _pixels(texts: Sequence[str], view: str) -> tuple[tuple[int, int], ...]:
    """The rows and columns of `12,20`."""
    if texts and view != "attention":
        raise UsageError("--at marks what --as attention shows")
    if len(texts) > MARKS:
        raise UsageError(f"--at: at most {MARKS} pixels have colours, not {len(texts)}")
    found = [re.fullmatch(r"(\d{1,6}),(\d{1,6})", text) for text in texts]
    for text, match in zip(texts, found, strict=True):
        if match is None:
            raise UsageError(f"--at takes a row and a column of pixels, such as 12,20, not {text}")
    return tuple((int(match[1]), int(match[2])) for match in found if match)


def _draw(drawing: Drawing, view: str, count: int | None, out: Path) -> int:
    """Write what is asked for; how many there are."""
    if view == "grid":
        from gankit.train.sampling import SAMPLES, grid_labels

        shown = grid_labels(drawing.class_count, drawing.classes) if count is None else None
        count = count or (SAMPLES if shown is None else len(shown))
        labels = drawing.labels(count) if shown is None else shown
        images = drawing.images(drawing.latents(count), labels)
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(images, labels if drawing.class_count else None, drawing.live, out)
        return count
    from gankit.views import VIEWS

    picture = VIEWS[view](drawing, count or ROWS)
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out)
    return count or ROWS


def _write(images: Tensor, labels: Tensor | None, live: Live, out: Path) -> None:
    import numpy

    from gankit.datasets import to_uint8
    from gankit.train.pictures import picture

    values = to_uint8(images) if live.gan.image.size else images
    if out.suffix == ".png":
        picture(images, live.data, labels).save(out)
    elif out.suffix == ".npz":
        arrays = {"images": values.numpy()}
        if labels is not None:
            arrays["labels"] = labels.numpy()
        numpy.savez_compressed(out, allow_pickle=False, **arrays)
    elif not live.gan.image.size:
        raise UsageError("points in space have no PNG each; use --out x.npz or x.png")
    else:
        from PIL import Image

        out.mkdir(exist_ok=True)
        for index, image in enumerate(values.permute(0, 2, 3, 1).squeeze(-1).numpy()):
            Image.fromarray(image).save(out / f"{index:06d}.png")
