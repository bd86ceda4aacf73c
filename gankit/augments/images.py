"""Changes of single images: mirrored, moved, in other colours, with a piece cut out.

Each image of a batch is changed by numbers of its own, which the CPU draws, so that every device
changes the same images in the same way.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gankit.errors import OptionError
from gankit.randomness import drawn, sent
from gankit.registry import augment

__all__ = ["color", "cutout", "flip", "translation"]


@augment("flip", needs={"positions"})
def flip(images: Tensor, random: torch.Generator, /, *, p: float = 0.5) -> Tensor:
    """Mirrors each image left to right with a probability.

    One of the operations of ADA, Karras et al., "Training Generative Adversarial Networks with
    Limited Data", 2020, arXiv:2006.06676, section 2.

    At 0.5, D cannot tell an image from its mirror, so G is free to make either.

    Options:
        p: the probability, for every image on its own

    Shape: (B, C, H, W), kept.

    Raises:
        OptionError: a probability out of [0, 1].
        ValueError: points rather than images.
    """
    if not 0 <= p <= 1:
        raise OptionError("p", f"flip: p must be in [0, 1], not {p}")
    _check("flip", images)
    chosen = sent(drawn(random, len(images)) < p, images.device).view(-1, 1, 1, 1)
    return torch.where(chosen, images.flip(-1), images)


@augment("color", needs={"positions"})
def color(
    images: Tensor,
    random: torch.Generator,
    /,
    *,
    brightness: float = 0.5,
    saturation: float = 1.0,
    contrast: float = 0.5,
) -> Tensor:
    """Changes the brightness, the saturation and the contrast of each image.

    DiffAugment's `color`, Zhao et al., "Differentiable Augmentation for Data-Efficient GAN
    Training", 2020, arXiv:2006.10738, section 3.2, with the strengths of its released code.

    Brightness is added to every value; saturation scales what each pixel's channels differ from
    their mean, which of images of one channel is nothing; contrast scales what all values differ
    from their mean. Each is drawn evenly from a range about what changes nothing. The order in
    which they are done makes no difference.

    Options:
        brightness: at most so much is added, in units of the image's values; at least 0, for none
        saturation: at most so much more or less than 1 is the scale; in [0, 1], 0 for none
        contrast: at most so much more or less than 1 is the scale; in [0, 1], 0 for none

    Shape: (B, C, H, W), kept.

    Raises:
        OptionError: a strength out of its range.
        ValueError: points rather than images.
    """
    if not 0 <= brightness < math.inf:
        message = f"color: brightness must be at least 0, not {brightness}"
        raise OptionError("brightness", message)
    if not 0 <= saturation <= 1:
        raise OptionError("saturation", f"color: saturation must be in [0, 1], not {saturation}")
    if not 0 <= contrast <= 1:
        raise OptionError("contrast", f"color: contrast must be in [0, 1], not {contrast}")
    _check("color", images)
    evenly = 2 * drawn(random, len(images), 3) - 1
    lighter, purer, harder = sent(evenly, images.device).to(images).view(-1, 3, 1, 1, 1).unbind(1)
    grey = images.mean(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    scale = 1 + contrast * harder
    base = mean + brightness * lighter + scale * (grey - mean)
    return base + (1 + saturation * purer) * scale * (images - grey)


@augment("translation", needs={"positions"})
def translation(images: Tensor, random: torch.Generator, /, *, ratio: float = 0.125) -> Tensor:
    """Moves each image by whole pixels, up or down and left or right; what comes in is 0.

    DiffAugment's `translation`, Zhao et al., "Differentiable Augmentation for Data-Efficient GAN
    Training", 2020, arXiv:2006.10738, section 3.2.

    Options:
        ratio: how far at most, as a share of the height and of the width, rounded to pixels; in
            [0, 1]

    Shape: (B, C, H, W), kept.

    Raises:
        OptionError: a share out of [0, 1].
        ValueError: points rather than images.
    """
    _check_ratio("translation", ratio)
    _check("translation", images)
    height, width = images.shape[2:]
    far = [_rounded(ratio * size) for size in (height, width)]
    down, right = _whole(random, images, *(2 * pixels + 1 for pixels in far))
    row, column = _from(down - far[0], height), _from(right - far[1], width)
    # Taken around the edges and then set to 0, so that no pixel is taken twice.
    source = (row % height * width)[:, :, None] + (column % width)[:, None]
    source = source.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    there = _both((row >= 0) & (row < height), (column >= 0) & (column < width))
    return images.flatten(2).gather(2, source).view(images.shape).masked_fill(~there, 0)


@augment("cutout", needs={"positions"})
def cutout(images: Tensor, random: torch.Generator, /, *, ratio: float = 0.5) -> Tensor:
    """Sets a rectangle at a random place of each image to 0; where it juts out, less is cut.

    DiffAugment's `cutout`, Zhao et al., "Differentiable Augmentation for Data-Efficient GAN
    Training", 2020, arXiv:2006.10738, section 3.2, with places drawn as in its released code: the
    middle of the rectangle is any pixel, or any corner of one where a side is even.

    Options:
        ratio: the rectangle's sides as a share of the height and of the width, rounded to pixels;
            in [0, 1]

    Shape: (B, C, H, W), kept.

    Raises:
        OptionError: a share out of [0, 1].
        ValueError: points rather than images.
    """
    _check_ratio("cutout", ratio)
    _check("cutout", images)
    height, width = images.shape[2:]
    sides = [_rounded(ratio * size) for size in (height, width)]
    # An even side has its middle between two pixels, of which there is one more.
    counts = height + 1 - sides[0] % 2, width + 1 - sides[1] % 2
    down, right = _whole(random, images, *counts)
    row, column = _from(down - sides[0] // 2, height), _from(right - sides[1] // 2, width)
    cut = _both((row >= 0) & (row < sides[0]), (column >= 0) & (column < sides[1]))
    return images.masked_fill(cut, 0)


def _rounded(pixels: float) -> int:
    """Half pixels up, as DiffAugment does; Python rounds them to even."""
    return int(pixels + 0.5)


def _whole(random: torch.Generator, images: Tensor, *counts: int) -> tuple[Tensor, ...]:
    """Numbers for every image, each from 0 to below its count, (B, 1)."""
    # A number below 1, times a count, stays below the count in float32 too.
    numbers = drawn(random, len(images), len(counts)) * torch.tensor(counts, device="cpu")
    return sent(numbers.long(), images.device)[..., None].unbind(1)


def _from(start: Tensor, size: int) -> Tensor:
    """How far each of so many pixels lies behind a start: (B, 1) to (B, size)."""
    return torch.arange(size, device=start.device) - start


def _both(rows: Tensor, columns: Tensor) -> Tensor:
    """Where both hold, of (B, H) and (B, W): (B, 1, H, W)."""
    return rows[:, None, :, None] & columns[:, None, None, :]


def _check(name: str, images: Tensor) -> None:
    if images.ndim != 4:
        message = f"{name}: needs images (B, C, H, W), not a shape of {tuple(images.shape)}"
        raise ValueError(message)


def _check_ratio(name: str, ratio: float) -> None:
    if not 0 <= ratio <= 1:
        raise OptionError("ratio", f"{name}: ratio must be in [0, 1], not {ratio}")
