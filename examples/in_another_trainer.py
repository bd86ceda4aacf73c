"""A gankit discriminator, loss and penalty inside an autoencoder's ordinary training loop.

The autoencoder, its reconstruction loss and the loop are plain PyTorch; what gankit adds is a
critic of how real the reconstructions look.

    python examples/in_another_trainer.py --steps 1000 --out reconstructions.png
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import nn

from gankit.datasets import Digits, image_grid, to_float
from gankit.losses import NonSaturating
from gankit.networks import resnet_discriminator
from gankit.norms import spectral
from gankit.penalties import R1
from gankit.slots import Norm, Turn


def main() -> None:
    """Train an autoencoder of digits with an adversarial loss beside the squared error."""
    options = argparse.ArgumentParser()
    options.add_argument("--steps", type=int, default=1000)
    options.add_argument("--out", default="reconstructions.png")
    chosen = options.parse_args()
    torch.manual_seed(0)

    data, batch = Digits(size=16), 32
    autoencoder = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(16, 8, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(8, 16, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip
    discriminator = resnet_discriminator(data.image, width=8, norm=Norm(spectral))
    loss, penalty = NonSaturating(), R1(weight=1.0)
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=1e-3)
    critic_optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.0, 0.9))

    for step in range(chosen.steps):
        real = to_float(data.images(torch.randint(len(data), (batch,))))
        made = autoencoder(real)

        turn = Turn.of(discriminator, real=real, fake=made.detach())
        critic_loss = loss.discriminator(turn.real_logits, turn.fake_logits) + penalty(turn)
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()

        adversarial = loss.generator(None, discriminator(made))
        total = F.mse_loss(made, real) + 0.01 * adversarial
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}  total {total.item():.3f}  critic {critic_loss.item():.3f}")

    image_grid(torch.cat([real[:16], made[:16].detach()]), columns=16).save(chosen.out)
    print(f"originals above, reconstructions below: {chosen.out}")


if __name__ == "__main__":
    main()
