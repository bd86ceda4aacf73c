"""What follows the last block: what was bad, the tables, and the manifest."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from gankit.datasets.packing.listing import SPLITS, Listing, refuse_empty_classes
from gankit.datasets.packing.looking import Seen, versions
from gankit.datasets.packing.manifest import (
    FILES,
    IMAGES,
    ROWS,
    Bad,
    Cache,
    Class,
    Manifest,
    Origin,
    Recipe,
    replace,
    write,
)
from gankit.datasets.packing.sources import File, fingerprint, shown
from gankit.datasets.packing.target import BAD, JOURNAL, Journal
from gankit.datasets.packing.work import Job
from gankit.errors import DataError

__all__ = ["bad_files", "finish", "told", "write_bad"]

COLUMNS = ("file", "bytes", "stamp", "sha256", "height", "width", "mode", "odd", "bad")


def finish(folder: Path, listing: Listing, job: Job, recipe: Recipe, journal: Journal) -> Manifest:
    """Write the tables and the manifest of a folder of which every block is packed.

    Raises:
        DataError: nothing is left without the bad files, or nothing of a class.
    """
    from gankit import __version__

    seen = [one for block in job.blocks for one in journal.records[block].seen]
    kept = [place for place, one in enumerate(seen) if not one.bad]
    if not kept:
        raise DataError(f"{listing.root}: none of {len(seen):,} images can be used")
    labels = None if listing.labels is None else [listing.labels[place] for place in kept]
    splits = None if listing.splits is None else [listing.splits[place] for place in kept]
    if labels is not None:
        refuse_empty_classes(listing.classes, labels)
    numbers = [-1] * len(kept) if splits is None else [SPLITS.index(split) for split in splits]
    tables = {
        ROWS: _array(np.array([kept, labels or [-1] * len(kept), numbers], np.int32).T),
        FILES: _table(COLUMNS, ([*f, *s] for f, s in zip(job.files, seen, strict=True))),
    }
    for name, content in tables.items():
        replace(folder / name, content)
    with (folder / IMAGES).open("rb") as stream:
        os.fsync(stream.fileno())
    per_class, per_split = Counter(labels or ()), Counter(splits or ())
    used = [seen[place] for place in kept]
    manifest = Manifest(
        gankit=__version__,
        recipe=recipe,
        versions=versions(job.decoder),
        source=_origin(listing, job.files, seen),
        images=len(kept),
        classes=tuple(
            Class(name=shown(name), images=per_class[index])
            for index, name in enumerate(listing.classes)
        ),
        splits={name: per_split[name] for name in SPLITS} if splits else {},
        modes=_counted(one.mode for one in used),
        converted=_counted(one.odd for one in used if one.odd),
        # Names of files need not be good unicode, which JSON is.
        bad=tuple(
            Bad(file=shown(one.file), reason=one.reason)
            for one in bad_files(listing, job.files, seen)
        ),
        cache=Cache(
            bytes=len(job.files) * job.row_bytes,
            block=job.rows,
            sha256=tuple(journal.records[block].sha256 for block in job.blocks),
        ),
        tables={name: hashlib.sha256(content).hexdigest() for name, content in tables.items()},
    )
    write(folder, manifest)
    (folder / JOURNAL).unlink()
    return manifest


def bad_files(listing: Listing, files: Sequence[File], seen: Sequence[Seen]) -> tuple[Bad, ...]:
    """Every file that cannot be used, with the reason."""
    found = {file.name: one.bad for file, one in zip(files, seen, strict=True) if one.bad}
    found |= dict.fromkeys(listing.absent, "a list names it, and it is not there")
    return tuple(Bad(file=name, reason=why) for name, why in sorted(found.items()))


def write_bad(folder: Path, bad: Sequence[Bad]) -> None:
    """Put all of the bad files into a table, or take away one that is there."""
    if bad:
        rows = ([one.file, one.reason] for one in bad)
        replace(folder / BAD, _table(("file", "reason"), rows))
    else:
        (folder / BAD).unlink(missing_ok=True)


def told(bad: Sequence[Bad], files: int, most: int = 10) -> str:
    """The bad files in words, the first of them by name."""
    lines = [f"{len(bad):,} of {files:,} images cannot be used as they are:"]
    lines += [f"  {shown(one.file)}: {one.reason}" for one in bad[:most]]
    if len(bad) > most:
        lines.append(f"  and {len(bad) - most:,} more")
    return "\n".join(lines)


def _origin(listing: Listing, files: Sequence[File], seen: Sequence[Seen]) -> Origin:
    return Origin(
        root=str(listing.root.absolute()),
        files=len(files),
        bytes=sum(file.bytes for file in files),
        sha256=fingerprint((f.name, s.sha256) for f, s in zip(files, seen, strict=True)),
    )


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def _array(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    stream = io.StringIO(newline="")
    lines = csv.writer(stream, lineterminator="\n")
    lines.writerows([columns, *rows])
    return stream.getvalue().encode("utf-8", "surrogateescape")
