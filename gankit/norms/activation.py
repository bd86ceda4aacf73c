"""Norms of what flows between layers: modules that keep the shape (B, C, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gankit.errors import OptionError
from gankit.registry import norm

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "PixelNorm"]


def _affine(module: nn.Module, channels: int, scale: bool, shift: bool) -> None:
    """Give a torch norm its learned scale and shift, each only where it is wanted."""
    module.register_parameter("weight", nn.Parameter(torch.ones(channels)) if scale else None)
    module.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if shift else None)


@norm("batchnorm", on="activation", needs={"batch_statistics"})
class BatchNorm(nn.BatchNorm2d):
    """Normalises each channel over the batch and its positions, then scales and shifts it.

    Ioffe and Szegedy, "Batch Normalization" (2015), algorithms 1 and 2, arXiv:1502.03167.

    Options:
        scale: learn a factor per channel (gamma).
        shift: learn an offset per channel (beta).
        eps: added to the variance.
        momentum: weight of the newest batch in the running statistics that evaluation uses.
    """

    def __init__(
        self,
        channels: int,
        /,
        *,
        scale: bool = True,
        shift: bool = True,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum, affine=False)
        _affine(self, channels, scale, shift)


@norm("instancenorm", on="activation", needs={"positions"})
class InstanceNorm(nn.InstanceNorm2d):
    """Normalises each channel of each image over its positions.

    Ulyanov et al., "Instance Normalization" (2016), section 2, arXiv:1607.08022.

    Options:
        scale: learn a factor per channel.
        shift: learn an offset per channel.
        eps: added to the variance.
    """

    def __init__(
        self,
        channels: int,
        /,
        *,
        scale: bool = True,
        shift: bool = True,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(channels, eps=eps, affine=False)
        _affine(self, channels, scale, shift)


@norm("layernorm", on="activation")
class LayerNorm(nn.GroupNorm):
    """Normalises each image over all of its channels and positions.

    Ba et al., "Layer Normalization" (2016), section 3, arXiv:1607.06450.

    Options:
        scale: learn a factor per channel.
        shift: learn an offset per channel.
        eps: added to the variance.

    Differs from the paper: scale and shift are per channel, not per element, as is usual for
        convolutions (WGAN-GP's critic).
    """

    def __init__(
        self,
        channels: int,
        /,
        *,
        scale: bool = True,
        shift: bool = True,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(1, channels, eps=eps, affine=False)
        _affine(self, channels, scale, shift)


@norm("groupnorm", on="activation")
class GroupNorm(nn.GroupNorm):
    """Normalises each image over groups of its channels.

    Wu and He, "Group Normalization" (2018), section 3, arXiv:1803.08494.

    Options:
        groups: how many groups the channels fall into; must divide them.
        scale: learn a factor per channel.
        shift: learn an offset per channel.
        eps: added to the variance.

    Raises:
        OptionError: `groups` does not divide the channels.
    """

    def __init__(
        self,
        channels: int,
        /,
        *,
        groups: int = 32,
        scale: bool = True,
        shift: bool = True,
        eps: float = 1e-5,
    ) -> None:
        if groups < 1 or channels % groups:
            raise OptionError("groups", f"{groups} groups do not divide {channels} channels")
        super().__init__(groups, channels, eps=eps, affine=False)
        _affine(self, channels, scale, shift)


@norm("pixelnorm", on="activation")
class PixelNorm(nn.Module):
    """Scales the feature vector of every position to length sqrt(C).

    Karras et al., "Progressive Growing of GANs" (2018), section 4.2, arXiv:1710.10196.

    Options:
        eps: added to the mean square.
    """

    def __init__(self, channels: int, /, *, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + self.eps)
