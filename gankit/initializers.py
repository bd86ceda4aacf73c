"""Initializers: how a weight is filled, in place, before training.

All draw from `random` alone, which lives on the weight's device. A weight is read as torch lays
it out: (outputs, inputs, ...) for linear layers and convolutions, (inputs, outputs, ...) for
transposed convolutions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gankit.registry import initializer

__all__ = ["default", "kaiming", "normal", "orthogonal", "uniform", "xavier"]


@initializer("default")
def default(weight: Tensor, random: torch.Generator, /) -> None:
    """Leaves what torch drew when the layer was made.

    Shape: any.
    """


@initializer("kaiming")
def kaiming(weight: Tensor, random: torch.Generator, /, *, slope: float = 0.0) -> None:
    """Normal, with the deviation that keeps the variance of a ReLU network from layer to layer.

    std = sqrt(2 / (1 + slope^2) / fan_in), fan_in being the inputs times the kernel's area.

    He et al., "Delving Deep into Rectifiers", 2015, arXiv:1502.01852, section 2.2.

    Options:
        slope: the negative slope of the activation that follows; 0 for a ReLU

    Shape: at least two axes.

    Raises:
        ValueError: a weight of fewer than two axes.

    Differs from the paper: for a transposed convolution the fan is that of its outputs.
    """
    nn.init.kaiming_normal_(weight, a=slope, nonlinearity="leaky_relu", generator=random)


@initializer("normal")
def normal(weight: Tensor, random: torch.Generator, /, *, std: float = 0.02) -> None:
    """Normal with mean 0.

    DCGAN, Radford, Metz and Chintala, 2016, arXiv:1511.06434, section 4.

    Options:
        std: the standard deviation; at least 0

    Shape: any.

    Raises:
        ValueError: a negative deviation.

    Differs from the paper: there the scales of batchnorm are drawn too, around 1.
    """
    if not 0 <= std < math.inf:
        raise ValueError(f"normal: std must be at least 0, not {std}")
    nn.init.normal_(weight, std=std, generator=random)


@initializer("orthogonal")
def orthogonal(weight: Tensor, random: torch.Generator, /, *, gain: float = 1.0) -> None:
    """Rows, or columns where they are fewer, that are orthogonal and `gain` long.

    Saxe, McClelland and Ganguli, 2014, arXiv:1312.6120, section 3; in GANs: BigGAN, Brock,
    Donahue and Simonyan, 2019, arXiv:1809.11096.

    Options:
        gain: the length of each row; every singular value

    Shape: at least two axes, read as a matrix: the first axis x the rest.

    Raises:
        ValueError: a weight of fewer than two axes.
    """
    nn.init.orthogonal_(weight, gain=gain, generator=random)


@initializer("uniform")
def uniform(weight: Tensor, random: torch.Generator, /, *, bound: float = 0.05) -> None:
    """Uniform within +-bound, whatever the layer's size.

    The first GANs have 0.05 in G and 0.005 in D, Goodfellow et al., 2014, in their released code.

    Options:
        bound: the greatest absolute value; at least 0

    Shape: any.

    Raises:
        ValueError: a negative bound.
    """
    if not 0 <= bound < math.inf:
        raise ValueError(f"uniform: bound must be at least 0, not {bound}")
    nn.init.uniform_(weight, -bound, bound, generator=random)


@initializer("xavier")
def xavier(weight: Tensor, random: torch.Generator, /, *, gain: float = 1.0) -> None:
    """Uniform within +-gain * sqrt(6 / (fan_in + fan_out)).

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    2010, section 4.2, equation 16; SAGAN's released code uses it.

    Options:
        gain: what the bound is multiplied by

    Shape: at least two axes.

    Raises:
        ValueError: a weight of fewer than two axes.
    """
    nn.init.xavier_uniform_(weight, gain=gain, generator=random)
