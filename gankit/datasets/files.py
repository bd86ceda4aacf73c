"""Which files of a folder are images, in an order that is always the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from gankit.datasets.decoding import reason
from gankit.errors import DataError

__all__ = ["SUFFIXES", "is_image", "names_below", "refuse_none", "stamp"]

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")


def is_image(name: str) -> bool:
    """Whether a file is called like an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122


def names_below(root: Path) -> list[str]:
    """Every file below `root`, as paths from there, in order; each folder once, links included.

    Names that begin with a dot are passed over.

    Raises:
        DataError: a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read {error.filename}: {reason(error)}") from error

    seen, found = {os.path.realpath(root)}, []
    for parent, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        inside = {name: os.path.realpath(Path(parent, name)) for name in folders}
        folders.clear()
        # In order, so that of two links to one folder the same one is always followed.
        for name, real in sorted(inside.items()):
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                folders.append(name)
        # One string for each folder, not a path for each of its files: there may be very many.
        inner = Path(parent).relative_to(root).as_posix()
        start = "" if inner == "." else f"{inner}/"
        found += [start + name for name in names if not name.startswith(".")]
    return sorted(found)


def stamp(root: Path, paths: Sequence[Path]) -> str:
    """A SHA-256 of which files there are below `root`, of how many bytes and changed when."""
    total = hashlib.sha256()
    for path in paths:
        told = path.stat()
        line = f"{path.relative_to(root).as_posix()} {told.st_size} {told.st_mtime_ns}\n"
        total.update(line.encode())
    return total.hexdigest()


def refuse_none(root: Path, images: int, files: int) -> None:
    """Refuse a place without images.

    Raises:
        DataError: says how many other files there are.
    """
    if not images:
        raise DataError(
            f"{root}: none of the {files} files in it is an image\n"
            f"  looked for {', '.join(SUFFIXES)} there and in its subfolders"
        )
