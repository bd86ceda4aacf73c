"""The folder that is packed into: whose it is, and whether there is room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gankit.datasets.packing.journal import JOURNAL
from gankit.datasets.packing.manifest import FILES, IMAGES, MANIFEST, ROWS
from gankit.datasets.packing.sources import shown
from gankit.errors import DataError

__all__ = ["BAD", "locked", "make_room", "refuse_strange", "remove"]

BAD = "bad.csv"
"""The files that are left out, and why."""
LOCK = ".lock"
# The manifest goes first: without it nothing is read.
OURS = (MANIFEST, JOURNAL, IMAGES, ROWS, FILES, BAD)


@contextmanager
def locked(folder: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder, once nobody else does; the lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        with suppress(ImportError):  # where there is no fcntl, there is no lock
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"another process is packing into {folder}: waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def refuse_strange(folder: Path) -> None:
    """Refuse a folder in which there are files of others.

    Raises:
        DataError: naming one.
    """
    ours = {LOCK, *OURS, *(f".{name}.tmp" for name in OURS)}
    others = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if others:
        raise DataError(
            f"{folder} has other files in it, {shown(others[0])} for one\n"
            "  choose a new or empty folder with --out"
        )


def remove(folder: Path) -> None:
    """Take away what was packed; a process that reads it keeps what it has opened."""
    refuse_strange(folder)
    for name in OURS:
        (folder / name).unlink(missing_ok=True)


def make_room(file: Path, size: int) -> None:
    """Make a file that large, without writing to it yet, if there is room.

    Raises:
        DataError: with how many bytes are needed.
    """
    with file.open("ab"):
        pass
    seen = file.stat()
    there = min(size, getattr(seen, "st_blocks", 0) * 512)
    free = shutil.disk_usage(file.parent).free
    if size - there > free:
        raise DataError(
            f"{file.parent}: no room: {size - there:,} bytes are needed, {free:,} are free"
        )
    os.truncate(file, size)
