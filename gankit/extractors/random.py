"""Features of a network that was never trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from gankit.errors import OptionError
from gankit.extractors.cache import digest
from gankit.extractors.checks import images_only, of_images
from gankit.randomness import generator
from gankit.registry import features
from gankit.slots import Dataset, Seen

__all__ = ["Random"]

CHANNELS = (32, 64, 128)
"""Of the first, the second and all further convolutions."""

SLOPE = 0.2


@features("random", needs={"positions"})
class Random:
    """A fixed random network of strided convolutions, which needs neither training nor a file.

    3x3 convolutions of stride 2 with leaky ReLU until no side is longer than 4, and
    a dense layer to `width`. Weights are uniform, with the variance of He et al.,
    arXiv:1502.01852, section 2.2. Distances see colours, edges and where they are, but know
    nothing of what an image shows: scores rank runs on one data set, and no more.

    Options:
        seed: of the weights; at least 0
        width: how long a vector is; at least 1

    Shape: images (B, C, H, W) to (B, width).

    Raises:
        OptionError: an option out of range.
        SpecError: data of points.
    """

    def __init__(self, data: Dataset, /, *, seed: int = 0, width: int = 64) -> None:
        images_only("random", data)
        for name, value, least in (("seed", seed, 0), ("width", width, 1)):
            if value < least:
                raise OptionError(name, f"random: {name} must be at least {least}, not {value}")
        self.image, self.seed, self.width = data.image, seed, width

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Each convolution's, and the dense layer's."""
        random = generator(self.seed, "features", "random")
        made: dict[str, Tensor] = {}
        channels, (height, width) = self.image.channels, _pair(self.image.size)
        while not made or max(height, width) > 4:
            out = CHANNELS[min(len(made), len(CHANNELS) - 1)]
            made[f"convolution{len(made)}"] = _uniform(random, out, channels, 3, 3)
            channels, height, width = out, (height + 1) // 2, (width + 1) // 2
        made["dense"] = _uniform(random, self.width, channels * height * width)
        return made

    @cached_property
    def card(self) -> Mapping[str, str]:
        """The weights by their hash, and where they come from."""
        layers = f"{len(self.weights) - 1} random convolutions, seed {self.seed}"
        return {"network": f"{layers}, width {self.width}", "weights": digest(self.weights)}

    @torch.no_grad()
    def __call__(self, images: Tensor, /) -> Seen:
        """What the network makes of the images.

        Raises:
            TypeError: anything but (B, C, H, W) uint8.
            ValueError: images of another shape than the data's.
        """
        if tuple(of_images(images).shape[1:]) != self.image.shape:
            shapes = f"{tuple(images.shape[1:])}, not {self.image.shape}"
            raise ValueError(f"random: images have the shape {shapes} as the data has")
        *convolutions, dense = (weight.to(images.device) for weight in self.weights.values())
        x = images.float() / 127.5 - 1
        for weight in convolutions:
            x = F.leaky_relu(F.conv2d(x, weight, stride=2, padding=1), SLOPE)
        return Seen(F.linear(x.flatten(1), dense))


def _pair(size: tuple[int, ...]) -> tuple[int, int]:
    height, width = size
    return height, width


def _uniform(random: torch.Generator, *shape: int) -> Tensor:
    """Weights that are the same to the bit on every machine: no sine, logarithm or QR in them."""
    bound = math.sqrt(6 / ((1 + SLOPE**2) * math.prod(shape[1:])))
    return (2 * torch.rand(shape, generator=random) - 1) * bound
