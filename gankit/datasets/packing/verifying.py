"""Whether a packed folder is what was packed, and its source still what it was packed from."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gankit.datasets.packing.celeba import celeba
from gankit.datasets.packing.listing import SPLITS, Listing, folder, some
from gankit.datasets.packing.manifest import (
    FILES,
    IMAGES,
    MANIFEST,
    ROWS,
    Manifest,
    command,
    read,
)
from gankit.datasets.packing.pool import Watch
from gankit.datasets.packing.work import sum_of
from gankit.errors import DataError

__all__ = ["Verified", "changes", "listed", "refuse_altered", "rows_of", "verify"]


class Verified(NamedTuple):
    """A packed folder that is whole."""

    manifest: Manifest
    source: str
    """What became of the source, in words."""


def listed(kind: str, root: Path, labels: str, split: str) -> Listing:
    """The images of a source of either kind."""
    return celeba(root, labels, split) if kind == "celeba" else folder(root, labels)


def verify(packed: Path, watch: Watch, *, everything: bool = False) -> Verified:
    """Compare every sum of a packed folder, and the source if it is there.

    Of the source, files are read whose size or time of change are not those of before; with
    `everything`, all of them.

    Raises:
        DataError: something differs; says what, and how to pack anew.
    """
    manifest = read(packed)
    root = Path(manifest.source.root)
    problem = f"{packed} is not what its manifest says"
    found = _tables(packed, manifest) or _blocks(packed, manifest, watch)
    if not found and root.exists():
        problem = f"{root} has changed since {packed} was packed from it"
        recipe = manifest.recipe
        try:
            listing = listed(recipe.kind, root, recipe.labels, recipe.split)
            found = changes(packed, manifest, listing, everything)
        except DataError as error:
            found = str(error).splitlines()
    if found:
        raise DataError(_told(problem, found, manifest, packed))
    there = "is as it was" if root.exists() else "is not there, and was not compared"
    return Verified(manifest, f"{root} {there}")


def changes(
    packed: Path, manifest: Manifest, listing: Listing, everything: bool = False
) -> list[str]:
    """In words, how a source differs from what was packed."""
    before = {row["file"]: row for row in _recorded(packed)}
    now = {file.name: file for file in listing.files}
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    changed = []
    for name, row in before.items():
        file = now.get(name)
        if file is None:
            continue
        same = (str(file.bytes), str(file.stamp)) == (row["bytes"], row["stamp"])
        if not same or everything:
            try:
                found = hashlib.sha256(listing.source.read(name)).hexdigest()
            except Exception:  # whatever it is, it is told where it is packed
                found = ""
            if found != row["sha256"]:
                changed.append(name)
    told = {"gone": gone, "new": new, "changed": changed}
    differ = [
        f"images of the source that are {word}: {len(names):,} ({some(names)})"
        for word, names in told.items()
        if names
    ]
    return differ if gone or new else differ + _relabelled(packed, manifest, listing)


def refuse_altered(packed: Path, manifest: Manifest) -> None:
    """Compare every sum of a file of images that was written to after its manifest.

    To read it all whenever training starts would take long; a copy that does not keep times may
    have to be.

    Raises:
        DataError: it was altered; says where, and how to pack anew.
    """
    images, last = ((packed / name).stat().st_mtime_ns for name in (IMAGES, MANIFEST))
    if images > last and (wrong := _blocks(packed, manifest, lambda *_: None)):
        raise DataError(_told(f"{packed} is not what its manifest says", wrong, manifest, packed))


def rows_of(packed: Path, manifest: Manifest) -> NDArray[np.int32]:
    """The table of places, classes and splits.

    Raises:
        DataError: it was changed.
    """
    content = (packed / ROWS).read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest.tables[ROWS]:
        raise DataError(
            f"{packed / ROWS} was changed after it was written\n"
            f"  pack it anew: {command(manifest, packed)}"
        )
    table: NDArray[np.int32] = np.load(io.BytesIO(content), allow_pickle=False)
    return table


def _told(problem: str, found: Sequence[str], manifest: Manifest, packed: Path) -> str:
    lines = "".join(f"\n  {line}" for line in found)
    return f"{problem}{lines}\n  pack it anew: {command(manifest, packed)}"


def _relabelled(packed: Path, manifest: Manifest, listing: Listing) -> list[str]:
    """How the labels and the splits of the images that are used have changed."""
    table = rows_of(packed, manifest)
    numbers = listing.splits and [SPLITS.index(split) for split in listing.splits]
    found = []
    for column, word, now in ((1, "labels", listing.labels), (2, "splits", numbers)):
        of = np.full(len(listing.files), -1) if now is None else np.array(now)
        count = int((of[table[:, 0]] != table[:, column]).sum())
        found += [f"{word} that have changed: {count:,}"] * bool(count)
    return found


def _recorded(packed: Path) -> list[dict[str, str]]:
    text = (packed / FILES).open(encoding="utf-8", errors="surrogateescape", newline="")
    with text as stream:
        return list(csv.DictReader(stream))


def _tables(packed: Path, manifest: Manifest) -> list[str]:
    return [
        f"{name} was changed"
        for name, sha256 in manifest.tables.items()
        if hashlib.sha256((packed / name).read_bytes()).hexdigest() != sha256
    ]


def _blocks(packed: Path, manifest: Manifest, watch: Watch) -> list[str]:
    sums, rows, recipe = manifest.cache.sha256, manifest.cache.block, manifest.recipe
    step = rows * recipe.channels * recipe.height * recipe.width
    total = manifest.source.files
    wrong: list[int] = []
    for index, sha256 in enumerate(sums):
        wrong += [index] * (sum_of(packed / IMAGES, index * step, step) != sha256)
        watch("compared", min((index + 1) * rows, total), total, 0)
    return _wrong(wrong, manifest)


def _wrong(wrong: Sequence[int], manifest: Manifest) -> list[str]:
    if not wrong:
        return []
    first = min(wrong) * manifest.cache.block
    return [
        f"blocks of {IMAGES} that were changed: {len(wrong):,} of"
        f" {len(manifest.cache.sha256):,}, the first at image {first:,}"
    ]
