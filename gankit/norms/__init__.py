"""Normalizations: of a layer's weight, and of what flows between layers."""

from gankit.norms.activation import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, PixelNorm
from gankit.norms.weight import SpectralNorm, clip, none, spectral, weightnorm

__all__ = [
    "BatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "PixelNorm",
    "SpectralNorm",
    "clip",
    "none",
    "spectral",
    "weightnorm",
]
