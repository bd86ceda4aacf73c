"""Norms whose scale and shift follow from a condition: a label, its embedding, the latent.

A module of these is called as `norm(x, condition)`; the network makes the condition.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from gankit.errors import OptionError
from gankit.initializers import normal
from gankit.norms.activation import BatchNorm
from gankit.registry import norm
from gankit.slots import Initializer

__all__ = ["ConditionalBatchNorm", "SelfModulatedBatchNorm"]

ZEROS = partial(normal, std=0.0)

WeightNorm = Callable[[nn.Module], nn.Module]


class _Modulated(nn.Module):
    """Batch normalisation, then one factor and one offset for each channel of each image.

    Both layers give what is added to 1 and to 0, so a layer of zeros changes nothing.
    """

    scale: nn.Module
    shift: nn.Module

    def __init__(self, channels: int, eps: float, momentum: float, sync: bool) -> None:
        super().__init__()
        self.normal = BatchNorm(
            channels, scale=False, shift=False, eps=eps, momentum=momentum, sync=sync
        )

    def modulated(self, x: Tensor, condition: Tensor) -> Tensor:
        """`x` normalised, scaled and shifted by what the layers make of the condition."""
        # In half precision 1 + scale would lose what is small in it.
        scale = 1 + self.scale(condition).to(torch.promote_types(x.dtype, torch.float32))
        shift = self.shift(condition)[:, :, None, None]
        return (scale[:, :, None, None] * self.normal(x) + shift).to(x.dtype)


@norm("conditional_batchnorm", on="activation", needs={"batch_statistics"})
class ConditionalBatchNorm(_Modulated):
    """Normalises each channel over the batch, then scales and shifts it as the condition says.

    With c the condition, the scale is 1 + S c and the shift T c; S and T are dense layers without
    bias, so of a one-hot label two tables with a row for each class.

    Dumoulin et al., "A Learned Representation for Artistic Style" (2017), section 2.2,
    arXiv:1610.07629; tables in GANs: Miyato and Koyama, "cGANs with Projection Discriminator"
    (2018), section 4, arXiv:1802.05637; an embedding that all norms share: Brock et al.,
    "Large Scale GAN Training for High Fidelity Natural Image Synthesis" (2019), section 3,
    arXiv:1809.11096.

    The defaults are the tables of SNGAN's and SAGAN's code. BigGAN's code is
    `weight_norm = "network", initializer = "orthogonal"`, in a network with `condition =
    ["embedding", "chunk"]`.

    Options:
        weight_norm: `network` puts the network's weight norm on both layers; `none` leaves them.
        initializer: how both layers start; at 0, the scale is 1 and the shift 0.
        eps: added to the variance.
        momentum: weight of the newest batch in the running statistics that evaluation uses.
        sync: where several processes train together, normalise over the batch of all of them.

    Shape: (B, C, H, W), condition (B, E) -> (B, C, H, W).

    Raises:
        OptionError: a weight norm on layers that start at 0, which have no direction.

    Differs from the paper: tables hold what is added to a scale of 1. Mimicry's scales start
        around 1, with a deviation of 0.02.
    """

    def __init__(
        self,
        channels: int,
        condition: int,
        network_norm: WeightNorm,
        /,
        *,
        weight_norm: Literal["none", "network"] = "none",
        initializer: Initializer = ZEROS,
        eps: float = 1e-5,
        momentum: float = 0.1,
        sync: bool = False,
    ) -> None:
        super().__init__(channels, eps, momentum, sync)
        if weight_norm == "network" and _leaves_zeros(initializer):
            message = "a weight norm needs layers that do not start at 0"
            raise OptionError("weight_norm", f'{message}; try initializer = "orthogonal"')
        self.scale, self.shift = (
            _filled(nn.Linear(condition, channels, bias=False), initializer) for _ in range(2)
        )
        if weight_norm == "network":
            for layer in (self.scale, self.shift):
                network_norm(layer)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.modulated(x, condition)


@norm("self_modulated_batchnorm", on="activation", needs={"batch_statistics"})
class SelfModulatedBatchNorm(_Modulated):
    """Normalises each channel over the batch; a small MLP of the latent gives scale and shift.

    Chen, Lucic, Houlsby and Gelly, "On Self Modulation for Generative Adversarial Networks" (2019),
    section 2, arXiv:1810.01365; as released in google/compare_gan. For a generator with
    `condition = "latent"`; with labels, `["latent", "embedding"]`. The network's weight norm acts
    on all three layers.

    Options:
        hidden: width of the hidden layer.
        initializer: how the weights start; biases start at 0, so the scale around 1.
        eps: added to the variance.
        momentum: weight of the newest batch in the running statistics that evaluation uses.
        sync: where several processes train together, normalise over the batch of all of them.

    Shape: (B, C, H, W), condition (B, E) -> (B, C, H, W).

    Raises:
        OptionError: a hidden layer of no width.

    Differs from the paper: as in its code, the last layers have biases, scales being around 1. A
        label's embedding stands beside the latent, where the paper's is added to it.
    """

    def __init__(
        self,
        channels: int,
        condition: int,
        weight_norm: WeightNorm,
        /,
        *,
        hidden: int = 32,
        initializer: Initializer = normal,
        eps: float = 1e-5,
        momentum: float = 0.1,
        sync: bool = False,
    ) -> None:
        super().__init__(channels, eps, momentum, sync)
        if hidden < 1:
            raise OptionError("hidden", f"a hidden layer of width {hidden} has nothing in it")
        self.hidden, self.scale, self.shift = (
            weight_norm(_filled(nn.Linear(wide, out), initializer))
            for wide, out in ((condition, hidden), (hidden, channels), (hidden, channels))
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.modulated(x, self.hidden(condition).relu())


@torch.no_grad()
def _filled(layer: nn.Linear, initializer: Initializer) -> nn.Linear:
    """A layer as it starts; drawn from torch's global generator, as the network seeds it."""
    initializer(layer.weight, None)  # type: ignore[arg-type]
    if layer.bias is not None:
        layer.bias.zero_()
    return layer


@torch.no_grad()
def _leaves_zeros(initializer: Initializer) -> bool:
    probe = torch.ones(2, 2, device="cpu")
    initializer(probe, torch.Generator().manual_seed(0))
    return not probe.any()
