"""Tasks that D is set beside the game, and needs no labels for; G makes images that suit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gankit.penalties.checks import check_options
from gankit.randomness import first_row
from gankit.registry import penalty
from gankit.slots import Turn

__all__ = ["InfoMax", "Rotation"]


@penalty("rotation")
@dataclass(frozen=True, kw_only=True)
class Rotation:
    """Both players want D's head `rotations` to see by how many quarter turns images are rotated.

    weight x cross-entropy: in D's turn that of real images, in G's turn `generator` times that of
    its fakes. A quarter of the batch is rotated by each of 0, 90, 180 and 270 degrees.

    Chen, Zhai, Ritter, Lucic and Houlsby, "Self-Supervised GANs via Auxiliary Rotation Loss"
    (2019), section 3, arXiv:1811.11212. The head is that of `head = "rotation"` in a
    discriminator, or of a stack that ends with `classify` for 4 classes called `rotations`.

    Options:
        weight: of both players' shares; the paper's beta is 1; at least 0
        every: applied once in so many turns of either; at least 1
        generator: what G's share counts beside D's; the paper's alpha is 0.2

    Shape: square images (B, C, H, H) and the head (B, 4) to a scalar.

    Raises:
        ValueError: a negative weight or `generator`, or `every` below 1; when called, images that
            are not square, or a D without that head.

    Differs from the paper: rows take the four rotations in turn, 0, 90, 180, 270, 0, ..., where
        mimicry rotates the first quarter of the batch by 0, the second by 90, and so on.
    """

    players: ClassVar[str] = "DG"
    weight: float = 1.0
    every: int = 1
    generator: float = 0.2

    def __post_init__(self) -> None:
        check_options("rotation", self.every, weight=self.weight, generator=self.generator)

    def __call__(self, turn: Turn, /) -> Tensor:
        """The share of a player in its turn."""
        images = turn.fake if turn.player == "G" else turn.real
        assert images is not None, "a turn of D has real images"
        if images.ndim != 4 or images.shape[2] != images.shape[3]:
            size = "x".join(map(str, images.shape[2:])) or "points"
            raise ValueError(f"rotation: only square images can be rotated, not {size}")
        first = first_row(turn.random)
        turns = [(first + row) % 4 for row in range(len(images))]
        rotated = [image.rot90(times, (1, 2)) for image, times in zip(images, turns, strict=True)]
        heads = turn.heads(torch.stack(rotated))
        if "rotations" not in heads:
            raise ValueError(
                f'rotation: D has no head "rotations", only {", ".join(heads)};'
                ' give it head = "rotation"'
            )
        wanted = torch.tensor(turns, device=images.device)
        strength = self.generator if turn.player == "G" else 1.0
        return self.weight * strength * F.cross_entropy(heads["rotations"], wanted)


@penalty("infomax")
@dataclass(frozen=True, kw_only=True)
class InfoMax:
    """Both players want an image as a whole to be recognised among the places of all images.

    With l_aj the vector of D's head `local` for place j of image a, and g_a that of `global`:
    weight x mean over a and i of -log(exp(l_ai . g_a) / (exp(l_ai . g_a) + sum exp(l_bj . g_a))),
    summed over all places j of all other images b; of real images in D's turn, of fakes in G's.
    It is a lower bound of the mutual information of both, InfoNCE.

    Lee, Tran and Cheung, "InfoMax-GAN" (2021), section 3, arXiv:2007.04589. The
    heads are those of a discriminator that ends with the stage `infomax`.

    Options:
        weight: of D's share; the paper's beta is 0.2; at least 0
        every: applied once in so many turns of either; at least 1
        generator: what G's share counts beside D's; the paper's alpha is beta

    Shape: heads (B, R) and (B, R positions) to a scalar.

    Raises:
        ValueError: a negative weight or `generator`, or `every` below 1; when called, a D without
            these heads.

    Differs from the paper: other places of the same image count neither for nor against it, as in
        mimicry's code; there they enter as exp(-10), here not at all. Of a batch in several
        shares, each share is contrasted within itself.
    """

    players: ClassVar[str] = "DG"
    weight: float = 0.2
    every: int = 1
    generator: float = 1.0

    def __post_init__(self) -> None:
        check_options("infomax", self.every, weight=self.weight, generator=self.generator)

    def __call__(self, turn: Turn, /) -> Tensor:
        """The share of a player in its turn."""
        heads = turn.fake_heads if turn.player == "G" else turn.real_heads
        assert heads is not None, "a turn of D has real images"
        if not {"global", "local"} <= set(heads):
            raise ValueError(
                f'infomax: D has no heads "global" and "local", only {", ".join(heads)};'
                ' end its stages with "infomax"'
            )
        strength = self.generator if turn.player == "G" else 1.0
        return self.weight * strength * _info_nce(heads["global"], heads["local"])


def _info_nce(images: Tensor, places: Tensor) -> Tensor:
    """How surprising it is, on average, that a place is of its image and not of another one.

    Shape: images (B, R), places (B, R positions).
    """
    local = places.unflatten(1, (images.shape[1], -1))
    scores = torch.einsum("ar,brj->abj", images, local)
    own = scores.diagonal(dim1=0, dim2=1).T  # (B, positions)
    itself = torch.eye(len(images), dtype=torch.bool, device=images.device)
    others = scores.masked_fill(itself[:, :, None], float("-inf")).flatten(1).logsumexp(1)
    return (torch.logaddexp(own, others[:, None]) - own).mean()
