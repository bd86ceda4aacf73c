"""Activations: the nonlinearities between layers.

None works in place: an in-place one before a skip connection changes what the skip carries.
"""

from __future__ import annotations

from torch import nn

from gankit.registry import activation

__all__ = ["leaky_relu", "none", "relu", "silu", "tanh"]


@activation("leaky_relu")
def leaky_relu(*, slope: float = 0.2) -> nn.Module:
    """max(x, slope * x).

    The slope of 0.2 is that of DCGAN's discriminator, Radford, Metz and Chintala, 2016,
    arXiv:1511.06434, section 4.

    Options:
        slope: what negative values are multiplied by

    Shape: any, kept.
    """
    return nn.LeakyReLU(slope)


@activation("none")
def none() -> nn.Module:
    """The identity.

    Shape: any, kept.
    """
    return nn.Identity()


@activation("relu")
def relu() -> nn.Module:
    """max(x, 0).

    DCGAN's generator has it, Radford, Metz and Chintala, 2016, arXiv:1511.06434, section 3.

    Shape: any, kept.
    """
    return nn.ReLU()


@activation("silu")
def silu() -> nn.Module:
    """x * sigmoid(x), also called swish.

    Elfwing, Uchibe and Doya, 2017, arXiv:1702.03118; as swish: Ramachandran, Zoph and Le, 2017,
    arXiv:1710.05941.

    Shape: any, kept.
    """
    return nn.SiLU()


@activation("tanh")
def tanh() -> nn.Module:
    """The hyperbolic tangent, which keeps values within (-1, 1).

    Shape: any, kept.
    """
    return nn.Tanh()
