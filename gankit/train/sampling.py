"""Drawing from a generator: latents and labels that follow from a seed, images in batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gankit.build import GAN
from gankit.randomness import generator, seeded
from gankit.slots import conditional

__all__ = ["draw"]


@torch.no_grad()
def draw(gan: GAN, network: nn.Module, count: int, seed: int, batch: int = 64) -> Tensor:
    """`count` images of a generator in evaluation mode, float32 on the CPU.

    Latents follow from the seed alone; labels go round the classes. The network is left in the
    mode it was in.

    Shape: (count, C, H, W), or (count, C) for points.
    """
    device = next(network.parameters()).device
    latents = gan.latent(count, gan.latent_width, generator(seed, "sample"))
    classes = gan.image.classes
    labels = torch.arange(count) % classes if classes else None
    training = network.training
    network.eval()
    try:
        generate = conditional(network, "labels")
        with seeded(seed, "noise", device=device):
            made = [
                generate(
                    latents[i : i + batch].to(device),
                    None if labels is None else labels[i : i + batch].to(device),
                )
                for i in range(0, count, batch)
            ]
    finally:
        network.train(training)
    return torch.cat(made).float().cpu()
