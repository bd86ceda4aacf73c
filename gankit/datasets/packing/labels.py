"""Classes of images: from the folders they lie in, or from a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from gankit.datasets.decoding import reason
from gankit.datasets.packing.sources import Found, shown
from gankit.errors import DataError

__all__ = ["from_folders", "from_table", "numbered"]

HEADER = ["file", "label"]

Classes = tuple[tuple[str, ...], dict[str, int]]
"""The names of the classes in order, and which of them each file is of."""


def from_folders(root: Path, found: Found) -> Classes:
    """A class for each folder at the top, in the order of their names.

    Raises:
        DataError: an image lies in none of them, or there is only one.
    """
    loose = [f.name for f in found.files if "/" not in f.name.removeprefix(found.base)]
    if loose:
        raise DataError(
            f"{root}: {len(loose):,} of {len(found.files):,} images lie in no sub-folder, and have"
            f" no class: {shown(loose[0])}"
        )
    if len(found.folders) < 2:
        raise DataError(f"{root}: classes are sub-folders, and there is only one")
    index = {name: place for place, name in enumerate(found.folders)}
    of = {f.name: index[f.name.removeprefix(found.base).partition("/")[0]] for f in found.files}
    return found.folders, of


def from_table(path: Path, names: Sequence[str]) -> Classes:
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
            f"{path}: {len(unlabelled):,} of {len(names):,} images have no label:"
            f" {shown(unlabelled[0])}"
        )
    return numbered(of)


def numbered(of: Mapping[str, str]) -> Classes:
    """Labels as numbers from 0: their own, or places in the order of their names."""
    values = set(of.values())
    if all(value.isdecimal() and value.isascii() for value in values):
        count = 1 + max(map(int, values), default=-1)
        if count > 10 * len(of):
            raise DataError(f"labels go up to {count - 1:,} for {len(of):,} images")
        return tuple(map(str, range(count))), {name: int(value) for name, value in of.items()}
    index = {value: place for place, value in enumerate(sorted(values))}
    return tuple(index), {name: index[value] for name, value in of.items()}
