"""What is to be packed: files in order, with the class and the split of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gankit.datasets.packing.labels import from_folders, from_table
from gankit.datasets.packing.sources import File, Source, shown, source_at
from gankit.errors import DataError

__all__ = ["SPLITS", "Listing", "folder", "refuse_empty_classes", "some"]

SPLITS = ("train", "valid", "test")
"""By the numbers that CelebA's own list gives them."""


@dataclass(frozen=True)
class Listing:
    """The images of a source that are wanted, and what is known of each without opening it."""

    kind: Literal["folder", "celeba"]
    root: Path
    """What was named; the source itself may lie below it."""
    source: Source
    files: tuple[File, ...]
    labels: tuple[int, ...] | None = None
    """The class of each file."""
    classes: tuple[str, ...] = ()
    splits: tuple[str, ...] | None = None
    """The split of each file."""
    split: str = "all"
    """Which split was asked for."""
    labelled_by: str = ""
    """What the labels are from: `folders`, a table, attributes."""
    absent: tuple[str, ...] = ()
    """What a list names and the source has not."""
    others: tuple[str, ...] = ()
    """The files that are not called like images."""
    original: tuple[int, int] | None = None
    """The height and width that every file must have."""
    notes: tuple[str, ...] = ()


def folder(root: Path, labels: str = "") -> Listing:
    """Every image of a tree or .zip.

    Labels are `folders`, for the folders at the top, the path of a CSV file, or empty for none.

    Raises:
        DataError: there are no images, or the labels do not fit them.
    """
    source = source_at(root)
    found = source.found()
    if not labels:
        return Listing("folder", root, source, found.files, others=found.others)
    if labels == "folders":
        classes, of = from_folders(root, found)
    else:
        labels = str(Path(labels).absolute())
        classes, of = from_table(Path(labels), [file.name for file in found.files])
    present = {file.name for file in found.files}
    return Listing(
        "folder",
        root,
        source,
        found.files,
        tuple(of[file.name] for file in found.files),
        classes,
        labelled_by=labels,
        absent=tuple(sorted(set(of) - present)),
        others=found.others,
    )


def refuse_empty_classes(classes: Sequence[str], labels: Iterable[int]) -> None:
    """Refuse classes of which there is no image.

    Raises:
        DataError: with how many each class has.
    """
    counts = Counter(labels)
    empty = [name for index, name in enumerate(classes) if not counts[index]]
    if empty:
        rest: Mapping[str, int] = {
            name: counts[index] for index, name in enumerate(classes) if counts[index]
        }
        held = ", ".join(f"{shown(name)} {count:,}" for name, count in list(rest.items())[:20])
        raise DataError(
            f"{len(empty):,} of {len(classes):,} classes have no image: {some(empty)}\n"
            f"  the others: {held or 'none'}"
        )


def some(names: Sequence[str], count: int = 5) -> str:
    """The first few of a long list of names."""
    more = f", and {len(names) - count:,} more" if len(names) > count else ""
    return ", ".join(map(shown, names[:count])) + more
