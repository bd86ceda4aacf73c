"""Norms of what flows between layers: modules that keep the shape (B, C, H, W)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gankit.errors import OptionError, Unanswered
from gankit.registry import norm

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "PixelNorm"]


def _several() -> bool:
    """Whether there are other processes to share statistics with."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _MeanOfAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        try:
            dist.all_reduce(total)
        except RuntimeError as error:
            raise Unanswered(error) from error
        return total / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Of itself, so that it can be gone back through twice.
        return _mean_of_all(gradients[0])


def _mean_of_all(tensor: Tensor) -> Tensor:
    """The mean of a tensor over all processes.

    Its gradient is that of the mean of all their losses, times how many there are: what it has to
    be where gradients are averaged afterwards.
    """
    mean: Tensor = _MeanOfAll.apply(tensor)
    return mean


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
        sync: where several processes train together, normalise over the batch of all of them.
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
        sync: bool = False,
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum, affine=False)
        _affine(self, channels, scale, shift)
        self.sync = sync

    def forward(self, x: Tensor) -> Tensor:
        if self.sync and self.training and _several():
            return self._synchronised(x)
        return super().forward(x)

    def _synchronised(self, x: Tensor) -> Tensor:
        """As batch normalisation over all rows of all processes, which have equally many."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = _mean_of_all(wide.mean((0, 2, 3)))
        centred = wide - mean[:, None, None]
        variance = _mean_of_all(centred.square().mean((0, 2, 3)))
        self._note(
            mean.detach(), variance.detach(), dist.get_world_size() * x.numel() // x.shape[1]
        )
        normal = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.weight is not None:
            normal = normal * self.weight[:, None, None]
        if self.bias is not None:
            normal = normal + self.bias[:, None, None]
        return normal.to(x.dtype)

    @torch.no_grad()
    def _note(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Keep the running statistics, whose variance is the unbiased one, as torch does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        unbiased = variance * (count / max(count - 1, 1))
        self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)


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
        # In float16 eps would be 0, and the square of 256 infinite.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * torch.rsqrt(wide.square().mean(1, keepdim=True) + self.eps)).to(x.dtype)
