"""Penalties on whether D can tell the classes apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from gankit.penalties.checks import check_options
from gankit.registry import penalty
from gankit.slots import Turn

__all__ = ["AuxiliaryClassifier"]


@penalty("auxiliary_classifier", needs={"labels"})
@dataclass(frozen=True, kw_only=True)
class AuxiliaryClassifier:
    """Both players want D's head `classes` to recognise the class of an image.

    weight x cross-entropy: in D's turn that of real images, plus `fake` times that of fake ones;
    in G's turn `generator` times that of its fakes.

    Odena, Olah and Shlens, "Conditional Image Synthesis with Auxiliary Classifier GANs" (2017),
    section 3, equation 3, arXiv:1610.09585. The head is that of `head = "auxiliary"` in a
    discriminator, or of a stack that ends with `classify`.

    Options:
        weight: of both players' shares; at least 0
        every: applied once in so many turns of either; at least 1
        fake: what fake images count in D's turn, where real ones count 1; at 0 they are left out
        generator: what they count in G's turn; WGAN-GP's code has 0.1

    Shape: the head (B, classes) and labels (B,) to a scalar.

    Raises:
        ValueError: a negative weight, `fake` or `generator`, or `every` below 1; when called, a D
            without that head.
    """

    players: ClassVar[str] = "DG"
    weight: float = 1.0
    every: int = 1
    fake: float = 1.0
    generator: float = 1.0

    def __post_init__(self) -> None:
        strengths = {"weight": self.weight, "fake": self.fake, "generator": self.generator}
        check_options("auxiliary_classifier", self.every, **strengths)

    def __call__(self, turn: Turn, /) -> Tensor:
        """The share of a player in its turn."""
        fake = _surprise(turn, turn.fake_heads)
        if turn.player == "G":
            return self.weight * self.generator * fake
        assert turn.real_heads is not None, "a turn of D has real images"
        return self.weight * (_surprise(turn, turn.real_heads) + self.fake * fake)


def _surprise(turn: Turn, heads: Mapping[str, Tensor]) -> Tensor:
    """The cross-entropy of a batch's classes."""
    assert turn.labels is not None, "labels are declared as needed"
    if "classes" not in heads:
        raise ValueError(
            f'auxiliary_classifier: D has no head "classes", only {", ".join(heads)};'
            ' give it head = "auxiliary"'
        )
    return F.cross_entropy(heads["classes"], turn.labels)
