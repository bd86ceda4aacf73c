"""Penalties on weights, whatever a turn's images are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gankit.ops import TRANSPOSED, as_matrix
from gankit.penalties.checks import check_options
from gankit.registry import penalty
from gankit.slots import Turn

__all__ = ["Orthogonal"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


@penalty("orthogonal")
@dataclass(frozen=True, kw_only=True)
class Orthogonal:
    """Keeps the filters of each layer of G at right angles, and their lengths free.

    weight x the sum over layers of |W W^T * (1 - I)|^2, where W has a filter, what makes one output
    channel, in each row: the squares of the inner products of every two filters.

    Brock, Donahue and Simonyan, "Large Scale GAN Training for High Fidelity Natural Image
    Synthesis", 2018, arXiv:1809.11096, section 3.1, equation 3.

    It acts on the dense layers and convolutions, those inside norms too, and on the weight as it is
    stored, before spectral norm, as in the authors' code for PyTorch (ajbrock/BigGAN-PyTorch,
    `utils.ortho`). Embeddings are left alone: they are the code's exception.

    Options:
        weight: the paper's beta; at least 0
        every: applied once in so many turns of G; at least 1

    Shape: a generator to a scalar.

    Raises:
        ValueError: a negative weight, `every` below 1, or a generator without such layers.

    Differs from the paper: its W has filters in columns. The code's gradient is half of that of the
        paper's formula. In layers with groups, filters are compared within theirs, since others
        look at other channels. Of a layer with weightnorm it is the weight as used.
    """

    players: ClassVar[str] = "G"
    weight: float = 1e-4
    every: int = 1

    def __post_init__(self) -> None:
        check_options("orthogonal", self.every, weight=self.weight)

    def __call__(self, turn: Turn, /) -> Tensor:
        """The penalty of a turn of G."""
        overlaps = [_overlap(filters) for filters in _filters(turn.generator)]
        if not overlaps:
            name = type(turn.generator).__name__
            raise ValueError(f"orthogonal: {name} has no dense layer and no convolution")
        return self.weight * torch.stack(overlaps).sum()


def _filters(network: nn.Module) -> Iterator[Tensor]:
    """The filters of each layer as rows, (groups, channels of a group, values)."""
    for layer in network.modules():
        if isinstance(layer, LAYERS):
            matrix = as_matrix(layer)(_stored(layer))
            yield matrix.unflatten(0, (int(getattr(layer, "groups", 1)), -1))


def _stored(layer: nn.Module) -> Tensor:
    """A layer's weight before what reparametrises it, where that is a tensor of its own."""
    parametrizations: Any = getattr(layer, "parametrizations", None)
    if parametrize.is_parametrized(layer, "weight") and parametrizations.weight.is_tensor:
        return parametrizations.weight.original
    weight: Any = layer.weight
    return weight


def _overlap(rows: Tensor) -> Tensor:
    """The sum of squared inner products of different rows, in float32 or wider."""
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    with torch.autocast("cpu" if rows.is_meta else rows.device.type, enabled=False):
        if rows.shape[-2] <= rows.shape[-1]:
            return 2 * (rows @ rows.mT).tril(-1).square().sum()
        # The squares of W^T W have the sum of those of W W^T, which of G's first layer, with its
        # thousands of output channels, would not fit into memory.
        lengths = rows.square().sum(-1)
        return (rows.mT @ rows).square().sum() - lengths.square().sum()
