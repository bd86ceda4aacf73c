"""What scores are made of: features of images, and metrics that compare two sets of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from gankit.slots.architecture import slot

__all__ = ["Features", "Gathered", "Metric", "Seen"]


class Seen(NamedTuple):
    """What features are of a batch of images; what an extractor does not tell is None."""

    features: Tensor
    """(B, D) float32 or wider, one vector per image."""
    logits: Tensor | None = None
    """(B, K): the log-probability of each class or mode, up to a constant per row."""
    good: Tensor | None = None
    """(B,) bool: whether the image is a good one of its class or mode."""
    labels: Tensor | None = None
    """(B,) int64: of which class it is meant to be; told by whoever asked for the image."""


@slot("features")
class Features(Protocol):
    """A fixed map from images to vectors, in which distances mean something."""

    @property
    def width(self) -> int:
        """D, the length of a vector."""
        ...

    @property
    def card(self) -> Mapping[str, str]:
        """What decides the vectors, for the protocol card: weights by their hash, resizing, ..."""
        ...

    def __call__(self, images: Tensor, /) -> Seen:
        """Of images (B, C, H, W) uint8, or points (B, C) float32; rows do not touch each other."""
        ...


class Gathered(Protocol):
    """What a metric keeps of one set of images, filled a batch at a time."""

    @property
    def count(self) -> int:
        """How many images it has been shown."""
        ...

    def add(self, seen: Seen, /) -> None:
        """Take a batch in."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All of it, to be kept on disk."""
        ...

    def load_state(self, state: Mapping[str, Tensor], /) -> None:
        """Take up what `state` gave."""
        ...


@slot("metric")
class Metric(Protocol):
    """Compares a generator's images with real ones by what it has gathered of each.

    `scores(real, fake, held_out, /)` declares as many of these as it needs, from the left.
    `held_out` are real images that the generator was not trained on; a metric that declares them
    has the need `held_out`; one that looks at generated images alone says `reference_free = True`.
    """

    @property
    def better(self) -> Mapping[str, str]:
        """`lower` or `higher`, for each of its scores of which one can say so."""
        ...

    def gather(self) -> Gathered:
        """An empty collection."""
        ...

    def scores(self, real: Gathered, fake: Gathered, /) -> dict[str, float]:
        """Scores by name.

        Raises:
            ValueError: too few images, or features without what it needs.
        """
        ...
