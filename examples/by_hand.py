"""The quickstart's SAGAN in one screen of plain PyTorch: no spec, no registry, no trainer.

Parts are ordinary objects: compose them, and write the loop you like.

    python examples/by_hand.py --steps 2000 --out digits.png
"""

from __future__ import annotations

import argparse
from functools import partial

import torch

from gankit.activations import leaky_relu
from gankit.attentions import SelfAttention2d
from gankit.datasets import Digits, image_grid, to_float
from gankit.losses import Hinge
from gankit.networks import dcgan_discriminator, dcgan_generator
from gankit.norms import BatchNorm, spectral
from gankit.slots import Norm


def main() -> None:
    """Train on digits and save a grid of samples."""
    options = argparse.ArgumentParser()
    options.add_argument("--steps", type=int, default=2000)
    options.add_argument("--out", default="digits.png")
    chosen = options.parse_args()
    torch.manual_seed(0)

    data, latent, batch = Digits(size=32), 64, 32
    generator = dcgan_generator(
        data.image,
        latent=latent,
        width=16,
        norm=Norm(spectral, BatchNorm),
        attention=SelfAttention2d,
        attention_at=(16,),
    )
    discriminator = dcgan_discriminator(
        data.image,
        width=24,
        norm=Norm(spectral),
        activation=partial(leaky_relu, slope=0.1),
        attention=partial(SelfAttention2d, reduction=4),
        attention_at=(16,),
    )
    loss = Hinge()
    adam = partial(torch.optim.Adam, betas=(0.0, 0.9))
    generator_optimizer = adam(generator.parameters(), lr=4e-4)
    discriminator_optimizer = adam(discriminator.parameters(), lr=8e-4)  # TTUR

    for step in range(chosen.steps):
        real = to_float(data.images(torch.randint(len(data), (batch,))))
        fake = generator(torch.randn(batch, latent))
        d_loss = loss.discriminator(discriminator(real), discriminator(fake.detach()))
        discriminator_optimizer.zero_grad()
        d_loss.backward()
        discriminator_optimizer.step()

        g_loss = loss.generator(None, discriminator(generator(torch.randn(batch, latent))))
        generator_optimizer.zero_grad()
        g_loss.backward()
        generator_optimizer.step()
        if step % 100 == 0:
            print(f"step {step}  D {d_loss.item():.3f}  G {g_loss.item():.3f}")

    generator.eval()
    with torch.no_grad():
        image_grid(generator(torch.randn(64, latent))).save(chosen.out)
    print(f"samples: {chosen.out}")


if __name__ == "__main__":
    main()
