"""Arithmetic that parts share, and that must be exact and fast."""

from gankit.ops.estimates import (
    Computed,
    Estimate,
    computed,
    estimates,
    held,
    is_running,
    move,
    parametrizations,
    settle,
    unparametrized,
)
from gankit.ops.matrices import (
    TRANSPOSED,
    AsMatrix,
    as_matrix,
    full_precision,
    power_iteration,
    top_vectors,
)
from gankit.ops.resampled import channels_last, conv_pool, folded_kernel, plainly, upsample_conv

__all__ = [
    "TRANSPOSED",
    "AsMatrix",
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
    "unparametrized",
    "upsample_conv",
]
