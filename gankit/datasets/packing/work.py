"""What workers do with the images of a block: measure them, look at them, or pack them."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gankit.datasets.decoding import Framing, opened, reason
from gankit.datasets.packing.duplicates import thumbnail
from gankit.datasets.packing.looking import Decoder, Seen, look, measured
from gankit.datasets.packing.pool import Watch, spread
from gankit.datasets.packing.sources import File, Source, shown
from gankit.errors import DataError

__all__ = ["Block", "Done", "Job", "look_at", "mixed", "one_size", "pack_block", "sum_of"]

BLOCK_BYTES = 2**22
BLOCK_ROWS = 256
BUFFER = 2**19
"""Bytes that are written at a time."""

Looked = tuple[Seen, NDArray[np.uint8] | None]
"""What a file is, and its pixels or a thumbnail of them."""
Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know."""

    source: Source
    files: tuple[File, ...]
    framing: Framing
    original: tuple[int, int] | None = None
    convert: bool = False
    decoder: Decoder = "pillow"
    target: Path = Path()

    @property
    def row_bytes(self) -> int:
        """The bytes of a packed image."""
        channels, height, width = self.framing.shape
        return channels * height * width

    @property
    def rows(self) -> int:
        """The images of a block: about 4 MiB, and no more than shows progress."""
        return max(1, min(BLOCK_ROWS, BLOCK_BYTES // self.row_bytes))

    @property
    def blocks(self) -> range:
        """The numbers of the blocks."""
        return range(-(-len(self.files) // self.rows))

    def part(self, block: int) -> tuple[File, ...]:
        """The files of a block."""
        return self.files[block * self.rows : (block + 1) * self.rows]


class Block(NamedTuple):
    """A block to pack, and the sum it has if it was packed before."""

    number: int
    sha256: str = ""


class Done(NamedTuple):
    """A packed block; without files where it was there already."""

    number: int
    sha256: str
    seen: tuple[Seen, ...]


def pack_block(job: Job, block: Block) -> Done:
    """Decode a block's files and write them to their place in the target; bad ones are zeros."""
    part = job.part(block.number)
    start, length = block.number * job.rows * job.row_bytes, len(part) * job.row_bytes
    if block.sha256 and sum_of(job.target, start, length) == block.sha256:
        return Done(block.number, block.sha256, ())
    # An image at a time, while the cache holds it: a sum of the whole block is slower.
    empty = np.zeros(job.framing.shape, np.uint8)
    seen, digest = [], hashlib.sha256()
    with _quiet(), job.target.open("r+b", buffering=BUFFER) as stream:
        stream.seek(start)
        for file in part:
            one, pixels = _look(job, file)
            seen.append(one)
            content = (empty if pixels is None else pixels).data.cast("B")
            digest.update(content)
            stream.write(content)
    return Done(block.number, digest.hexdigest(), tuple(seen))


def look_at(job: Job, block: int) -> tuple[int, list[Looked]]:
    """Decode a block's files, and keep of each only a thumbnail by which it is told from others."""
    with _quiet():
        looked = [_look(job, file) for file in job.part(block)]
    return block, [(seen, None if pixels is None else thumbnail(pixels)) for seen, pixels in looked]


def sum_of(path: Path, start: int, length: int) -> str:
    """The SHA-256 of a piece of a file."""
    with path.open("rb") as stream:
        stream.seek(start)
        return hashlib.sha256(stream.read(length)).hexdigest()


def one_size(job: Job, workers: int, watch: Watch) -> Size | None:
    """The size that all files have; None where none of them is an image.

    Raises:
        DataError: they have several; says which, and how many files have each.
    """
    sizes: dict[str, Size] = {}
    done = 0
    for block, found in spread(_sizes_in, job, job.blocks, workers):
        names = [file.name for file in job.part(block)]
        sizes |= {name: size for name, size in zip(names, found, strict=True) if size}
        done += len(found)
        watch("measured", done, len(job.files), 0)
    if problem := mixed(sizes.items()):
        raise DataError(problem)
    return next(iter(sizes.values()), None)


def mixed(sizes: Iterable[tuple[str, Size]]) -> str:
    """In words, which sizes there are and what to do; empty where there is only one."""
    counts: Counter[Size] = Counter()
    first: dict[Size, str] = {}
    for name, size in sorted(sizes):
        counts[size] += 1
        first.setdefault(size, name)
    if len(counts) < 2:
        return ""
    held = sorted(counts, key=lambda size: (-counts[size], size))
    listed = [f"  {h} x {w}: {counts[h, w]:,}, {shown(first[h, w])}" for h, w in held[:10]]
    if len(held) > 10:
        listed.append(f"  and {len(held) - 10:,} more")
    return "\n".join(
        [
            f"the images have {len(held):,} sizes (height x width)",
            *listed,
            "  --crop 0 takes the largest piece of each, --crop N the N x N pixels of its centre",
        ]
    )


def _sizes_in(job: Job, block: int) -> tuple[int, list[Size | None]]:
    """Height and width of a block's files, from their headers; None for what is no image."""
    found: list[Size | None] = []
    for file in job.part(block):
        try:
            with _quiet(), job.source.open(file.name) as stream, opened(stream) as image:
                size = measured(image)
                found.append(None if size == (1, 1) else size)  # one pixel is bad in any case
        except Exception:  # whatever is wrong with it is told when it is decoded
            found.append(None)
    return block, found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings: what matters is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _look(job: Job, file: File) -> Looked:
    try:
        data = job.source.read(file.name)
        if len(data) != file.bytes:
            raise ValueError("changed since its folder was listed")
    # Of an archive's member: a wrong sum, a method that is not known, a password.
    except Exception as error:
        return Seen("", 0, 0, "", "", reason(error)), None
    return look(data, job.framing, convert=job.convert, decoder=job.decoder, original=job.original)
