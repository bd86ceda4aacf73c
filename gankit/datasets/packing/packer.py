"""Decodes every image of a source once, into one file of bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from gankit.datasets.checks import height_width
from gankit.datasets.decoding import Framing, reason
from gankit.datasets.packing.finishing import bad_files, finish, told, write_bad
from gankit.datasets.packing.listing import Listing, refuse_empty_classes
from gankit.datasets.packing.looking import Decoder, versions
from gankit.datasets.packing.manifest import IMAGES, MANIFEST, Manifest, Recipe, command, read
from gankit.datasets.packing.pool import Watch, spread
from gankit.datasets.packing.target import (
    BAD,
    JOURNAL,
    Journal,
    locked,
    make_room,
    refuse_strange,
    remove,
)
from gankit.datasets.packing.verifying import changes
from gankit.datasets.packing.work import Block, Job, one_size, pack_block
from gankit.errors import DataError

__all__ = ["Options", "pack"]

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to pack, beside which piece of an image is taken."""

    mixed: bool = True
    """Whether files may be of several sizes."""
    convert: bool = False
    """Whether what is odd about a file is changed, rather than the file left out."""
    on_bad: Literal["error", "skip"] = "error"
    decoder: Decoder = "pillow"
    workers: int = 1
    rebuild: bool = False


def pack(
    listing: Listing, folder: Path, framing: Framing, options: Options, tell: Tell, watch: Watch
) -> Manifest:
    """Pack the images of a listing into a folder; what is there already is not done again.

    Another process that packs into the same folder is waited for.

    Raises:
        DataError: there is something wrong with the images or the folder, or no room.
        MissingExtra: the decoder is not installed.
        SetupError: a worker has ended on its own.
    """
    versions(options.decoder)  # one that is not installed is refused before anything is begun
    recipe = _recipe(listing, framing, options)
    try:
        with locked(folder, tell):
            if options.rebuild or not (folder / MANIFEST).exists():
                refuse_strange(folder)
                return _packed(listing, folder, framing, recipe, options, tell, watch)
            manifest = read(folder)
            _refuse_other(manifest, folder, recipe, listing)
            tell(f"{folder} is packed already")
            return manifest
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {reason(error)}") from error


def _packed(
    listing: Listing,
    folder: Path,
    framing: Framing,
    recipe: Recipe,
    options: Options,
    tell: Tell,
    watch: Watch,
) -> Manifest:
    _refuse_useless(listing, options)
    job = Job(
        listing.source,
        listing.files,
        framing,
        listing.original,
        options.convert,
        options.decoder,
        (folder / IMAGES).absolute(),
    )
    if not options.mixed and listing.original is None:
        job = replace(job, original=one_size(job, options.workers, watch))
    if options.rebuild and (folder / MANIFEST).exists():
        remove(folder)  # not what a rebuild that was stopped has done
    journal = Journal(folder / JOURNAL, job)
    if journal.restarted:
        tell(f"{folder} was being packed otherwise; starting over")
        remove(folder)
    size = len(job.files) * job.row_bytes
    make_room(job.target, size)
    journal.begin()
    blocks = [Block(index, journal.sum_of(index)) for index in job.blocks]
    done = bad = 0
    try:
        for block in spread(pack_block, job, blocks, options.workers):
            journal.note(block)
            seen = journal.records[block.number].seen
            done += len(seen)
            bad += sum(bool(one.bad) for one in seen)
            watch("packed", done, len(job.files), bad)
    except OSError as error:
        raise DataError(
            f"cannot write to {folder}: {reason(error)}; {size:,} bytes are needed in all"
            "\n  the same command continues"
        ) from error
    _answer_bad(listing, folder, job, journal, options)
    return finish(folder, listing, job, recipe, journal)


def _refuse_useless(listing: Listing, options: Options) -> None:
    """Refuse what can be seen to fail before anything is decoded."""
    if not listing.files:
        raise DataError(f"{listing.root}: no image is in the split {listing.split}")
    if listing.labels is not None:
        refuse_empty_classes(listing.classes, listing.labels)
    if listing.absent and options.on_bad == "error":
        bad = bad_files(replace(listing, files=()), (), ())
        total = len(listing.files) + len(listing.absent)
        raise DataError(f"{told(bad, total)}\n  --on-bad skip leaves them out")


def _answer_bad(
    listing: Listing, folder: Path, job: Job, journal: Journal, options: Options
) -> None:
    seen = [one for block in job.blocks for one in journal.records[block].seen]
    bad = bad_files(listing, job.files, seen)
    write_bad(folder, bad)
    if bad and options.on_bad == "error":
        odd = sum(bool(one.odd) and one.odd == one.bad for one in seen)
        convert = f"--convert takes {odd:,} of them as a picture viewer shows them; " if odd else ""
        raise DataError(
            f"{told(bad, len(job.files) + len(listing.absent))}\n  all of them: {folder / BAD}\n"
            f"  {convert}--on-bad skip leaves {'the others' if odd else 'them'} out"
        )


def _recipe(listing: Listing, framing: Framing, options: Options) -> Recipe:
    height, width = height_width(framing.size)
    return Recipe(
        kind=listing.kind,
        height=height,
        width=width,
        channels=framing.channels,
        crop=framing.piece,
        mixed=options.mixed,
        labels=listing.labelled_by,
        split=listing.split,
        convert=options.convert,
        on_bad=options.on_bad,
        decoder=options.decoder,
    )


def _refuse_other(manifest: Manifest, folder: Path, recipe: Recipe, listing: Listing) -> None:
    """Refuse a folder that holds something else than what is asked for now."""
    asked = replace(
        recipe,
        # Without bad or odd files these make no difference.
        on_bad=recipe.on_bad if manifest.bad else manifest.recipe.on_bad,
        convert=recipe.convert if manifest.bad or manifest.converted else manifest.recipe.convert,
    )
    old, new = asdict(manifest.recipe), asdict(asked)
    differ = [
        f"{key}: {json.dumps(old[key])} became {json.dumps(new[key])}"
        for key in old
        if old[key] != new[key]
    ]
    differ = differ or changes(folder, manifest, listing)
    if differ:
        listed = "".join(f"\n  {line}" for line in differ)
        raise DataError(
            f"{folder} was packed from something else{listed}\n"
            f"  --rebuild packs it anew; before, it was\n  {command(manifest, folder)}"
        )
