"""Sample grids as data URIs: a few of them, spread over the run, small enough for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

__all__ = ["Picture", "pictures"]

MOST = 16
"""Pictures in a page."""
BUDGET = 2_400_000
"""Bytes for all of them."""
WIDTHS = (1024, 768, 512, 256)
"""What a picture that is too large is reduced to, the first that fits."""


@dataclass(frozen=True)
class Picture:
    """A sample grid as a page holds it."""

    step: int
    uri: str
    width: int
    height: int
    reduced: bool
    """Whether it is a smaller copy, as JPEG; the file is untouched."""


def pictures(files: Sequence[tuple[int, Path]]) -> list[Picture]:
    """Some of the files, evenly spread and the first and last among them.

    One that is no whole PNG is left out: a run may be writing it just now.
    """
    share = BUDGET // max(1, min(len(files), MOST))
    found = [_picture(step, path, share) for step, path in _spread(files)]
    return [picture for picture in found if picture]


def _spread(files: Sequence[tuple[int, Path]]) -> list[tuple[int, Path]]:
    if len(files) <= MOST:
        return list(files)
    return [files[round(i * (len(files) - 1) / (MOST - 1))] for i in range(MOST)]


def _picture(step: int, path: Path, share: int) -> Picture | None:
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            size, kind, reduced = image.size, "png", len(content) > share
            if reduced:
                kind, (content, size) = "jpeg", _reduced(image, share)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None  # in all these ways Pillow tells that a file is damaged
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(step, uri, *size, reduced)


def _reduced(image: Image.Image, share: int) -> tuple[bytes, tuple[int, int]]:
    image = image.convert("RGB")
    for width in WIDTHS:
        smaller = image.copy()
        smaller.thumbnail((width, 2 * width), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        smaller.save(stream, "JPEG", quality=88)
        if stream.tell() <= share:
            break
    return stream.getvalue(), smaller.size
