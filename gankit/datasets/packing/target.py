"""The folder that is packed into: whose it is, whether there is room, and how far it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from gankit.datasets.packing.looking import Seen, versions
from gankit.datasets.packing.manifest import FILES, IMAGES, MANIFEST, ROWS, replace
from gankit.datasets.packing.sources import fingerprint, shown
from gankit.datasets.packing.work import Done, Job
from gankit.errors import DataError

__all__ = ["BAD", "JOURNAL", "Journal", "locked", "make_room", "refuse_strange", "remove"]

JOURNAL = "journal.jsonl"
"""What is packed so far, so that a pack that was stopped goes on where it was."""
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


class _Record(NamedTuple):
    """A finished block."""

    sha256: str
    convert: bool
    stamps: list[list[int]]
    """Size and stamp of each file when it was read."""
    seen: tuple[Seen, ...]


class Journal:
    """A line for each finished block; the first says what is being packed.

    It is believed only where the block's sum agrees, so a line that reached the disk before its
    images did does no harm.
    """

    def __init__(self, path: Path, job: Job) -> None:
        self.path = path
        self.job = job
        self.about = _about(job)
        self.restarted: Mapping[str, Any] | None = None
        """What was being packed before, where that was something else."""
        self.records = self._read()

    def begin(self) -> None:
        """Go on with the journal there is, or start a new one."""
        lines = [json.dumps(self.about)]
        lines += [_line(index, *record) for index, record in self.records.items()]
        # Anew each time: the last line of a process that was killed may have been cut short.
        replace(self.path, "".join(f"{line}\n" for line in lines).encode())

    def sum_of(self, index: int) -> str:
        """The SHA-256 of a block that needs not be packed again, or nothing."""
        record = self.records.get(index)
        if record is None:
            return ""
        part = self.job.part(index)
        same = record.stamps == [[file.bytes, file.stamp] for file in part]
        as_wanted = record.convert == self.job.convert or not any(one.odd for one in record.seen)
        # What could not even be read may have been a passing fault.
        whole = all(one.sha256 for one in record.seen)
        return record.sha256 if same and as_wanted and whole else ""

    def note(self, done: Done) -> None:
        """Add a block that is packed, unless it was there already."""
        if not done.seen:
            return
        stamps = [[file.bytes, file.stamp] for file in self.job.part(done.number)]
        record = _Record(done.sha256, self.job.convert, stamps, done.seen)
        self.records[done.number] = record
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(_line(done.number, *record) + "\n")

    def _read(self) -> dict[int, _Record]:
        records: dict[int, _Record] = {}
        try:
            about, *lines = self.path.read_text(encoding="utf-8").splitlines()
            told = json.loads(about)
            if told != self.about:
                self.restarted = told
                return {}
            for line in lines:
                index, sha256, convert, stamps, seen = json.loads(line)
                record = _Record(sha256, convert, stamps, tuple(Seen(*one) for one in seen))
                records[index] = record
        except (OSError, ValueError, TypeError):
            pass  # none yet, or cut short: what came before counts
        return records


def _about(job: Job) -> dict[str, Any]:
    """What decides the bits of all blocks, as JSON gives it back."""
    about = {
        "shape": job.framing.shape,
        "crop": job.framing.piece,
        "original": job.original,
        "versions": versions(job.decoder),
        "decoder": job.decoder,
        "files": fingerprint(file.name for file in job.files),
        "rows": job.rows,
    }
    return dict(json.loads(json.dumps(about)))


def _line(index: int, *record: object) -> str:
    return json.dumps([index, *record])
