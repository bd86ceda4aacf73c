"""Images that are there more than once, as they are or nearly so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

__all__ = ["alike", "close_pairs", "equal", "thumbnail"]

BITS = 3
"""The most bits in which two images' signs of slope may differ."""
LEVELS = 4.0
"""The most grey levels by which two thumbnails may differ on average."""
CHUNK = 2**22


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image in 8 x 9 grey pixels."""
    grey = pixels.mean(0).round().astype(np.uint8)
    return np.asarray(Pillow.fromarray(grey).resize((9, 8), Pillow.Resampling.BOX))


def equal(keys: Sequence[Hashable]) -> list[list[int]]:
    """The places of keys that are there more than once."""
    places: dict[Hashable, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        places[key].append(place)
    return [group for group in places.values() if len(group) > 1]


def alike(thumbnails: NDArray[np.uint8]) -> list[list[int]]:
    """Groups of images that look alike: equal but for compression and size.

    Shape: (N, 8, 9). Two belong together whose grey values rise and fall from left to right at
    the same places but for 3 of 64 (a difference hash), and differ by 4 of 255 on average. Mirrored
    or shifted copies are not found.
    """
    flat = thumbnails.reshape(len(thumbnails), 72)
    # Each thumbnail once: a thousand black images would make half a million pairs.
    flat, places = np.unique(flat, axis=0, return_inverse=True)
    rising = np.diff(flat.reshape(-1, 8, 9).astype(np.int16)) > 0
    hashes = np.packbits(rising.reshape(len(rising), 64), axis=1).view(np.uint64)[:, 0]
    leaders = np.arange(len(flat))
    for one, other in close_pairs(hashes):
        near = np.abs(flat[one].astype(np.int16) - flat[other]).mean(1) <= LEVELS
        leaders = _joined(leaders, one[near], other[near])
    return equal(leaders[places.reshape(-1)].tolist())


def close_pairs(hashes: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """All pairs of 64-bit numbers that differ in at most 3 bits, in chunks; some come twice.

    Of four words of 16 bits such a pair has one in common.
    """
    waiting: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    for group in _groups(hashes):
        step = max(1, CHUNK // len(group))
        for start in range(0, len(group), step):
            part = group[start : start + step]
            row, other = np.nonzero(_bits(hashes[part][:, None] ^ hashes[group]) <= BITS)
            later = group[other] > part[row]  # each pair once
            waiting.append((part[row[later]], group[other[later]]))
            if sum(len(one) for one, _ in waiting) > CHUNK or len(waiting) > 10_000:
                yield _together(waiting)
                waiting = []
    if waiting:
        yield _together(waiting)


def _groups(hashes: NDArray[np.uint64]) -> Iterator[NDArray[np.intp]]:
    """The places of numbers with a word of 16 bits in common, two or more."""
    for column in hashes.view(np.uint16).reshape(-1, 4).T:
        order = np.argsort(column, kind="stable")
        ends = np.flatnonzero(np.diff(column[order])) + 1
        yield from (group for group in np.split(order, ends) if len(group) > 1)


def _bits(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """How many bits of each number are set; numpy counts them itself only since 2.0."""
    odd, low = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
    numbers = numbers - ((numbers >> np.uint64(1)) & odd)
    numbers = (numbers & low) + ((numbers >> np.uint64(2)) & low)
    numbers = (numbers + (numbers >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (numbers * np.uint64(0x0101010101010101)) >> np.uint64(56)


def _together(
    pairs: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.concatenate([one for one, _ in pairs]), np.concatenate([two for _, two in pairs])


def _joined(
    leaders: NDArray[np.intp], one: NDArray[np.intp], other: NDArray[np.intp]
) -> NDArray[np.intp]:
    """The least member of everyone's group, when each pair is made one group."""
    while True:
        first = np.minimum(leaders[one], leaders[other])
        second = np.maximum(leaders[one], leaders[other])
        if (first == second).all():
            return leaders
        np.minimum.at(leaders, second, first)
        while (leaders[leaders] != leaders).any():
            leaders = leaders[leaders]
