"""`gankit data`: images looked at, packed into one file, and the file looked after."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gankit.cli.common import tell
from gankit.cli.progress import progress, stoppable
from gankit.errors import DataError, UsageError

if TYPE_CHECKING:
    from gankit.datasets.decoding import Framing
    from gankit.datasets.packing import Listing, Manifest, Options

__all__ = ["app", "check", "info", "pack_celeba", "pack_folder", "verify"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
pack_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(pack_app, name="pack", help="Decode images once, into one file that trains faster.")

Root = Annotated[Path, typer.Option(metavar="DIR", help="Where the download lies.")]
Tree = Annotated[Path, typer.Option(metavar="DIR|ZIP", help="A folder of images, or a .zip.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="The folder to pack into.")]
Size = Annotated[str, typer.Option(metavar="N|HxW", help="Height and width of what is packed.")]
Crop = Annotated[
    str | None,
    typer.Option(metavar="N|HxW", help="Pixels to cut out first; 0 for the largest piece."),
]
Labels = Annotated[
    str, typer.Option(metavar="folders|x.csv", help="Classes from sub-folders or a table.")
]
Attributes = Annotated[
    str, typer.Option("--labels", metavar="NAME,...", help="Classes from CelebA's attributes.")
]
Split = Annotated[
    Literal["all", "train", "valid", "test"], typer.Option(help="Which of CelebA's splits.")
]
Channels = Annotated[int, typer.Option(metavar="3|1", help="3 for RGB, 1 for grey.")]
OnBad = Annotated[
    Literal["error", "skip"], typer.Option(help="Refuse images that cannot be used, or go without.")
]
Convert = Annotated[
    bool, typer.Option("--convert", help="Take images that are no plain RGB or grey, converted.")
]
Decoder = Annotated[
    Literal["pillow", "simplejpeg"],
    typer.Option(help="What reads JPEGs; simplejpeg's bits differ."),
]
Workers = Annotated[int, typer.Option(metavar="N", help="Processes; 0 for one per core.")]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="Pack anew what is packed already.")]
Packed = Annotated[Path, typer.Argument(metavar="DIR", help="A packed folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@pack_app.command("celeba")
def pack_celeba(
    root: Root,
    out: Out,
    crop: Crop = "178",
    size: Size = "128",
    split: Split = "all",
    labels: Attributes = "",
    channels: Channels = 3,
    on_bad: OnBad = "error",
    convert: Convert = False,
    decoder: Decoder = "pillow",
    workers: Workers = 0,
    rebuild: Rebuild = False,
) -> None:
    """Pack CelebA as its official download lays it out."""
    framing = _framing(size, crop, channels)
    options = _options(crop, convert, on_bad, decoder, workers, rebuild)
    from gankit.datasets.packing import celeba

    _pack(celeba(root, labels, split), out, framing, options)


@pack_app.command("folder")
def pack_folder(
    root: Tree,
    out: Out,
    crop: Crop = None,
    size: Size = "128",
    labels: Labels = "",
    channels: Channels = 3,
    on_bad: OnBad = "error",
    convert: Convert = False,
    decoder: Decoder = "pillow",
    workers: Workers = 0,
    rebuild: Rebuild = False,
) -> None:
    """Pack the JPEG, PNG and WebP images of any tree or .zip."""
    framing = _framing(size, crop, channels)
    options = _options(crop, convert, on_bad, decoder, workers, rebuild)
    from gankit.datasets.packing import folder

    _pack(folder(root, labels), out, framing, options)


@app.command("check")
def check(
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="A folder of images, a .zip, or CelebA.")
    ],
    crop: Crop = None,
    size: Size = "128",
    split: Split = "all",
    labels: Annotated[
        str, typer.Option(metavar="folders|x.csv|NAME,...", help="As `pack` takes it.")
    ] = "",
    batch: Annotated[int, typer.Option(metavar="N", help="The batch that must be filled.")] = 1,
    on_bad: OnBad = "error",
    convert: Convert = False,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Look at every image before anything is packed; exit 4 where `pack` would refuse."""
    from gankit.datasets import packing
    from gankit.datasets.packing.words import reported

    if (root / packing.MANIFEST).exists():
        raise UsageError(f"{root} is packed already: gankit data info, or gankit data verify")
    is_celeba = packing.images_of(root) is not None
    if is_celeba and crop is None:
        crop = "178"
    if not is_celeba and split != "all":
        raise UsageError("--split is for CelebA; other folders have none")
    framing = _framing(size, crop, 3)
    options = _options(crop, convert, on_bad, "pillow", workers, rebuild=False)
    listing = packing.celeba(root, labels, split) if is_celeba else packing.folder(root, labels)
    for note in listing.notes:
        tell(note)
    with stoppable("nothing was written"), progress() as watch:
        report = packing.check(listing, framing, options, batch, watch)
    if as_json:
        sizes = {packing.pair(size): count for size, count in report.sizes.items()}
        print(json.dumps({**asdict(report), "sizes": sizes}))
    else:
        print("\n".join(reported(listing, report)))
    if report.problems:
        raise DataError("\n".join(report.problems))
    kind = listing.kind
    tell(f"next: gankit data pack {kind} --root {root} --out DIR, with the same options")


