"""The article's network and its training step in plain torch, as public SAGAN repositories have it.

After heykeetae/Self-Attention-GAN, whose loop most of them share: D on the real batch, then on
fakes, two Adams, the hinge loss, gradients of both players set to zero before each backward pass.
Nothing here is gankit's. `train_step.py`, `sampling.py` and `gpu.py` time gankit beside it.

Differs from there: the layers are the article's (T. Silva, 2018), at any size; spectral norm is
torch's own hook, which takes the output axis of transposed convolutions; D's turn detaches the
fakes, as the repositories after it do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

__all__ = ["Discriminator", "Generator", "Loop", "SelfAttention"]


class SelfAttention(nn.Module):
    """Zhang et al. (2019), section 3, arXiv:1805.08318."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv = spectral_norm(nn.Conv2d(channels, channels // 8, 1))
        self.key_conv = spectral_norm(nn.Conv2d(channels, channels // 8, 1))
        self.value_conv = spectral_norm(nn.Conv2d(channels, channels, 1))
        self.gamma = nn.Parameter(torch.zeros(1))
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.size()
        query = self.query_conv(x).view(batch, -1, height * width).permute(0, 2, 1)
        key = self.key_conv(x).view(batch, -1, height * width)
        attention = self.softmax(torch.bmm(query, key))
        value = self.value_conv(x).view(batch, -1, height * width)
        out = torch.bmm(value, attention.permute(0, 2, 1))
        return self.gamma * out.view(batch, channels, height, width) + x


class Generator(nn.Module):
    """Transposed convolutions from 4x4 up to the image, with attention at `attention_at`.

    Shape: z (B, latent) -> (B, 3, size, size).
    """

    def __init__(self, size: int, width: int, attention_at: int, latent: int = 128) -> None:
        super().__init__()
        channels = width * size // 4
        self.linear = spectral_norm(nn.Linear(latent, 4 * 4 * channels))
        layers: list[nn.Module] = [nn.ReLU()]
        height = 4
        while height < size:
            conv = nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False)
            layers += [spectral_norm(conv), nn.BatchNorm2d(channels // 2), nn.ReLU()]
            channels, height = channels // 2, height * 2
            if height == attention_at:
                layers.append(SelfAttention(channels))
        layers += [spectral_norm(nn.Conv2d(channels, 3, 3, 1, 1)), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.main(self.linear(z).view(z.size(0), -1, 4, 4))


class Discriminator(nn.Module):
    """Strided convolutions from the image down to 4x4, with attention at `attention_at`.

    Shape: images (B, 3, size, size) -> (B, 1).
    """

    def __init__(self, size: int, width: int, attention_at: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, channels, height = 3, width, size
        while height > 4:
            layers += [spectral_norm(nn.Conv2d(before, channels, 4, 2, 1)), nn.LeakyReLU(0.1)]
            before, channels, height = channels, channels * 2, height // 2
            if height == attention_at:
                layers.append(SelfAttention(before))
        self.main = nn.Sequential(*layers)
        self.linear = spectral_norm(nn.Linear(before * 4 * 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.main(x).view(x.size(0), -1))


class Loop:
    """The training step: a turn of D, then one of G."""

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        rates: tuple[float, float] = (1e-4, 4e-4),
        latent: int = 128,
    ) -> None:
        self.generator, self.discriminator, self.latent = generator, discriminator, latent
        rate_g, rate_d = rates
        self.optimizer_g = torch.optim.Adam(generator.parameters(), rate_g, (0.0, 0.9))
        self.optimizer_d = torch.optim.Adam(discriminator.parameters(), rate_d, (0.0, 0.9))
        self.relu = nn.ReLU()

    def step(self, real: Tensor) -> None:
        """Both turns, each with latents of its own."""
        self.generator.train()
        self.discriminator.train()
        self.turn_d(real, torch.randn(real.size(0), self.latent, device=real.device))
        self.turn_g(torch.randn(real.size(0), self.latent, device=real.device))

    def turn_d(self, real: Tensor, z: Tensor) -> None:
        loss_real = self.relu(1.0 - self.discriminator(real)).mean()
        fake = self.generator(z)
        loss_fake = self.relu(1.0 + self.discriminator(fake.detach())).mean()
        loss = loss_real + loss_fake
        self.reset_grad()
        loss.backward()
        self.optimizer_d.step()

    def turn_g(self, z: Tensor) -> None:
        loss = -self.discriminator(self.generator(z)).mean()
        self.reset_grad()
        loss.backward()
        self.optimizer_g.step()

    def reset_grad(self) -> None:
        self.optimizer_d.zero_grad()
        self.optimizer_g.zero_grad()
