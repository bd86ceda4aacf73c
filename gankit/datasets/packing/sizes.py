"""Whether all images have one size, seen from their headers before anything is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gankit.datasets.packing.pool import spread
from gankit.datasets.packing.progress import Watch
from gankit.datasets.packing.sources import shown
from gankit.datasets.packing.work import Job, sizes_in
from gankit.errors import DataError

__all__ = ["mixed", "one_size"]

Size = tuple[int, int]
"""Height and width."""


def one_size(job: Job, workers: int, watch: Watch) -> Size | None:
    """The size that all files have; None where none of them is an image.

    Raises:
        DataError: they have several; says which, and how many files have each.
    """
    sizes: dict[str, Size] = {}
    done = 0
    for block, found in spread(sizes_in, job, job.blocks, workers):
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
        listed.append(f"  and {len(held) - 10:,} more sizes")
    return "\n".join(
        [
            f"the images have {len(held):,} sizes (height x width)",
            *listed,
            "  --crop 0 takes the largest piece of each, --crop N the N x N pixels of its centre",
        ]
    )
