"""What is packed so far, so that a pack that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gankit.datasets.packing.looking import Seen, versions
from gankit.datasets.packing.manifest import replace
from gankit.datasets.packing.sources import fingerprint
from gankit.datasets.packing.work import Done, Job

__all__ = ["JOURNAL", "Journal"]

JOURNAL = "journal.jsonl"


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
