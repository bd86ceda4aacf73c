"""What published scores see of an image: the features of Inception-v3."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gankit.errors import OptionError
from gankit.extractors.checks import of_images
from gankit.extractors.inception_network import SIDE, WIDTH, Network
from gankit.extractors.inception_weights import PUBLISHED, load
from gankit.extractors.resizing import FILTERS, Filter, resized
from gankit.registry import features
from gankit.slots import Seen

__all__ = ["Inception"]


@features("inception", needs={"positions"})
@dataclass(frozen=True, kw_only=True)
class Inception:
    """The Inception-v3 network of 2015, of which all published FIDs are made (needs its weights).

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium", 2017, arXiv:1706.08500, section 4: the last average pool. Logits are those of the
    Inception Score, Salimans et al., "Improved Techniques for Training GANs", 2016,
    arXiv:1606.03498, section 4, as its authors' code has them: 1008 of them, without a bias. Both
    equal torch-fidelity's `2048` and `logits_unbiased`, with resize = "tensorflow".

    The weights are in a file of 96 MB, which is not part of gankit:
    github.com/toshas/torch-fidelity, release v0.2.0, weights-inception-2015-12-05-6726825d.pth.

    Options:
        weights: that file, or one of such tensors; `.safetensors` or any that torch saves; `~` is
            the home folder
        sha256: of the file; unless it is that of the published one, no score compares with others
        resize: to 299 x 299: `tensorflow`, bilinear without antialiasing, as in most published
            scores; `clean`, of clean-fid, bicubic with antialiasing and not rounded; `pillow`, the
            same in 8 bits

    Shape: images (B, 1 or 3, H, W) uint8 to features (B, 2048) and logits (B, 1008); grey images
    are looked at as three equal channels.

    Raises:
        OptionError: an option out of range.
        SetupError: at the first look, a file that is missing, or not the one that is meant.
    """

    weights: str
    sha256: str = PUBLISHED
    resize: Filter = "tensorflow"

    def __post_init__(self) -> None:
        if not str(self.weights):
            raise OptionError("weights", "inception: weights is empty; it is the path of a file")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            said = f'inception: sha256 is 64 digits of 0 to 9 and a to f, not "{self.sha256}"'
            raise OptionError("sha256", said)
        if self.resize not in FILTERS:
            said = f'inception: resize is one of {", ".join(FILTERS)}, not "{self.resize}"'
            raise OptionError("resize", said)

    @property
    def width(self) -> int:
        """2048."""
        return WIDTH

    @property
    def card(self) -> Mapping[str, str]:
        """The weights and the filter; a file with another hash is never looked through."""
        return {
            "network": "Inception-v3 of 2015-12-05",
            "weights": self.sha256,
            "resize": f"to {SIDE} x {SIDE}: {FILTERS[self.resize]}",
        }

    def __call__(self, images: Tensor, /) -> Seen:
        """What the network makes of the images.

        Raises:
            TypeError: anything but (B, C, H, W) uint8.
            ValueError: images that have neither 1 nor 3 channels.
            SetupError: about the file of weights, at the first look.
        """
        if of_images(images).shape[1] not in (1, 3):
            raise ValueError(f"inception: images have 1 or 3 channels, not {images.shape[1]}")
        network = self._network.to(images.device)
        with torch.autocast(images.device.type, enabled=False), _unrounded():
            x = (resized(images, SIDE, self.resize) - 128) / 128
            x = x.expand(-1, 3, -1, -1)
            if x.device.type == "cpu":
                # There it is half as fast again, and the maps follow the layout of the images.
                x = x.contiguous(memory_format=torch.channels_last)
            return Seen(*network(x))

    @cached_property
    def _network(self) -> Network:
        return load(Path(self.weights).expanduser(), self.sha256)


@contextmanager
def _unrounded() -> Iterator[None]:
    """Convolutions in float32 on GPUs too, where torch rounds to TF32 unless it is told not to."""
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before
