"""The Frechet distance between two Gaussians, through symmetric problems alone."""

from __future__ import annotations

import torch
from torch import Tensor

from gankit.metrics.gathering import Moments

__all__ = ["frechet_distance", "root_trace"]


def frechet_distance(real: Moments, fake: Moments) -> float:
    """|m - n|^2 + tr(A) + tr(B) - 2 tr (A B)^(1/2), for means m, n and covariances A, B.

    Dowson and Landau, "The Frechet Distance between Multivariate Normal Distributions", 1982.
    In squares of the features' unit.

    Raises:
        ValueError: features of two widths, or fewer than two images.
    """
    if real.width != fake.width:
        raise ValueError(f"real features of width {real.width}, fake ones of {fake.width}")
    one, other = real.covariance, fake.covariance
    apart = (real.mean - fake.mean).square().sum()
    spread = one.trace() + other.trace() - 2 * root_trace(one, other)
    # No distance is negative, and that of equal sets is 0: what is below is rounding.
    return max((apart + spread).item(), 0.0)


def root_trace(one: Tensor, other: Tensor) -> Tensor:
    """The trace of the square root of a product of two covariances.

    The eigenvalues of A B, with A = F F^T by Cholesky, are those of F^T B F, which is symmetric:
    they are real, and rounding cannot make them complex. Where A or B is singular, rounding would
    make roots of 1e-8 of eigenvalues that are 0. The roots are also the singular values of F^T G,
    with B = G G^T; there those are taken, of factors that are as narrow as the ranks.

    Shape: (D, D) float64 each, to a scalar.
    """
    first, second = _cholesky(one), _cholesky(other)
    if first is not None and second is not None:
        squares = torch.linalg.eigvalsh(first.mT @ other @ first)
        return squares.clamp(min=0).sqrt().sum()
    first = _narrow(one) if first is None else first
    second = _narrow(other) if second is None else second
    return torch.linalg.svdvals(first.mT @ second).sum()


def _tolerance(matrix: Tensor) -> float:
    """Below this share of the largest, a variance is rounding."""
    return len(matrix) * torch.finfo(matrix.dtype).eps


def _cholesky(covariance: Tensor) -> Tensor | None:
    """The lower factor; None of a matrix that is singular, to rounding."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    pivots = factor.diagonal().square()
    if failed or pivots.min() <= _tolerance(covariance) * pivots.max():
        return None
    return factor


def _narrow(covariance: Tensor) -> Tensor:
    """A factor with as many columns as the matrix has rank, (D, rank)."""
    variances, directions = torch.linalg.eigh(covariance)
    there = variances > _tolerance(covariance) * variances.max()
    return directions[:, there] * variances[there].sqrt()
