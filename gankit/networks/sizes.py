"""What the presets share: how often sizes are halved, how wide stages are, where attention goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

from gankit import blocks
from gankit.activations import tanh
from gankit.attentions import NoAttention
from gankit.errors import OptionError
from gankit.slots import Attention, Block, Image

__all__ = [
    "Heads",
    "base_of",
    "given_widths",
    "halvings_of",
    "head_of",
    "to_range",
    "widths_of",
    "with_attention",
]

Heads = Literal["dense", "projection", "auxiliary", "rotation"]


def halvings_of(image: Image, name: str) -> int:
    """How often the image's sides are halved to reach a base of 4 to 7 positions.

    Raises:
        OptionError: the image has no such base; names the nearest sizes that do.
    """
    if not image.size:
        raise OptionError("use", f'"{name}" makes images; the data are points, use "mlp"')
    side = min(image.size)
    for count in range(1, 20):
        step = 2**count
        if 4 <= side // step < 8 and not any(s % step for s in image.size):
            return count
    height, width = image.size
    near = " and ".join(f"{h}x{w}" for h, w in _nearest(height, width))
    raise OptionError(
        "size",
        f'"{name}" cannot make {height}x{width}: both sides must halve evenly until the smaller one'
        f" is 4 to 7; the nearest that can are {near}",
    )


def _nearest(height: int, width: int) -> list[tuple[int, int]]:
    """The two sizes nearest to one that cannot be halved; of a square, squares."""
    fits = set()
    for step in (2**count for count in range(1, 10)):
        for base in range(4, 8):
            ratio = max(height, width) / min(height, width)
            longer = base if ratio == 1 else max(base, round(max(height, width) / step))
            fits.add((base * step, longer * step))
    pairs = {(a, b) if height <= width else (b, a) for a, b in fits}
    return sorted(sorted(pairs, key=lambda p: (abs(p[0] - height) + abs(p[1] - width), p))[:2])


def widths_of(width: int, width_max: int, count: int) -> list[int]:
    """Channels from the image inwards, doubled per halving up to the greatest."""
    if not width >= 1:
        raise OptionError("width", f"width {width} leaves no channels")
    if width_max < width:
        raise OptionError("width_max", f"width_max {width_max} is below width {width}")
    return [min(width * 2**level, width_max) for level in range(count)]


def given_widths(widths: tuple[int, ...], image: Image, resized: int, name: str) -> list[int]:
    """Channels as they are given, of a network that changes the size so many times.

    Raises:
        OptionError: a width below 1, or a size that cannot be halved that often.
    """
    if not image.size:
        raise OptionError("use", f'"{name}" makes images; the data are points, use "mlp"')
    for index, width in enumerate(widths):
        if width < 1:
            raise OptionError("widths", f"width {width} leaves no channels", index)
    if resized < 1:
        raise OptionError("widths", "too few widths: no stage is left that changes the size")
    if any(side % 2**resized for side in image.size):
        height, width = image.size
        message = f"{height}x{width} cannot be halved {resized} times, as {len(widths)} widths ask"
        raise OptionError("widths", message)
    return list(widths)


def head_of(head: Heads, image: Image, condition: str) -> Block:
    """What a discriminator ends with.

    Raises:
        OptionError: a projection without a condition, an auxiliary classifier without classes.
    """
    if head == "projection" and condition == "none":
        message = 'head "projection" needs a label: condition = "label", or an "embedding" of it'
        raise OptionError("condition", message)
    if head == "auxiliary" and not image.classes:
        raise OptionError("head", 'head "auxiliary" tells classes apart; the data has none')
    made: dict[Heads, Block] = {
        "dense": partial(blocks.dense, channels=1),
        "projection": blocks.Project,
        "auxiliary": partial(blocks.Classify, classes=image.classes),
        "rotation": partial(blocks.Classify, classes=4, head="rotations"),
    }
    return made[head]


def with_attention(
    stages: Sequence[tuple[int, list[Block]]], attention: Attention, at: tuple[int, ...]
) -> Iterator[Block]:
    """The stages of each height, in order, with attention after those of a height in `at`."""
    heights = [height for height, _ in stages]
    if attention is not NoAttention and not at:
        have = ", ".join(str(h) for h in sorted(set(heights)))
        raise OptionError(
            "attention_at", f"nothing says where the attention goes: at which of {have}"
        )
    for index, height in enumerate(at):
        if height not in heights:
            have = ", ".join(str(h) for h in sorted(set(heights)))
            message = f"this network has no feature map of height {height}; it has {have}"
            raise OptionError("attention_at", message, index)
    for index, (height, made) in enumerate(stages):
        yield from made
        last = height not in heights[index + 1 :]
        if height in at and last and attention is not NoAttention:
            yield partial(blocks.Attend, attention=attention)


def base_of(image: Image, halvings: int) -> tuple[int, int]:
    """Height and width that are left of an image."""
    height, width = image.size  # type: ignore[misc]
    return height // 2**halvings, width // 2**halvings


def to_range(image: Image) -> list[Block]:
    """The last stage of a generator: tanh where images are bounded."""
    return [partial(blocks.activate, activation=tanh)] if image.bounded else []
