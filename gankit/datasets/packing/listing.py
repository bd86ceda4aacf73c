"""What is to be packed: files in order, with the class and the split of each."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gankit.datasets.decoding import reason
from gankit.datasets.packing.sources import File, Found, Source, shown, source_at
from gankit.errors import DataError

__all__ = ["SPLITS", "Listing", "folder", "refuse_empty_classes", "some"]

SPLITS = ("train", "valid", "test")
"""By the numbers that CelebA's own list gives them."""
HEADER = ["file", "label"]

Classes = tuple[tuple[str, ...], dict[str, int]]
"""The names of the classes in order, and which of them each file is of."""


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
        classes, of = _from_folders(root, found)
    else:
        labels = str(Path(labels).absolute())
        classes, of = _from_table(Path(labels), [file.name for file in found.files])
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
            f"classes without an image: {len(empty):,} of {len(classes):,} ({some(empty)})\n"
            f"  the others: {held or 'none'}"
        )


def some(names: Sequence[str], count: int = 5) -> str:
    """The first few of a long list of names."""
    more = f", and {len(names) - count:,} more" if len(names) > count else ""
    return ", ".join(map(shown, names[:count])) + more


def _from_folders(root: Path, found: Found) -> Classes:
    """A class for each folder at the top, in the order of their names.

    Raises:
        DataError: an image lies in none of them, or there is only one.
    """
    loose = [f.name for f in found.files if "/" not in f.name.removeprefix(found.base)]
    if loose:
        raise DataError(
            f"{root}: images in no sub-folder, which have no class: {len(loose):,} of"
            f" {len(found.files):,} ({some(loose)})"
        )
    if len(found.folders) < 2:
        raise DataError(f"{root}: classes are sub-folders, and there is only one")
    index = {name: place for place, name in enumerate(found.folders)}
    of = {f.name: index[f.name.removeprefix(found.base).partition("/")[0]] for f in found.files}
    return found.folders, of


def _from_table(path: Path, names: Sequence[str]) -> Classes:
    """Classes from a CSV file with the columns `file` and `label`.

    Labels that are all whole numbers are the classes' own numbers; others are put in order.

    Raises:
        DataError: it cannot be read, says something twice, or leaves an image out.
    """
    of: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream)
            if next(lines, None) != HEADER:
                raise DataError(f"{path}:1: the first line must be {','.join(HEADER)}")
            for line in filter(None, lines):
                if len(line) != len(HEADER):
                    raise DataError(f"{path}:{lines.line_num}: {len(line)} values, not 2")
                if line[0] in of:
                    raise DataError(f"{path}:{lines.line_num}: {shown(line[0])} is there twice")
                of[line[0]] = line[1]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {reason(error)}") from error
    unlabelled = [name for name in names if name not in of]
    if unlabelled:
        raise DataError(
            f"{path}: images without a label: {len(unlabelled):,} of {len(names):,}"
            f" ({some(unlabelled)})"
        )
    return _numbered(of)


def _numbered(of: Mapping[str, str]) -> Classes:
    """Labels as numbers from 0: their own, or places in the order of their names."""
    values = set(of.values())
    if all(value.isdecimal() and value.isascii() for value in values):
        count = 1 + max(map(int, values), default=-1)
        if count > 10 * len(of):
            raise DataError(f"labels go up to {count - 1:,} for {len(of):,} images")
        return tuple(map(str, range(count))), {name: int(value) for name, value in of.items()}
    index = {value: place for place, value in enumerate(sorted(values))}
    return tuple(index), {name: index[value] for name, value in of.items()}
