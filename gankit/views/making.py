"""What a view is made of: a live network, and the latents and classes it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gankit.errors import UsageError
from gankit.export import Live
from gankit.randomness import generator, seeded
from gankit.slots import Latent, conditional
from gankit.train.pictures import class_names
from gankit.train.sampling import label_count

__all__ = ["Drawing"]


@dataclass(frozen=True)
class Drawing:
    """A network, and what its images are drawn from."""

    live: Live
    seed: int = 0
    latent: Latent | None = None
    """What draws the latents, where it is not what drew them in training."""
    classes: tuple[int, ...] = ()
    """The classes to show; all if empty."""
    at: tuple[tuple[int, int], ...] = ()
    """Rows and columns of pixels whose attention is shown; the view chooses some if empty."""

    @cached_property
    def class_count(self) -> int:
        """How many classes the network can be asked for; 0 where it does not look at labels."""
        return label_count(self.live.gan, self.live.network)

    def latents(self, count: int) -> Tensor:
        """They follow from the seed alone, whatever they are for.

        Shape: (count, latent).
        """
        draw = self.latent or self.live.gan.latent
        return draw(count, self.live.gan.latent_width, generator(self.seed, "sample"))

    def labels(self, count: int) -> Tensor | None:
        """The classes, round and round; None where there are none."""
        classes = torch.tensor(self.classes or range(self.live.gan.image.classes))
        return classes[torch.arange(count) % len(classes)] if len(classes) else None

    def names(self, labels: Tensor | None) -> list[str]:
        """What the classes are called; nothing where the network does not look at them."""
        if labels is None or not self.class_count:
            return []
        names = class_names(self.live.data)
        return [names[label] for label in labels.tolist()]

    @torch.no_grad()
    def images(self, z: Tensor, labels: Tensor | None, batch: int = 64) -> Tensor:
        """The images of latents, float32 on the CPU.

        Shape: z (B, latent), labels (B,) or None -> (B, C, H, W).
        """
        place = next(self.live.network.parameters())
        generate = conditional(self.live.network, "labels")
        made = []
        with seeded(self.seed, "sample", "noise", device=place.device):
            for i in range(0, len(z), batch):
                rows = slice(i, i + batch)
                shown = None if labels is None else labels[rows].to(place.device)
                made.append(generate(z[rows].to(place), shown).float().cpu())
        return torch.cat(made)

    def refuse_points(self, view: str) -> None:
        """Say no where there are no pixels.

        Raises:
            UsageError: the data are points in space, or of other than 1 or 3 channels.
        """
        image = self.live.gan.image
        if not image.size or image.channels not in (1, 3):
            what = "points in space" if not image.size else f"{image.channels} channels"
            raise UsageError(f"--as {view} shows images, and these are {what}")

    @property
    def signature(self) -> str:
        """Whose images they are."""
        live = self.live
        return f"{live.spec.name}, {live.weights}, step {live.step:,}, seed {self.seed}"
