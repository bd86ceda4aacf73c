"""Batch norm with a scale and a shift for every class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import gankit
from gankit.norms import BatchNorm

LayerNorm = Callable[[nn.Module], nn.Module]


@gankit.norm("class_batchnorm", on="activation", needs={"labels", "batch_statistics"})
class ClassBatchNorm(nn.Module):
    """Normalises each channel over the batch, then scales and shifts it as its image's class asks.

    Dumoulin, Shlens and Kudlur, "A Learned Representation for Artistic Style" (2017), section 2.2,
    arXiv:1610.07629, there with instance norm; in GANs: Miyato and Koyama, "cGANs with Projection
    Discriminator" (2018), section 4, arXiv:1802.05637.

    Options:
        eps: added to the variance.
        momentum: weight of the newest batch in the running statistics that evaluation uses.

    Shape: (B, C, H, W), condition (B, E) -> (B, C, H, W); a one-hot condition picks a row of the
        tables, another mixes them.
    """

    def __init__(
        self, channels: int, condition: int, /, *, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.normal = BatchNorm(channels, scale=False, shift=False, eps=eps, momentum=momentum)
        # Bare tables, because the network's initializer would fill an embedding with noise.
        self.scale = nn.Parameter(torch.ones(condition, channels))
        self.shift = nn.Parameter(torch.zeros(condition, channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale = (condition @ self.scale)[:, :, None, None]
        shift = (condition @ self.shift)[:, :, None, None]
        return scale * self.normal(x) + shift


@gankit.norm("class_batchnorm_spectral", on="activation", needs={"labels", "batch_statistics"})
class SpectralClassBatchNorm(nn.Module):
    """The same, its two tables being layers that the network's weight norm acts on.

    So in BigGAN: Brock, Donahue and Simonyan (2019), appendix B.1, arXiv:1809.11096.

    Options:
        eps: added to the variance.

    Shape: (B, C, H, W), condition (B, E) -> (B, C, H, W).

    Differs from the paper: the condition is what the network makes, not a slice of z beside it.
    """

    def __init__(
        self, channels: int, condition: int, weight_norm: LayerNorm, /, *, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.normal = BatchNorm(channels, scale=False, shift=False, eps=eps)
        self.scale = weight_norm(nn.Linear(condition, channels, bias=False))
        self.shift = weight_norm(nn.Linear(condition, channels, bias=False))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale = 1 + self.scale(condition)[:, :, None, None]
        return scale * self.normal(x) + self.shift(condition)[:, :, None, None]
