"""Normalizations: of a layer's weight, and of what flows between layers."""

from gankit.norms.activation import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, PixelNorm
from gankit.norms.conditional import ConditionalBatchNorm, SelfModulatedBatchNorm
from gankit.norms.weight import SpectralNorm, clip, none, spectral, weightnorm

__all__ = [
    "BatchNorm",
    "ConditionalBatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "PixelNorm",
    "SelfModulatedBatchNorm",
    "SpectralNorm",
    "clip",
    "none",
    "spectral",
    "weightnorm",
]
