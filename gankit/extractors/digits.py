"""Handwritten digits as a classifier sees them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from gankit.extractors.cache import digest, kept
from gankit.extractors.checks import images_only, of_images
from gankit.extractors.classifier import INPUT, WIDTH, classifier, recipe, trained
from gankit.extractors.resizing import FILTERS, resized
from gankit.registry import features
from gankit.slots import Dataset, Seen

__all__ = ["Digits"]

STACKED = 1000
"""The classes of three digits in the channels of one image."""

ROWS = 256
"""How many digits the network is shown at a time; more are no faster, and take more memory."""


@features("digits", needs={"positions"})
class Digits:
    """The layer before the logits of a small classifier of the bundled digits.

    It is trained on the split `train` of the data set `digits`, in seconds, when its weights are
    first asked for, and kept in the folder `GANKIT_CACHE`, or `gankit` in `XDG_CACHE_HOME` or
    ~/.cache (needs the extra `digits`). Another machine's arithmetic may train other weights, which
    their hash on the card shows.

    Images of any size are resized bicubically by Pillow, and of colours their mean is seen. Where
    the data has three channels and a thousand classes, each channel is a digit by itself: their
    features stand side by side, and the logits are the sums of their log-probabilities, with the
    hundreds in red.

    Shape: images (B, C, H, W) to features (B, 64) and logits (B, 10), or (B, 192) and (B, 1000).

    Raises:
        SpecError: data of points.
        MissingExtra: at the first look, where scikit-learn is not installed.
    """

    def __init__(self, data: Dataset, /) -> None:
        images_only("digits", data)
        self.stacked = data.image.classes == STACKED and data.image.channels == 3

    @property
    def width(self) -> int:
        """64 for each digit of an image."""
        return 3 * WIDTH if self.stacked else WIDTH

    @cached_property
    def card(self) -> Mapping[str, str]:
        """The classifier by its weights' hash, and what it is shown."""
        return {
            "network": "classifier of scikit-learn's digits, trained on the split train",
            "weights": digest(self.network.state_dict()),
            "resize": f"{INPUT} x {INPUT}, {FILTERS['pillow']}",
            "channels": "each by itself" if self.stacked else "their mean",
        }

    @cached_property
    def network(self) -> nn.Sequential:
        """The trained classifier."""
        weights = kept("digits", recipe(), trained)
        with torch.device("meta"):
            network = classifier().eval()
        network.load_state_dict(weights, assign=True)
        return network.requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor, /) -> Seen:
        """What the classifier makes of the images, on the CPU.

        Raises:
            TypeError: anything but (B, C, H, W) uint8.
        """
        planes = of_images(images).cpu()
        if self.stacked:
            planes = planes.flatten(0, 1)[:, None]
        elif planes.shape[1] > 1:
            planes = planes.float().mean(1, keepdim=True).round().to(torch.uint8)
        shown = (resized(part, INPUT, "pillow") / 127.5 - 1 for part in planes.split(ROWS))
        before = torch.cat([self.network[:-1](part) for part in shown])
        logs = self.network[-1](before).log_softmax(1)
        if not self.stacked:
            return Seen(before, logs)
        hundreds, tens, ones = logs.unflatten(0, (-1, 3)).unbind(1)
        sums = hundreds[:, :, None, None] + tens[:, None, :, None] + ones[:, None, None, :]
        return Seen(before.view(-1, self.width), sums.flatten(1))
