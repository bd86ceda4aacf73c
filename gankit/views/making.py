"""Images of a live network for latents and labels that a view has chosen."""

from __future__ import annotations

import torch
from torch import Tensor

from gankit.errors import UsageError
from gankit.export import Live
from gankit.randomness import generator, seeded
from gankit.slots import Latent, conditional

__all__ = ["images_of", "labels_for", "latents", "refuse_points", "signed"]


def latents(live: Live, count: int, seed: int, latent: Latent | None = None) -> Tensor:
    """As the grid has them: they follow from the seed alone."""
    return (latent or live.gan.latent)(count, live.gan.latent_width, generator(seed, "sample"))


def labels_for(live: Live, count: int) -> Tensor | None:
    """The classes, round and round; None where there are none."""
    classes = live.gan.image.classes
    return torch.arange(count) % classes if classes else None


@torch.no_grad()
def images_of(
    live: Live, z: Tensor, labels: Tensor | None, seed: int = 0, batch: int = 64
) -> Tensor:
    """The images of latents, float32 on the CPU.

    Shape: z (B, latent), labels (B,) or None -> (B, C, H, W).
    """
    place = next(live.network.parameters())
    generate = conditional(live.network, "labels")
    made = []
    with seeded(seed, "sample", "noise", device=place.device):
        for i in range(0, len(z), batch):
            rows = slice(i, i + batch)
            shown = None if labels is None else labels[rows].to(place.device)
            made.append(generate(z[rows].to(place), shown).float().cpu())
    return torch.cat(made)


def refuse_points(live: Live, view: str) -> None:
    """Say no where there are no pixels.

    Raises:
        UsageError: the data are points in space, or of other than 1 or 3 channels.
    """
    image = live.gan.image
    if not image.size or image.channels not in (1, 3):
        what = "points in space" if not image.size else f"{image.channels} channels"
        raise UsageError(f"--as {view} shows images, and these are {what}")


def signed(live: Live, seed: int) -> str:
    """Whose images they are."""
    return f"{live.spec.name}, {live.weights}, step {live.step:,}, seed {seed}"
