"""Arithmetic that parts share, and that must be exact and fast."""

from gankit.ops.estimates import (
    TRANSPOSED,
    Computed,
    Estimate,
    as_matrix,
    computed,
    estimates,
    full_precision,
    held,
    is_running,
    move,
    parametrizations,
    power_iteration,
    settle,
    top_vectors,
)
from gankit.ops.resampled import channels_last, conv_pool, folded_kernel, plainly, upsample_conv

__all__ = [
    "TRANSPOSED",
    "Computed",
    "Estimate",
    "as_matrix",
    "channels_last",
    "computed",
    "conv_pool",
    "estimates",
    "folded_kernel",
    "full_precision",
    "held",
    "is_running",
    "move",
    "parametrizations",
    "plainly",
    "power_iteration",
    "settle",
    "top_vectors",
    "upsample_conv",
]
