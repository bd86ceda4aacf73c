"""The classifier of handwritten digits: a small network, and its training from the bundled ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankit.datasets import Digits
from gankit.randomness import drawn, generator, seeded

__all__ = ["INPUT", "WIDTH", "classifier", "recipe", "trained"]

VERSION = 1
"""One more with every change of what follows, so that weights of before are not taken for new."""

INPUT = 16
"""Height and width of what the network sees."""

WIDTH = 64
"""Of the layer before the logits."""

EPOCHS, BATCH, RATE, DECAY, SMOOTHING = 24, 64, 3e-3, 1e-2, 0.1


def classifier() -> nn.Sequential:
    """Three convolutions and two dense layers, smooth throughout: no feature is ever dead.

    Shape: (B, 1, 16, 16) in [-1, 1] to (B, 10).
    """
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.SiLU(), nn.Flatten()),
        *(nn.Linear(64 * (INPUT // 4) ** 2, WIDTH), nn.SiLU()),
        nn.Linear(WIDTH, 10),
    )


def recipe() -> str:
    """The SHA-256 of everything that decides the weights, the machine's arithmetic aside."""
    images, labels = _material()
    total = hashlib.sha256(f"digits classifier {VERSION}\n".encode())
    for tensor in (images, labels):
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()


def trained() -> dict[str, Tensor]:
    """The weights after training on the split `train`, on one thread whatever torch is set to.

    Every image is turned, scaled, slanted, moved, blurred and dimmed a little, with noise on it, so
    that what a generator gets nearly right is still seen as the digit that it is.
    """
    with _plain(), seeded("digits classifier", "weights"):
        network = classifier()
        images, labels = _material()
        images = images.float() / 127.5 - 1
        optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
        steps = EPOCHS * (len(images) // BATCH)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
        for rows, random in _batches(len(images)):
            logits = network(_varied(images[rows], random))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
        return {name: weight.detach() for name, weight in network.state_dict().items()}


@contextmanager
def _plain() -> Iterator[None]:
    """Arithmetic that whoever asks for the weights has not set: threads, gradients, autocast."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
        ):
            yield
    finally:
        torch.set_num_threads(threads)


def _material() -> tuple[Tensor, Tensor]:
    source = Digits(size=INPUT, split="train")
    everything = torch.arange(len(source))
    return source.images(everything), source.labels(everything)


def _batches(length: int) -> Iterator[tuple[Tensor, torch.Generator]]:
    """Rows of every step, with a generator for it; what is left of an epoch is left out."""
    for epoch in range(EPOCHS):
        random = generator("digits classifier", "epoch", epoch)
        order = torch.randperm(length, generator=random)
        for rows in order[: length // BATCH * BATCH].split(BATCH):
            yield rows, random


def _varied(images: Tensor, random: torch.Generator) -> Tensor:
    """The images under small affine maps, dimmed by up to 0.4, with normal noise of up to 0.3.

    Shape: (B, 1, H, W), kept.
    """
    count = len(images)
    even = 2 * drawn(random, count, 8) - 1
    angle, slant, noise = 0.2 * even[:, 0], 0.15 * even[:, 1], 0.3 * even[:, 2].abs()
    high, wide = (1 + 0.12 * even[:, 3:5]).unbind(1)
    right, down = (0.15 * even[:, 5:7]).unbind(1)
    light = 0.8 + 0.2 * even[:, 7]
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * wide, slant - sin * wide, right, sin * high, cos * high, down]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), False)
    # Outside is black, which is -1: the sampling takes it for 0. It also blurs a little.
    moved = F.grid_sample(images + 1, grid, align_corners=False) * light.view(-1, 1, 1, 1) - 1
    grain = drawn(random, *images.shape, draw=torch.randn)
    return (moved + noise.view(-1, 1, 1, 1) * grain).clamp(-1, 1)
