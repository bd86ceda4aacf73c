"""Pictures in rows and columns with words around them, for a person to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from torch import Tensor

from gankit.datasets import to_uint8

__all__ = ["CELL", "enlarged", "sheet"]

CELL = 96
"""The least height of a picture on a sheet, in pixels; smaller ones are enlarged."""
GAP, MARGIN = 4, 16
INK, PALE, PAPER = (34, 34, 34), (110, 110, 110), "white"


def enlarged(images: Tensor, least: int = CELL) -> list[Pillow.Image]:
    """Each image in RGB, by a whole factor as high as `least` or higher.

    Shape: (B, 1 or 3, H, W), floats in [-1, 1] or bytes.

    Raises:
        ValueError: they are neither grey nor RGB.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"pictures are (B, 1 or 3, H, W), not {tuple(images.shape)}")
    factor = math.ceil(least / images.shape[2])
    pixels = to_uint8(images).cpu().expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    pixels = pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    return [Pillow.fromarray(image.contiguous().numpy()) for image in pixels]


def sheet(
    rows: Sequence[Sequence[Pillow.Image]],
    *,
    title: str,
    notes: Sequence[str] = (),
    columns: Sequence[str] = (),
    names: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    colours: Sequence[tuple[int, int, int]] = (),
    apart: int = 0,
) -> Pillow.Image:
    """Rows of pictures of one size.

    `columns` stand above them and `names` before them, `captions` under each picture; `colours` are
    those of the columns' words. The first `apart` columns stand apart from the others.
    """
    wide, high = rows[0][0].size
    fonts = {size: ImageFont.load_default(size) for size in (20, 14, 12)}
    left = MARGIN + (max(_width(fonts[14], name) for name in names) + 10 if names else 0)
    under = 18 if captions else 0
    head = MARGIN + 30 + 20 * len(notes) + (26 if columns else 6)
    split = 12 if apart else 0
    count = max(len(row) for row in rows)
    right = left + count * (wide + GAP) - GAP + split
    words = [_width(fonts[20], title), *(_width(fonts[14], note) for note in notes)]
    width = max(right, MARGIN + max(words)) + MARGIN
    height = head + len(rows) * (high + under + GAP) - GAP + MARGIN
    page = Pillow.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN - 4), title, INK, fonts[20])
    for line, note in enumerate(notes):
        draw.text((MARGIN, MARGIN + 26 + 20 * line), note, PALE, fonts[14])

    def across(column: int) -> int:
        return left + column * (wide + GAP) + (split if column >= apart else 0)

    for column, name in enumerate(columns):
        colour = colours[column] if colours else PALE
        draw.text((across(column) + wide / 2, head - 8), name, colour, fonts[14], "ms")
    for line, row in enumerate(rows):
        top = head + line * (high + under + GAP)
        if names:
            draw.text((left - 10, top + high / 2), names[line], PALE, fonts[14], "rm")
        for column, image in enumerate(row):
            page.paste(image, (across(column), top))
            if captions and captions[line][column]:
                middle = across(column) + wide / 2, top + high + 14
                draw.text(middle, captions[line][column], PALE, fonts[12], "ms")
    return page


def _width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> int:
    return math.ceil(font.getlength(text))
