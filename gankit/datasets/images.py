"""Between bytes and [-1, 1], and from a batch to one picture that people can look at."""

from __future__ import annotations

import math

import torch
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from torch import Tensor

from gankit.datasets.checks import at_least

__all__ = ["image_grid", "scatter", "to_float", "to_uint8"]

WIDE = 512
"""The least width of a picture, in pixels."""


def to_float(images: Tensor) -> Tensor:
    """Bytes 0 to 255 as float32 in [-1, 1]; floats as they are.

    Raises:
        TypeError: for whole numbers that are not bytes.
    """
    if images.is_floating_point():
        return images
    if images.dtype != torch.uint8:
        raise TypeError(f"images are uint8 or float, not {str(images.dtype)[6:]}")
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Floats in [-1, 1] as the nearest bytes; bytes as they are.

    What lies outside becomes black or white, and what is not a number middle grey.

    Raises:
        TypeError: for whole numbers that are not bytes.
    """
    bytes_ = (to_float(images).detach().float().nan_to_num(0.0) + 1) * 127.5
    return bytes_.round().clamp(0, 255).to(torch.uint8)


def image_grid(images: Tensor, columns: int | None = None, padding: int = 2) -> Pillow.Image:
    """Images side by side, row by row, on white.

    Small ones are enlarged by a whole factor until the grid is 512 pixels wide; without `columns`
    it is about as high as wide.

    Shape: (B, 1 or 3, H, W), floats in [-1, 1] or bytes.

    Raises:
        ValueError: when there is no image, or it is neither grey nor RGB.
    """
    if images.dim() != 4 or not len(images) or images.shape[1] not in (1, 3):
        raise ValueError(f"a grid is made of (B, 1 or 3, H, W) images, not {tuple(images.shape)}")
    at_least("columns", 1 if columns is None else columns, 1)
    at_least("padding", padding, 0)
    count, _, height, width = images.shape
    columns = min(count, columns or math.ceil(math.sqrt(count * height / width)))
    factor = max(1, math.ceil((WIDE - padding * (columns + 1)) / (columns * width)))
    pixels = to_uint8(images).cpu().permute(0, 2, 3, 1)
    pixels = pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    across, down = width * factor + padding, height * factor + padding
    shape = (padding + down * math.ceil(count / columns), padding + across * columns)
    sheet = torch.full((*shape, images.shape[1]), 255, dtype=torch.uint8)
    for place, image in enumerate(pixels):
        top, left = padding + place // columns * down, padding + place % columns * across
        sheet[top : top + height * factor, left : left + width * factor] = image
    return Pillow.fromarray(sheet.squeeze(2).numpy())


def scatter(points: Tensor, real: Tensor | None = None) -> Pillow.Image:
    """Points in the plane as dots, over grey dots for the real ones where they are given.

    The view is fitted to the real points, else to `points`; those beyond it are drawn on its
    border, those that are not finite not at all. Both axes have one scale, y upwards, and the
    corners are labelled with their coordinates.

    Shape: (B, 2), 512 x 512 pixels.

    Raises:
        ValueError: when the points are not in the plane.
    """
    layers = (
        [(points, (31, 105, 190))]
        if real is None
        else [
            (real, (205, 205, 205)),
            (points, (31, 105, 190)),
        ]
    )
    for some, _ in layers:
        if some.dim() != 2 or some.shape[1] != 2:
            raise ValueError(f"points to scatter are (B, 2), not {tuple(some.shape)}")
    layers = [(_finite(some), colour) for some, colour in layers]
    fitted = layers[0][0]
    low, high = (fitted.amin(0), fitted.amax(0)) if len(fitted) else (-torch.ones(2), torch.ones(2))
    centre = (low + high) / 2
    reach = 0.6 * max(float((high - low).max()), 1e-6)

    # Drawn at twice the size and reduced, because ImageDraw does not anti-alias.
    side, margin, dot = 2 * WIDE, 40, 2.5
    sheet = Pillow.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((margin, margin, side - margin, side - margin), outline=(170, 170, 170), width=2)
    for some, colour in layers:
        offset = ((some - centre) / reach).clamp(-1, 1) * torch.tensor([1.0, -1.0])
        for x, y in (side / 2 + offset * (side / 2 - margin)).tolist():
            draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=colour)
    bottom, top = (centre - reach).tolist(), (centre + reach).tolist()
    ink, font = (90, 90, 90), ImageFont.load_default(22)
    for x, y, anchor, corner in (
        (margin, side - margin + 6, "la", bottom),
        (side - margin, margin - 6, "rs", top),
    ):
        draw.text((x, y), f"({corner[0]:.3g}, {corner[1]:.3g})", ink, font, anchor)
    return sheet.resize((WIDE, WIDE), Pillow.Resampling.LANCZOS)


def _finite(points: Tensor) -> Tensor:
    points = points.detach().to("cpu", torch.float32)
    return points[points.isfinite().all(1)]
