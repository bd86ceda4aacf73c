"""A look at every image before anything is packed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from gankit.datasets.checks import height_width
from gankit.datasets.decoding import Framing
from gankit.datasets.packing.duplicates import alike, equal
from gankit.datasets.packing.finishing import bad_files, told
from gankit.datasets.packing.listing import Listing, refuse_empty_classes
from gankit.datasets.packing.looking import Seen
from gankit.datasets.packing.manifest import Bad
from gankit.datasets.packing.packer import Options
from gankit.datasets.packing.pool import Watch, spread
from gankit.datasets.packing.work import Job, look_at, mixed
from gankit.errors import DataError

__all__ = ["Report", "check"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a source holds, and what stands in the way of packing it or of training on it."""

    files: int
    bytes: int
    usable: int
    others: dict[str, int]
    """Files that are not called like images, by suffix."""
    sizes: dict[tuple[int, int], int]
    modes: dict[str, int]
    odd: dict[str, int]
    enlarged: int
    """Images that have fewer pixels than what is made of them."""
    classes: dict[str, int]
    splits: dict[str, int]
    bad: tuple[Bad, ...]
    identical: list[list[str]]
    """Files of the same bytes."""
    alike: list[list[str]]
    """Images that look the same, identical files left out."""
    problems: tuple[str, ...]
    """Why `pack` or training would refuse it."""


def check(listing: Listing, framing: Framing, options: Options, batch: int, watch: Watch) -> Report:
    """Decode every image of a listing, and count what is found; writes nothing."""
    job = Job(
        listing.source,
        listing.files,
        framing,
        listing.original,
        options.convert,
        options.decoder,
    )
    seen: list[Seen] = [Seen("", 0, 0, "", "", "")] * len(job.files)
    thumbnails = np.zeros((len(job.files), 8, 9), np.uint8)
    done = bad = 0
    for block, looked in spread(look_at, job, job.blocks, options.workers):
        for place, (one, small) in enumerate(looked, block * job.rows):
            seen[place] = one
            if small is not None:
                thumbnails[place] = small
            bad += bool(one.bad)
        done += len(looked)
        watch("checked", done, len(job.files), bad)
    kept = [place for place, one in enumerate(seen) if not one.bad]
    names = [file.name for file in job.files]
    same = equal([seen[place].sha256 for place in kept])
    copies = {place for group in same for place in group[1:]}
    single = [kept[place] for place in range(len(kept)) if place not in copies]
    near = alike(thumbnails[single])
    return Report(
        files=len(job.files),
        bytes=sum(file.bytes for file in job.files),
        usable=len(kept),
        others=_counted(PurePosixPath(name).suffix.lower() for name in listing.others),
        sizes=dict(Counter((one.height, one.width) for one in seen if one.height).most_common()),
        modes=_counted(one.mode for one in seen if one.mode),
        odd=_counted(one.odd for one in seen if one.odd),
        enlarged=sum(_enlarged(seen[place], framing) for place in kept),
        classes=_classes(listing, kept),
        splits=_counted(listing.splits or ()),
        bad=bad_files(listing, job.files, seen),
        identical=[[names[kept[place]] for place in group] for group in same],
        alike=[[names[single[place]] for place in group] for group in near],
        problems=tuple(_problems(listing, seen, kept, options, batch)),
    )


def _enlarged(seen: Seen, framing: Framing) -> bool:
    height, width = height_width(framing.size)
    tall, wide = framing.piece or (seen.height, seen.width)
    return tall < height or wide < width


def _classes(listing: Listing, kept: list[int]) -> dict[str, int]:
    if listing.labels is None:
        return {}
    counts = Counter(listing.labels[place] for place in kept)
    return {name: counts[index] for index, name in enumerate(listing.classes)}


def _problems(
    listing: Listing, seen: list[Seen], kept: list[int], options: Options, batch: int
) -> Iterable[str]:
    bad = bad_files(listing, listing.files, seen)
    if bad and options.on_bad == "error":
        yield told(bad, len(listing.files) + len(listing.absent))
    if not options.mixed and listing.original is None:
        sizes = [
            (file.name, (one.height, one.width))
            for file, one in zip(listing.files, seen, strict=True)
            if one.height * one.width > 1
        ]
        if several := mixed(sizes):
            yield several
    if not kept:
        yield f"none of {len(seen):,} images can be used"
    if listing.labels is not None:
        try:
            refuse_empty_classes(listing.classes, [listing.labels[place] for place in kept])
        except DataError as error:
            yield str(error)
    if len(kept) < batch:
        yield f"{len(kept):,} images are fewer than a batch of {batch:,}"


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())
