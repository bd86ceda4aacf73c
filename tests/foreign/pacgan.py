"""PacGAN: the discriminator sees several images at once."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

import gankit
from gankit.errors import OptionError
from gankit.networks import mlp_discriminator
from gankit.slots import Discriminator, Image


@gankit.discriminator("pac", needs={"separate_batches"})
class SideBySide(nn.Module):
    """Any discriminator, shown `images` images side by side, with one opinion of all of them.

    A lack of variety that no single image shows is plain in a pack: Lin, Khetan, Fanti and Oh,
    "PacGAN: The power of two samples in generative adversarial networks" (2018), section 3,
    arXiv:1712.04086.

    Options:
        images: how many are packed, the paper's m; must divide the batch.
        network: the discriminator that sees the packs.

    Shape: images (B, C, ...) -> logits of B / images rows.

    Raises:
        OptionError: a pack of no images.
        ValueError: when called, a batch that the packs do not divide.
    """

    def __init__(
        self, image: Image, /, *, images: int = 2, network: Discriminator = mlp_discriminator
    ) -> None:
        super().__init__()
        if images < 1:
            raise OptionError("images", f"a pack of {images} images shows nothing")
        self.images = images
        self.network = network(replace(image, channels=images * image.channels))

    def forward(self, images: Tensor) -> Tensor:
        if len(images) % self.images:
            raise ValueError(f"pac: packs of {self.images} do not divide a batch of {len(images)}")
        return self.network(images.unflatten(0, (-1, self.images)).flatten(1, 2))
