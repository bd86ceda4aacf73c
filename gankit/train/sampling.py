"""Drawing from a generator: latents and labels that follow from a seed, images in batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from gankit.build import GAN
from gankit.errors import OptionError
from gankit.latents import normal, truncated
from gankit.ops import held
from gankit.randomness import generator, seeded
from gankit.slots import Latent, conditional

__all__ = ["draw", "standing", "truncation"]


@torch.no_grad()
def draw(
    gan: GAN,
    network: nn.Module,
    count: int,
    seed: int,
    batch: int = 64,
    latent: Latent | None = None,
) -> Tensor:
    """`count` images of a generator in evaluation mode, float32 on the CPU.

    Latents follow from the seed alone, drawn as in training or by `latent`; labels go round the
    classes. The network is left in the mode it was in, and so are torch's global generators.

    Shape: (count, C, H, W), or (count, C) for points.
    """
    training = network.training
    network.eval()
    try:
        made = list(_made(gan, network, count, (seed, "sample"), batch, latent or gan.latent))
    finally:
        network.train(training)
    return torch.cat(made).float().cpu()


@torch.no_grad()
def standing(
    gan: GAN,
    network: nn.Module,
    batches: int,
    seed: int,
    batch: int = 64,
    latent: Latent | None = None,
) -> nn.Module:
    """A copy of a generator with running statistics of its own: plain means over fresh batches.

    "Standing statistics", Brock, Donahue and Simonyan, "Large Scale GAN Training for High Fidelity
    Natural Image Synthesis" (2019), arXiv:1809.11096, appendix E; for averaged or truncated
    generators, whose features those of training do not describe.
    """
    settled = copy.deepcopy(network).train()
    norms = [m for m in settled.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # all batches count alike
    with held(settled):
        words = seed, "standing"
        for _ in _made(gan, settled, batches * batch, words, batch, latent or gan.latent):
            pass
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    return settled.eval()


def truncation(gan: GAN, threshold: float) -> Latent:
    """The latents of a GAN without values further out than so many standard deviations.

    The truncation trick, Brock et al. (2019), section 3.1: less variety, better single images.

    Raises:
        OptionError: the latents are not normal, or the threshold is not above 0.
    """
    made = gan.latent.func if isinstance(gan.latent, partial) else gan.latent
    if made not in (normal, truncated):
        name = getattr(made, "__name__", "these")
        raise OptionError("threshold", f"{name} latents cannot be truncated; normal ones can")
    given = gan.latent.keywords if isinstance(gan.latent, partial) else {}
    return partial(truncated, std=given.get("std", 1.0), threshold=threshold)


def _made(
    gan: GAN,
    network: nn.Module,
    count: int,
    words: tuple[int, str],
    batch: int,
    latent: Latent,
) -> Iterator[Tensor]:
    """The images in batches, on the network's device."""
    first = next(network.parameters())
    latents = latent(count, gan.latent_width, generator(*words)).to(first.dtype)
    classes = gan.image.classes
    labels = torch.arange(count) % classes if classes else None
    generate = conditional(network, "labels")
    with seeded(*words, "noise", device=first.device):
        for i in range(0, count, batch):
            rows = slice(i, i + batch)
            shown = None if labels is None else labels[rows].to(first.device)
            yield generate(latents[rows].to(first.device), shown)
