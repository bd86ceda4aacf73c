"""PacGAN: a discriminator that sees several images at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from gankit.errors import OptionError
from gankit.networks.mlp import mlp_discriminator
from gankit.registry import discriminator
from gankit.slots import Discriminator, Image, Logits

__all__ = ["PacGAN"]


@discriminator("pacgan", needs={"separate_batches"})
class PacGAN(nn.Module):
    """Any discriminator, shown several images side by side, with one opinion of all of them.

    A lack of variety that no single image shows is plain in a pack.

    Lin, Khetan, Fanti and Oh, "PacGAN: The power of two samples in generative adversarial
    networks" (2018), section 3, arXiv:1712.04086.

    Options:
        pack: how many images are side by side, in channels, the paper's m; must divide the batch.
        network: the discriminator that sees the packs; to it an image has `pack` times the
            channels and no class, since those in a pack may be of several.

    Shape: images (B, C, ...) -> logits of B / pack rows.

    Raises:
        OptionError: a pack of no images; a network that asks for labels.
        ValueError: when called, a batch that the packs do not divide.
    """

    def __init__(
        self, image: Image, /, *, pack: int = 2, network: Discriminator = mlp_discriminator
    ) -> None:
        super().__init__()
        if pack < 1:
            raise OptionError("pack", f"a pack of {pack} images shows nothing")
        self.pack = pack
        self.network = network(replace(image, channels=pack * image.channels, classes=0))
        self.adversarial: Mapping[str, float] = getattr(
            self.network, "adversarial", {"logits": 1.0}
        )

    @property
    def stages(self) -> nn.Module:
        """The network's, which are those of this one as well."""
        found = getattr(self.network, "stages", self.network)
        assert isinstance(found, nn.Module)
        return found

    def forward(self, images: Tensor) -> Logits:
        if len(images) % self.pack:
            message = f"packs of {self.pack} do not divide a batch of {len(images)}"
            raise ValueError(f"pacgan: {message}")
        return self.network(images.unflatten(0, (-1, self.pack)).flatten(1, 2))
