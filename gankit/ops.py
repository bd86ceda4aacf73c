"""Arithmetic on weights that several parts share: the matrix a layer is, estimates that move.

An estimate is a parametrization with buffers that follow a weight through training, such as the
singular vectors of spectral norm. By hand it moves at every forward pass in training mode. Inside
`held`, which the engine opens for each turn, it stands still, and moves only where `move` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["Estimate", "as_matrix", "estimates", "held", "move", "power_iteration", "settle"]


class Estimate(nn.Module):
    """A parametrization that keeps an estimate of something about the weight."""

    held: bool = False
    """While True, `forward` leaves the estimate where it is."""

    def move(self, weight: Tensor, /) -> None:
        """Bring the estimate one step closer to the weight as it is now."""
        raise NotImplementedError

    def settle(self, weight: Tensor, /) -> None:
        """Move until the estimate stands still."""
        raise NotImplementedError


def estimates(network: nn.Module) -> Iterator[tuple[Estimate, Tensor]]:
    """Every estimate in a network, each once, with the raw weight that it follows."""
    for module in network.modules():
        if isinstance(module, parametrize.ParametrizationList):
            for parametrization in module:
                if isinstance(parametrization, Estimate):
                    yield parametrization, module.original


@contextmanager
def held(*networks: nn.Module) -> Iterator[None]:
    """Keep every estimate of the networks where it is."""
    found = [estimate for network in networks for estimate, _ in estimates(network)]
    for estimate in found:
        estimate.held = True
    try:
        yield
    finally:
        for estimate in found:
            estimate.held = False


def move(network: nn.Module) -> None:
    """Bring every estimate one step closer to its weight."""
    for estimate, weight in estimates(network):
        estimate.move(weight)


def settle(network: nn.Module) -> None:
    """Bring every estimate to where it stands still; for averaged or freshly drawn weights."""
    for estimate, weight in estimates(network):
        estimate.settle(weight)


_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def as_matrix(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """How to read a layer's weight as a matrix: output channels x all the rest.

    Transposed convolutions keep their output channels in the second axis, split over groups; many
    public copies of spectral norm take the first and so normalise another matrix.

    Shape: weight of the layer -> (out_channels, the product of the other axes per group).
    """
    groups = layer.groups if isinstance(layer, _TRANSPOSED) else 0

    def matrix(weight: Tensor) -> Tensor:
        if groups:
            grouped = weight.unflatten(0, (groups, weight.shape[0] // groups))
            weight = grouped.transpose(1, 2).flatten(0, 1)
        return weight.flatten(1)

    return matrix


@torch.no_grad()
def power_iteration(matrix: Tensor, u: Tensor, v: Tensor, eps: float) -> None:
    """One step of the power method, in place: v <- W^T u / |W^T u|, u <- W v / |W v|.

    A product shorter than `eps` has no direction, and leaves the vector as it was; a weight that
    passes through zero would otherwise stop its estimate for good.

    Shape: matrix (rows, columns), u (rows,), v (columns,), all of one floating type.
    """
    for vector, product in ((v, matrix.t().mv), (u, matrix.mv)):
        image = product(u if vector is v else v)
        length = torch.linalg.vector_norm(image)
        vector.copy_(torch.where(length > eps, image / length.clamp_min(eps), vector))