@app.command("verify")
def verify(
    packed: Packed,
    everything: Annotated[
        bool, typer.Option("--source", help="Read every file of the source, however it looks.")
    ] = False,
) -> None:
    """Compare every sum of a packed folder, and its source if it is there."""
    from gankit.datasets.packing import verify

    with stoppable("the same command begins again"), progress() as watch:
        done = verify(packed, watch, everything=everything)
    told = f"{done.manifest.images:,} images, {done.manifest.cache.bytes:,} bytes"
    print(f"{packed} is whole: {told}; {done.source}")


@app.command("info")
def info(packed: Packed, as_json: AsJson = False) -> None:
    """Say what a packed folder holds, how it was made, and how a spec names it."""
    from gankit.datasets.packing import command, read
    from gankit.datasets.packing.words import held

    manifest = read(packed)
    if as_json:
        print(json.dumps(asdict(manifest)))
        return
    print("\n".join(held(manifest)))
    print(f"\nIn a spec:\n{_snippet(manifest, packed)}")
    print(f"Packed anew by:\n    {command(manifest, packed)}")


def _pack(listing: Listing, out: Path, framing: Framing, options: Options) -> None:
    from gankit.datasets.packing import pack

    for note in listing.notes:
        tell(note)
    with stoppable("the same command continues"), progress() as watch:
        manifest = pack(listing, out, framing, options, tell, watch)
    left = f", left out: {len(manifest.bad):,}" if manifest.bad else ""
    tell(f"{out}: {manifest.images:,} images, {manifest.cache.bytes:,} bytes{left}")
    tell(f"in a spec:\n{_snippet(manifest, out)}")


def _framing(size: str, crop: str | None, channels: int) -> Framing:
    from gankit.datasets.decoding import Framing

    try:
        return Framing(_pair("size", size), _pair("crop", crop or "0"), channels)
    except ValueError as error:
        raise UsageError(f"--{error}") from error


def _pair(name: str, text: str) -> int | tuple[int, int]:
    """`128`, or `128x96`: height and width."""
    sides = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text, re.ASCII)
    if not sides:
        raise UsageError(f"--{name} takes a number, or HEIGHTxWIDTH, not {text!r}")
    return int(sides[1]) if sides[2] is None else (int(sides[1]), int(sides[2]))


def _options(
    crop: str | None,
    convert: bool,
    on_bad: Literal["error", "skip"],
    decoder: Literal["pillow", "simplejpeg"],
    workers: int,
    rebuild: bool,
) -> Options:
    from gankit.datasets.packing import Options

    return Options(
        mixed=crop is not None,
        convert=convert,
        on_bad=on_bad,
        decoder=decoder,
        workers=_workers(workers),
        rebuild=rebuild,
    )


def _workers(count: int) -> int:
    from gankit.datasets.packing import cores

    if count < 0:
        raise UsageError(f"--workers takes a number of processes, not {count}")
    return count or cores()


def _snippet(manifest: Manifest, folder: Path) -> str:
    """The table of a spec that trains on a packed folder."""
    from gankit.spec import dumps

    recipe = manifest.recipe
    square = recipe.height == recipe.width
    data: dict[str, object] = {"use": "packed", "root": str(folder)}
    data["size"] = recipe.height if square else [recipe.height, recipe.width]
    if recipe.channels != 3:
        data["channels"] = recipe.channels
    if manifest.classes:
        data["classes"] = len(manifest.classes)
    lines = dumps({"data": data}).strip().splitlines()
    return "\n".join(f"    {line}" for line in lines)
